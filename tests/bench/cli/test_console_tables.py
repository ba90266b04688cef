"""What commands print about records, at the width of a terminal of 80 columns."""

from __future__ import annotations

import json

import pytest

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


@pytest.mark.parametrize("what", ["methods", "sources", "fidelity", "tasks", "presets", "models"])
def test_what_can_be_run_is_listed(what):
    rows = json.loads(invoke("list", what, "--json").stdout)
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    result = invoke("list", what)
    assert result.exit_code == 0
    names = [str(next(iter(row.values()))) for row in rows]
    assert all(name in result.stdout for name in names)
