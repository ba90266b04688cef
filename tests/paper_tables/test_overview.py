"""The table of all recorded runs."""

import pytest
from click.testing import CliRunner

from bench.record.store import Store
from paper_tables.overview import grid, main
from tests.records import make_record


def record(method: str, seed: int, score: float, preset: str = "tiny") -> dict:
    def scores(mean: float) -> dict:
        return {"test": {"mean": mean, "sd_over_decoding_seeds": 0.1, "by_decoding_seed": {}, "examples": 2}}

    made, _ = make_record(method, "samsum", seed, preset=preset, sgo="on-policy")
    time = {"training_seconds": 20.0, "phases": {"generation": 5.0}}
    return made | {"init_scores": scores(10.0), "scores": scores(score), "time": time}


def test_means_over_seeds_best_first(tmp_path):
    store = Store(tmp_path)
    for method, seed, score in (("kld", 10, 20.0), ("kld", 20, 22.0), ("srkl", 10, 30.0)):
        store.write(record(method, seed, score), [])
    store.write(record("kld", 10, 90.0, preset="paper"), [])
    table = grid(store, "tiny")
    assert list(table["method"]) == ["srkl", "kld"]
    row = table.iloc[1]
    assert (row["seeds"], row["score"], row["init"], row["gain"]) == (2, 21.0, 10.0, 11.0)
    assert (row["seconds"], row["generation"]) == (20.0, pytest.approx(0.25))


def test_nothing_recorded(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "bench run --method srkl" in result.output
