"""`bench tables`: files, messages and exit codes."""

from __future__ import annotations

import importlib.metadata
import shutil

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from bench.record.store import PREDICTIONS, RECORD
from bench.system.files import write_json
from paper_tables.cli.tables import tables
from tests.paper_tables.conftest import DECLARED
from tests.records import write_record

VIEWS = ("table1-tiny-measured", "table1-published", "table1-tiny-side-by-side")


def files(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def test_what_pyproject_declares_is_a_command():
    for name, value in DECLARED.items():
        loaded = importlib.metadata.EntryPoint(name, value, "").load()
        assert isinstance(loaded, click.Command)
        assert loaded.name == name


def test_the_files_and_what_is_said(command, out):
    result = command("tables", "1", "--out", out)
    assert result.exit_code == 0, result.output
    assert set(files(out)) == {f"{view}.{ending}" for view in VIEWS for ending in ("csv", "tex", "md")}
    assert "table1: 20 of 25 cells from 12 runs" in result.stdout
    assert "missing: 3 runs" in result.stdout
    assert "bench run --method srkl --task dolly --preset tiny --seed 30" in result.stdout
    assert result.stderr == ""


def test_the_bytes_are_the_same_again_and_from_a_copy(command, out, tmp_path):
    command("tables", "1", "main", "--out", out)
    first = files(out)
    command("tables", "1", "main", "--out", out)
    assert files(out) == first
    shutil.copytree(out / "runs", tmp_path / "copy" / "runs")
    command("tables", "main", "1", "--out", tmp_path / "copy")
    assert files(tmp_path / "copy") == first


def test_one_format(command, out):
    command("tables", "1", "--out", out, "--format", "markdown")
    assert set(files(out)) == {f"{view}.md" for view in VIEWS}


def test_without_a_name_all_tables_are_made(command, tmp_path):
    write_record(tmp_path, "kld")
    result = command("tables", "--out", tmp_path, "--format", "csv")
    assert result.exit_code == 0, result.output
    assert len(files(tmp_path)) == 6 * 3
    assert "table5: 0 of 8 cells from 0 runs" in result.stdout


def test_damaged_foreign_and_newer_records_are_named_and_skipped(command, out):
    texts = {"cut": '{"schema": 1, "ru', "foreign": '{"epoch": 3}', "newer": '{"schema": 7, "run_id": "x"}'}
    for folder, text in texts.items():
        (out / "runs" / folder).mkdir()
        (out / "runs" / folder / RECORD).write_text(text)
    (next((out / "runs").glob("dolly-jsd-*")) / PREDICTIONS).write_bytes(b"")
    result = command("tables", "1", "--out", out)
    assert result.exit_code == 0, result.output
    for words in ("cut/record.json: damaged", "foreign/record.json: not a record", "newer/record.json: schema 7"):
        assert words in result.stderr
    assert "skipped dolly-jsd-" in result.stderr
    assert "missing: 4 runs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["9"], ["unknown table '9'", "known: 1, 2, 3, 4, 5, alpha"]),
        (["mian"], ["unknown table 'mian'", "did you mean 'main'"]),
        (["1", "--format", "latx"], ["unknown format 'latx'", "did you mean 'latex'"]),
        (["1", "--format", ""], ["none given"]),
        (["1", "--preset", "tyni"], ["unknown preset", "did you mean 'tiny'"]),
        (["1", "--preset", "small"], ["no records of preset small", "--preset tiny"]),
        (["1", "--seeds", "ten"], ["--seeds ten", "whole numbers"]),
    ],
)
def test_refused(command, out, arguments, words):
    result = command("tables", *arguments, "--out", out)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert not (out / "tables").exists()


def test_no_records_at_all(command, tmp_path):
    result = command("tables", "--out", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "bench run" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_runs_that_cannot_be_compared_are_refused(command, out):
    write_record(out, "srkl", assignments=("training.steps=50",))
    result = command("tables", "1", "--out", out)
    assert result.exit_code == 2
    assert "training.steps (800 against 50)" in result.stderr
    assert "--key" in result.stderr


def test_unwritable_output(command, out):
    (out / "tables").write_text("in the way")
    result = command("tables", "1", "--out", out)
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_help_stands_on_its_own():
    result = CliRunner().invoke(tables, ["--help"])
    assert result.exit_code == 0
    assert "dagger" in result.output


def judged_result(mean, sets=("test", "selfinst", "vicuna"), model="gpt-4o"):
    """A judgement in the shape that `bench judge` writes."""
    score = {"value": mean, "low": mean - 1, "high": mean + 1, "examples": 8}
    nothing = ("score_without_flagged", "position_bias", "agreement_of_orders", "agreement_of_repeats")
    result = {
        "items": 8,
        "outcomes": {"scored": 7, "unparsable": 1},
        "readings": {"outcomes": {"scored": 14, "unparsable": 2}, "asked_again": 0},
        "score": score,
        "flagged": {"items": 0, "by_pattern": {}},
    } | dict.fromkeys(nothing)
    return {
        "schema": 1,
        "run_id": "a run",
        "version": "0.1.0",
        "judge": {"model": model, "temperature": 0.0, "max_tokens": 16, "base_url": "http://localhost/v1"},
        "protocol": "rating",
        "prompt": "f" * 64,
        "against": None,
        "sets": list(sets),
        "decoding_seeds": 1,
        "limit": None,
        "repeats": 1,
        "prompt_version": "rating-1",
        "prompt_source": "a paper",
        "models_served": [f"{model}-2026"],
        "asked": ["2026-01-02"],
        "answers": 16,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "patterns": [],
        "results": dict.fromkeys(sets, result),
    }


def test_what_one_judge_said_stands_in_columns_of_its_own(command, out):
    for folder in sorted((out / "runs").glob("dolly-*")):
        method, seed = folder.name.split("-")[1], int(folder.name.split("-s")[-1].split("-")[0])
        if method in ("kld", "skl"):
            write_json(folder / "judged" / "rating-a.json", judged_result(50 + seed if method == "kld" else 70))
    other = next((out / "runs").glob("dolly-kld*"))
    write_json(other / "judged" / "rating-b.json", judged_result(99, model="somebody-else"))
    (other / "judged" / "rating-c.json").write_text("{")
    result = command("tables", "1", "--out", out)
    assert result.exit_code == 0, result.output
    assert "rating-c.json: not a judgement of bench judge" in result.stderr
    text = (out / "tables" / "table1-tiny-measured.md").read_text()
    assert "judge, Dolly | judge, SelfInst | judge, Vicuna" in text
    kld = next(line for line in text.splitlines() if line.startswith("| KLD"))
    assert kld.count("70.00 ± 10.00") == 3
    assert "Judge: gpt-4o (served as gpt-4o-2026), temperature 0, prompt rating-1, asked 2026-01-02" in text
    assert "18 items could not be scored" in text
    assert "Another 1 judged fewer" in text
    frame = pd.read_csv(out / "tables" / "table1-tiny-measured.csv")
    judged = frame[frame["column"] == "judge-dolly"].set_index("row")
    assert judged.loc["kld", "mean"] == 70
    assert judged.loc["rkld", "n"] == 0
    assert set(judged["metric"].dropna()) == {"judge"}


def test_sets_judged_one_by_one_stand_together(command, out):
    folder = next((out / "runs").glob("dolly-kld*")) / "judged"
    for number, name in enumerate(("test", "selfinst", "vicuna")):
        write_json(folder / f"rating-{number}.json", judged_result(50 + number, sets=(name,)))
    again = judged_result(80, sets=("selfinst",)) | {"asked": ["2026-02-03"], "models_served": ["gpt-4o-2027"]}
    write_json(folder / "rating-0a.json", again)
    write_json(folder / "rating-4.json", judged_result(90, sets=("test",)) | {"limit": 3})
    assert command("tables", "1", "--out", out).exit_code == 0
    text = (out / "tables" / "table1-tiny-measured.md").read_text()
    kld = next(line for line in text.splitlines() if line.startswith("| KLD"))
    assert [cell.strip() for cell in kld.split("|")][-5:-2] == ["50.00", "80.00", "52.00"]
    assert "served as gpt-4o-2026, gpt-4o-2027" in text
    assert "asked 2026-01-02 to 2026-02-03" in text
    assert "Another 1 judged" in text


def test_without_a_judge_there_are_no_such_columns(command, out):
    assert command("tables", "1", "--out", out).exit_code == 0
    assert "judge" not in (out / "tables" / "table1-tiny-measured.md").read_text()


def test_the_runs_of_a_preset_of_ones_own_are_found_under_its_name(command, tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("extends: tiny\ntraining: {steps: 20}\n")
    for seed in (10, 20):
        write_record(tmp_path, "kld", seed=seed, preset=str(preset))
    result = command("tables", "1", "--preset", preset, "--out", tmp_path, "--format", "csv")
    assert result.exit_code == 0, result.output
    assert "table1: 5 of 25 cells from 2 runs" in result.stdout
    assert f"bench run --method srkl --task dolly --preset {preset} --seed 10" in result.stdout
    frame = pd.read_csv(tmp_path / "tables" / "table1-mine-measured.csv")
    assert set(frame["preset"]) == {"mine"}


def test_of_seeds_without_runs_nothing_is_written(command, tmp_path):
    write_record(tmp_path, "kld", seed=10)
    write_record(tmp_path, "kld", "samsum", seed=20)  # Table 1 is of Dolly
    for words in (["tables"], ["report"], ["figures", "6"], ["claims"]):
        result = command(*words, "--out", tmp_path, "--seeds", "98,99")
        assert result.exit_code == 2
        assert "--seeds 98,99: no run of tiny has any of these; recorded are 10, 20" in result.stderr
    assert not list(tmp_path.glob("tables/*"))
    assert not list(tmp_path.glob("*.html"))
    result = command("tables", "1", "3", "--out", tmp_path, "--seeds", "20")
    assert result.exit_code == 0
    assert "table1: 0 of 25 cells from 0 runs\n  not written: none of its runs was chosen" in result.stdout
    assert {path.name.partition("-")[0] for path in tmp_path.glob("tables/*")} == {"table3"}


def test_tables_of_chosen_runs_leave_those_of_all_runs_as_they_are(command, out):
    command("tables", "1", "--out", out)
    whole = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    result = command("tables", "1", "--out", out, "--seeds", "10,20")
    assert result.exit_code == 0
    assert "table1-tiny-seeds-10-20-measured" in result.stdout
    assert (out / "tables" / "table1-tiny-seeds-10-20-measured.csv").is_file()
    assert {name: (out / "tables" / name).read_bytes() for name in whole} == whole
