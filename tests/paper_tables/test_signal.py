"""The table of teacher, init and SFT student over training seeds."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.record.store import Store
from paper_tables.signal_check import main, signal
from tests.records import make_record


def record(seed: int, score: float, method: str = "sft") -> dict:
    def scores(mean: float) -> dict:
        return {"test": {"mean": mean, "sd_over_decoding_seeds": 0.1, "by_decoding_seed": {}, "examples": 2}}

    made, _ = make_record(method, "samsum", seed)
    return made | {"teacher_scores": scores(60.0), "init_scores": scores(10.0), "scores": scores(score)}


def test_means_and_deviations(tmp_path):
    store = Store(tmp_path)
    for seed, score in ((10, 38.0), (20, 40.0), (30, 42.0)):
        store.write(record(seed, score), [])
    store.write(record(10, 59.0, method="srkl"), [])
    row = signal(store, "tiny").iloc[0]
    assert row["seeds"] == 3
    assert row["sft"] == pytest.approx(40.0)
    assert row["sd"] == pytest.approx(2.0)
    assert row["gap"] == pytest.approx(20.0)
    assert row["sd/gap"] == pytest.approx(0.1)
    assert row["gain"] == pytest.approx(30.0)
    printed = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert "samsum" in printed.output


def test_no_runs(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "bench run --method sft" in result.output
