"""The table of teacher, init student and students of SFT and KLD, and the criteria it tells of."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.record.record import RunRecord
from bench.record.store import Store
from paper_tables.regime import main, regime
from tests.records import altered, make_record


def scores(mean: float) -> dict:
    score = {"mean": mean, "sd_over_decoding_seeds": 0.1, "by_decoding_seed": {}}
    return {"test": {"examples": 2, "mean_tokens": 5.0, "share_ended": 1.0, "metrics": {"rouge_l": score}}}


def record(method: str, seed: int, score: float) -> RunRecord:
    made, _ = make_record(method, "samsum", seed)
    return altered(
        made,
        teacher_scores=scores(60.0),
        init_scores=scores(10.0),
        scores=scores(score),
        time__training_seconds=20.0,
        time__phases={"generation": 5.0},
    )


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def validated(made: RunRecord, losses: tuple[float, ...]) -> RunRecord:
    return altered(made, validations=[{"step": 10 * i, "loss": loss} for i, loss in enumerate(losses)])


def test_the_regime_is_told_by_sft_and_kld_alone(tmp_path):
    store = Store(tmp_path)
    for seed, score in ((10, 38.0), (20, 40.0), (30, 42.0)):
        store.write(validated(record("sft", seed, score), (3.0, 2.0, 2.5, 2.9, 3.0)), [])
        store.write(record("kld", seed, score + 4.0), [])
    store.write(record("srkl", 10, 59.0), [])
    row = regime(store, "tiny").iloc[0]
    assert (row["seeds"], row["missed"]) == (3, "none")
    assert (row["sft"], row["kld"], row["gap"]) == pytest.approx((40.0, 44.0, 20.0))
    assert (row["least_loss_at"], row["gain/gap"], row["spread/gap"]) == pytest.approx((0.25, 0.2, 0.2))
    assert "samsum" in printed("--out", tmp_path)


def test_each_criterion_can_be_missed(tmp_path):
    store = Store(tmp_path)
    for seed, score in ((10, 20.0), (20, 30.0)):  # less than half of the teacher's, ten points apart
        store.write(validated(record("sft", seed, score), (3.0, 2.5, 2.0)), [])  # the loss falls to the end
        store.write(record("kld", seed, score + 1.0), [])
    slow = altered(record("imitkd", 10, 45.0), time__training_seconds=121.0)
    store.write(slow, [])
    assert regime(store, "tiny").iloc[0]["missed"] == "1, 2, 3, 5, time"


def test_nothing_recorded(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "--method sft" in result.output
