"""Figures: the numbers they show, the files they leave, and measurements on real tiny models."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial

import pandas as pd
import pytest
import torch
from rich.console import Console

from bench.display import Reporter
from bench.files import read_json
from bench.store import Store
from distillm import skl, srkl
from paper_tables.figures import from_models, from_runs
from paper_tables.figures.catalogue import FROM_MODELS, make_figures
from paper_tables.figures.drawn import NothingToDraw
from paper_tables.figures.measurements import bound, largest_coefficient, measured, ratio_and_coefficient
from paper_tables.layout import tables
from paper_tables.select import Library
from paper_tables.sweeps import sweeps
from tests.records import write_record

SEEDS = (10, 20)


def write_arm(out, arm, seed=10, **fields):
    return write_record(out, arm.method, arm.task, seed, sgo=arm.sgo, init=arm.init, assignments=arm.options, **fields)


@pytest.fixture
def everything(tmp_path):
    """Two seeds of each arm of the main table, table 2 and all sweeps."""
    arms = {a for name in ("main", "1", "2") for a in tables("tiny")[name].arms}
    arms |= {a for sweep in sweeps("tiny").values() for a in sweep.arms}
    for number, arm in enumerate(sorted(arms, key=repr)):
        for seed in SEEDS:
            write_arm(tmp_path, arm, seed, mean=20.0 + number, seconds=10.0 + number)
    return tmp_path


def library(out):
    return Library(Store(out), "tiny")


def test_convergence_is_the_mean_validation_score_by_step(everything):
    frame = from_runs.convergence(library(everything)).frame
    assert set(frame["loss"]) == {"kld", "rkld", "jsd", "skl", "srkl"}
    kld = frame[frame["loss"] == "kld"]
    records = [r for r in Store(everything).all() if r["run_id"].startswith("dolly-kld-dataset")]
    expected = sum(r["validations"][1]["metric"] for r in records if r["config"]["init"] == "init") / 2
    assert list(kld["step"]) == [300]
    assert kld["mean"].iloc[0] == pytest.approx(expected)


def test_relative_time_is_against_the_same_loss_on_fixed_data(everything):
    frame = from_runs.relative_time(library(everything)).frame
    fixed = frame[frame["source"] == "dataset"]
    assert list(fixed["relative_time"]) == [1.0, 1.0]
    assert len(frame) == 10
    for loss, group in frame.groupby("loss"):
        base = group[group["source"] == "dataset"]["seconds"].iloc[0]
        assert list(group["relative_time"]) == pytest.approx(list(group["seconds"] / base)), loss


def test_times_of_a_shared_machine_are_not_drawn(tmp_path):
    for arm in tables("tiny")["main"].arms:
        write_arm(tmp_path, arm, other_load=1.0)
    for draw in (from_runs.pareto, from_runs.equal_budget, from_runs.relative_time):
        with pytest.raises(NothingToDraw, match="had the machine to themselves: bench suite"):
            draw(library(tmp_path))


def test_the_front_holds_what_nothing_beats_in_both(everything):
    frame = from_runs.pareto(library(everything)).frame
    assert len(frame) == 13
    for _, point in frame.iterrows():
        beaten = ((frame["seconds"] <= point["seconds"]) & (frame["score"] > point["score"])).any()
        assert point["on_front"] == (not beaten)


def test_quality_at_a_budget_never_falls(everything):
    frame = from_runs.equal_budget(library(everything)).frame
    for _, group in frame.groupby("method"):
        assert group["best"].is_monotonic_increasing
        assert group["seconds"].is_monotonic_increasing


@pytest.mark.parametrize("name", list(sweeps("tiny")))
def test_a_sweep_shows_each_value_of_each_series(everything, name):
    table = sweeps("tiny")[name]
    frame = from_runs.sweep(library(everything), name).frame
    assert len(frame) == len(table.rows) * len(table.columns)
    assert set(frame["n"]) == {2}
    assert frame["sd"].notna().all()


def test_files_and_their_data_are_the_same_each_time_and_what_is_missing_is_told(command, out):
    first = command("figures", "6", "8", "--out", out)
    assert first.exit_code == 0, first.output
    assert "8: not made: no runs: bench suite figures" in first.stderr
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {f"figure6-tiny.{form}" for form in ("svg", "pdf", "png", "csv", "txt")}
    before = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    assert command("figures", "6", "--out", out).exit_code == 0
    assert before == {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    ElementTree.fromstring(before["figure6-tiny.svg"])
    assert list(pd.read_csv(out / "figures" / "figure6-tiny.csv")["loss"].unique()) == ["kld", "rkld", "jsd", "skl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("figures", "9"), "unknown figure '9'"),
        (("figures", "parteo"), "did you mean 'pareto'"),
        (("figures", "7"), "no figure could be made"),
        (("figures", "6", "--preset", "small"), "no records of preset small"),
    ],
)
def test_bad_input_is_told(command, out, arguments, said):
    result = command(*arguments, "--out", out)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_unwritable_folder_is_told(command, out):
    (out / "figures").write_text("in the way")
    result = command("figures", "6", "--out", out)
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


# the theory


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("name", "loss"), [("skl", skl), ("srkl", srkl)])
def test_coefficients_are_the_gradient_of_the_loss(name, loss, alpha):
    """The gradient in the logits is q (c - sum q c), with c the derivative in q: -(1-a) p/m for SKL."""
    torch.manual_seed(0)
    student = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 11, dtype=torch.float64)
    loss(student, teacher, alpha=alpha).sum().backward()
    log_p, log_q = teacher.log_softmax(-1), student.detach().log_softmax(-1)
    log_ratio, coefficient = ratio_and_coefficient(name, log_p, log_q, alpha)
    slope = -coefficient if name == "skl" else coefficient
    q = log_q.exp()
    torch.testing.assert_close(student.grad, q * (slope - (q * slope).sum(-1, keepdim=True)))
    own = log_p if name == "skl" else log_q
    torch.testing.assert_close((own.exp() * log_ratio).sum(-1), loss(student.detach(), teacher, alpha=alpha))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("name", ["skl", "srkl"])
def test_bounds_hold_for_distributions_as_far_apart_as_can_be_and_are_reached(name, alpha):
    torch.manual_seed(1)
    log_p = (30 * torch.randn(2000, 8, dtype=torch.float64)).log_softmax(-1)
    log_q = (30 * torch.randn(2000, 8, dtype=torch.float64)).log_softmax(-1)
    log_ratio, coefficient = ratio_and_coefficient(name, log_p, log_q, alpha)
    limit = largest_coefficient(name, alpha)
    assert coefficient.max() <= limit + 1e-9
    assert coefficient.max() == pytest.approx(limit, rel=1e-6)
    own = log_p if name == "skl" else log_q
    error = (own.exp() * log_ratio.square()).sum(-1) - (own.exp() * log_ratio).sum(-1).square()
    assert error.max() <= bound(alpha, 1)
    assert bound(alpha, 4) == pytest.approx(bound(alpha, 1) / 4)
    assert largest_coefficient(name, 0.0) is bound(0.0, 1) is None


# real models


@pytest.fixture(scope="module")
def real(tmp_path_factory, cache):
    """Measurements on the shipped tiny teacher and an init student, recorded."""
    out = tmp_path_factory.mktemp("measured")
    torch.set_num_threads(1)
    reporter = Reporter(Console(stderr=True), quiet=True)
    made = make_figures(partial(library, out), list(FROM_MODELS), preset="tiny", seed=10, out=out, reporter=reporter)
    return out, list(made)


def test_measured_figures_are_made_from_what_is_recorded(real, monkeypatch):
    out, made = real
    assert [one.name for one in made] == ["1", "2", "3", "theory"]
    assert all(path.stat().st_size > 100 for one in made for path in one.paths)
    monkeypatch.setattr("paper_tables.figures.measurements.Pair", None)  # nothing may be measured again
    again = measured("coefficients", "tiny", 10, out, Reporter(Console(), quiet=True))
    assert again == read_json(out / "measurements" / "coefficients-tiny.json")
    assert again["environment"]["packages"]["torch"]
    assert again["config"]["task"] == "dolly"


def test_figure_1_chooses_by_its_rule(real):
    frame = pd.read_csv(real[0] / "figures" / "figure1-tiny.csv")
    low, high = frame["rouge_l"].quantile(0.25), frame["rouge_l"].quantile(0.75)
    wrong, right = (frame[frame["shown"].fillna("").str.startswith(kind)] for kind in ("wrong", "right"))
    assert len(wrong) == len(right) == from_models.EXAMPLES
    worst = frame[frame["rouge_l"] <= low + 1e-4]
    assert (worst["teacher_loss"] < wrong["teacher_loss"].max()).sum() < from_models.EXAMPLES
    assert (wrong["rouge_l"] <= low + 1e-4).all()
    assert (right["rouge_l"] >= high - 1e-4).all()
    assert frame["teacher_loss_on_reference"].mean() < frame["teacher_loss"].mean()


def test_figure_2_costs_more_the_more_and_the_longer(real):
    frame = pd.read_csv(real[0] / "figures" / "figure2-tiny.csv")
    assert (frame[frame["frequency"] == 0]["share"] == 0).all()
    for _, group in frame.groupby("length"):
        assert group["share"].is_monotonic_increasing
    always = frame[frame["frequency"] == 1].sort_values("length")
    assert always["generation_seconds"].iloc[-1] > 2 * always["generation_seconds"].iloc[0]


def test_sampled_errors_agree_with_the_exact_ones_and_stay_below_the_bound(real):
    found = measured("coefficients", "tiny", 10, real[0], Reporter(Console(), quiet=True))["found"]
    for row in found["errors"]:
        assert row["sampled"] == pytest.approx(row["exact"], rel=0.15)
        if row["bound"] is not None:
            assert row["exact"] <= row["bound"]
    for row in found["coefficients"]:
        if row["bound"] is not None:
            assert row["q1"] <= row["bound"] + 1e-9
    unbounded = next(r for r in found["coefficients"] if (r["loss"], r["alpha"]) == ("skl", 0.0))
    assert unbounded["q1"] > 1000
