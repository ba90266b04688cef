"""What commands print about records, at the width of a terminal of 80 columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.cli import first
from bench.record.differing import what_differs
from bench.record.record import RunRecord
from bench.record.store import Store
from tests.conftest import invoke
from tests.records import make_record, write_record


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def with_a_second_metric(record: RunRecord) -> RunRecord:
    """The same record, all of its scores halved as those of a metric of its own."""

    def both(scores):
        return {
            name: one.model_copy(
                update={
                    "metrics": one.metrics | {"half": one.primary.model_copy(update={"mean": one.primary.mean / 2})}
                }
            )
            for name, one in scores.items()
        }

    info = record.metric.model_copy(update={"name": "half", "label": "half of it", "signature": "divided by 2"})
    parts = {part: both(getattr(record, part)) for part in ("scores", "teacher_scores", "init_scores")}
    return record.model_copy(update={"metrics": [record.metric, info], **parts})


def test_no_score_is_cut_off(tmp_path):
    record = write_record(tmp_path, "distillm", "dolly")
    shown = invoke("show", record.run_id, "--out", str(tmp_path)).stdout
    for one in record.scores.values():
        assert f"{one.primary.mean:.1f}±{one.primary.sd_over_decoding_seeds:.1f}" in shown
    assert "training seed 10, init student sft" in " ".join(shown.split())


def test_every_metric_has_its_table_and_its_signature(tmp_path):
    record, rows = make_record("kld", "dolly")
    record = with_a_second_metric(record)
    Store(tmp_path).write(record, rows)
    shown = invoke("show", record.run_id, "--out", str(tmp_path)).stdout
    assert "ROUGE-L on dolly (tiny, synthetic (seed 0))" in shown
    assert "half of it on dolly (tiny, synthetic (seed 0))" in shown
    for one in record.scores.values():
        assert f"{one.primary.mean:.1f}±" in shown
        assert f"{one.primary.mean / 2:.1f}±" in shown
    assert "half of it: divided by 2" in shown


@pytest.mark.parametrize("what", ["methods", "sources", "settings", "fidelity", "tasks", "presets", "models"])
def test_what_can_be_run_is_listed(what):
    rows = json.loads(invoke("list", what, "--json").stdout)
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    result = invoke("list", what)
    assert result.exit_code == 0
    names = [str(next(iter(row.values()))) for row in rows]
    assert all(name in result.stdout for name in names)


PUBLISHED = str(Path(__file__).resolve().parents[3] / "results" / "paper-tiny")
LISTINGS = [("list", what) for what in ("methods", "sources", "settings", "fidelity", "tasks", "presets", "models")]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", [*LISTINGS, ("show", "dolly-sft-dataset-s40", "--out", PUBLISHED)])
def test_tables_fit_and_cut_no_word(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    whole = set(re.split(r"[\s│┃]+", invoke(*command).stdout))
    monkeypatch.setenv("COLUMNS", str(width))
    shown = invoke(*command).stdout
    assert max(map(len, shown.splitlines())) <= width
    words = {word for word in re.split(r"[\s│┃]+", shown) if word.isascii()}
    assert words - {"set"} <= whole, "each word is a whole one, or ends in an ellipsis"
    assert len(words) > (0.8 if width >= 80 else 0.5) * len({word for word in whole if word.isascii()})


@pytest.mark.parametrize("width", [60, 80, 120, None])
def test_runs_of_one_kind_say_what_they_differ_in(tmp_path, monkeypatch, width):
    for capacity in (16, 32):
        write_record(tmp_path, "distillm", "dolly", assignments=(f"sgo.capacity={capacity}",))
    write_record(tmp_path, "distillm", "dolly", init="pretrained", assignments=("method.alpha=0.3",))
    alone = write_record(tmp_path, "kld", "dolly")
    monkeypatch.setenv("COLUMNS", str(width)) if width else monkeypatch.delenv("COLUMNS")
    rows = json.loads(invoke("list", "runs", "--out", str(tmp_path), "--json").stdout)
    differing = {row["run"]: row["differs in"] for row in rows}
    assert differing.pop(alone.run_id) == ""
    assert all(re.fullmatch(r"init=\w+, alpha=0\.\d, capacity=\d+", told) for told in differing.values())
    assert len(set(differing.values())) == 3
    shown = invoke("list", "runs", "--out", str(tmp_path)).stdout
    assert all(told in shown for told in differing.values())
    assert all(run in shown for run in differing), "ids are whole, to be copied"
    assert max(map(len, shown.splitlines())) <= max(width or 1000, 64), "an id and its score stay on a line"


def test_what_settings_do_not_explain_is_told_too():
    one, _ = make_record("kld", "samsum")
    other = one.model_copy(update={"run_id": "b", "environment": one.environment.model_copy(update={"device": "cuda"})})
    assert what_differs([one, other]) == {one.run_id: "device=cpu", "b": "device=cuda"}
    preset, _ = make_record("kld", "samsum", assignments=("training.steps=7",))
    preset = preset.model_copy(update={"run_id": "c", "config": preset.config.model_copy(update={"preset": "mine"})})
    assert what_differs([one, preset]) == {one.run_id: "preset=tiny", "c": "preset=mine"}
    assert what_differs([one]) == {}


def test_make_run_shows_a_baseline_and_what_the_numbers_mean(tmp_path, capsys):
    baseline, record = (
        write_record(tmp_path, method, "samsum", mean=mean) for method, mean in (("kld", 25), ("distillm", 40))
    )
    first.show(Store(tmp_path), baseline, record)
    shown = " ".join(capsys.readouterr().out.split())
    for one in (baseline, record):
        assert f"{one.config.method.name} {one.scores['test'].primary.mean:.1f}±" in shown
    for words in (
        "by more than the choice of test examples: distillm is better",
        "ROUGE-L in percent",
        "bench run --method srkl --task samsum",
    ):
        assert words in shown
    first.show(Store(tmp_path), baseline, write_record(tmp_path, "srkl", "samsum", mean=25))
    assert "includes 0" in " ".join(capsys.readouterr().out.split())
