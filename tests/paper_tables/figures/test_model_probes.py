"""Figures 1, 2, 3 and the check of the theory: their formulas, and probes of real tiny models."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from bench.record.store import Store
from bench.system.files import read_json, read_sealed_json, write_sealed_json
from bench.system.progress import Reporter
from distillm import skl, srkl
from paper_tables.figures import from_models
from paper_tables.figures.catalogue import FROM_MODELS, write_figures
from paper_tables.figures.model_probes import (
    PROBES,
    STUDENTS,
    bound,
    largest_coefficient,
    plug_in,
    probe,
    ratio_and_coefficient,
)
from paper_tables.numbers.probes import COEFFICIENTS, Coefficients
from paper_tables.numbers.runs import RunIndex

PUBLISHED = Path(__file__).resolve().parents[3] / "results" / "paper-tiny"

# in one process of pytest-xdist: the probes are made once
pytestmark = [pytest.mark.usefixtures("style"), pytest.mark.xdist_group("probes")]


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


def test_the_plug_in_estimate_is_the_divergence_of_two_empirical_distributions():
    """Of many tokens it is the divergence itself; of one from each it is 0 or the largest there can be."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]], dtype=torch.float64)
    log_p, log_q = probabilities.log().expand(2, 3000, 3)
    rows = {(row.loss, row.alpha, row.n): row for row in plug_in(10, log_p, log_q, generator)}
    for loss, of in (("skl", skl), ("srkl", srkl)):
        exact = float(of(log_q[0], log_p[0], alpha=0.1))
        assert rows[loss, 0.1, 1].divergence == pytest.approx(exact)
        same = 0.5 * 0.2 + 0.3 * 0.2 + 0.2 * 0.6  # the two tokens are equal
        expected = same * exact**2 + (1 - same) * (math.log(10) - exact) ** 2
        assert rows[loss, 0.1, 1].sampled == pytest.approx(expected, rel=0.05)
        assert rows[loss, 0.1, 256].sampled < rows[loss, 0.1, 16].sampled / 8
        assert (loss, 0.0, 1) not in rows


# real models


@pytest.fixture(scope="module")
def real(tmp_path_factory, cache):
    """Probes of the shipped tiny teacher and init students, recorded."""
    out = tmp_path_factory.mktemp("probed")
    torch.set_num_threads(1)
    reporter = Reporter(Console(stderr=True), quiet=True)
    made = write_figures(
        partial(RunIndex, Store(out), "tiny"), list(FROM_MODELS), preset="tiny", out=out, reporter=reporter
    )
    return out, list(made)


@pytest.mark.slow  # the probes take minutes to make
def test_figures_of_models_are_made_from_what_is_recorded(real, monkeypatch):
    out, made = real
    assert [one.name for one in made] == ["1", "2", "3", "theory"]
    assert all(path.stat().st_size > 100 for one in made for path in one.paths)
    monkeypatch.setattr("paper_tables.figures.model_probes.ModelPair", None)  # nothing may be probed again
    again = probe(COEFFICIENTS, "tiny", out, Reporter(Console(), quiet=True))
    recorded = read_sealed_json(out / "model-probes" / "coefficients-tiny.json")
    assert again.model_dump(mode="json", by_alias=True) == recorded
    assert again.environment.packages["torch"]
    assert again.config["task"] == "dolly"


@pytest.mark.slow  # the probes take minutes to make
def test_a_probe_of_an_earlier_version_is_made_again(real, tmp_path, monkeypatch):
    recorded = read_sealed_json(real[0] / "model-probes" / "coefficients-tiny.json")
    recorded["version"] -= 1
    write_sealed_json(tmp_path / "model-probes" / "coefficients-tiny.json", recorded)
    assert COEFFICIENTS.read(tmp_path, "tiny") is None
    none = Coefficients(students=[], positions=0, coefficients=[], errors=[], plug_in=[])
    monkeypatch.setitem(PROBES, "coefficients", lambda pair: none)
    made = probe(COEFFICIENTS, "tiny", tmp_path, Reporter(Console(), quiet=True))
    assert made.found == none
    assert COEFFICIENTS.read(tmp_path, "tiny") == made


@pytest.mark.parametrize("name", list(FROM_MODELS))
@pytest.mark.slow  # the probes take minutes to make
def test_figures_of_models_can_be_read(real, check_legible, name):
    kind, draw = FROM_MODELS[name]
    check_legible(draw(kind.read(real[0], "tiny")).figure)


@pytest.mark.parametrize("aside", [0.0, 0.1, 0.5])
def test_letters_of_examples_that_lie_together_are_set_apart(check_legible, aside):
    kind, draw = FROM_MODELS["1"]
    probed = kind.read(PUBLISHED, "tiny")
    shown = draw(probed).frame.query("shown == 'low ROUGE-L, yet low loss'")
    (loss, _), (_, second) = shown[["teacher_loss", "example"]].to_numpy()
    # lower in the score as well, it stays one of the two
    moved = {"teacher_loss": loss + aside, "rouge_l": float(shown["rouge_l"].min())}
    found = [one.model_copy(update=moved) if one.example == second else one for one in probed.found]
    check_legible(draw(probed.model_copy(update={"found": found})).figure)


@pytest.mark.slow  # the probes take minutes to make
def test_figure_1_chooses_by_its_rule(real):
    frame = pd.read_csv(real[0] / "figures" / "figure1-tiny.csv")
    low, high = frame["rouge_l"].quantile(0.25), frame["rouge_l"].quantile(0.75)
    wrong, right = (frame[frame["shown"].fillna("").str.startswith(kind)] for kind in ("low", "high"))
    assert len(wrong) == len(right) == from_models.EXAMPLES
    worst = frame[frame["rouge_l"] <= low + 1e-4]
    assert (worst["teacher_loss"] < wrong["teacher_loss"].max()).sum() < from_models.EXAMPLES
    assert (wrong["rouge_l"] <= low + 1e-4).all()
    assert (right["rouge_l"] >= high - 1e-4).all()
    best = frame[frame["rouge_l"] >= high - 1e-4]
    assert (best["teacher_loss"] > right["teacher_loss"].min()).sum() < from_models.EXAMPLES
    assert set(frame["shown"].dropna()) == {"low ROUGE-L, yet low loss", "high ROUGE-L, yet high loss"}
    assert frame["teacher_loss_on_reference"].mean() < frame["teacher_loss"].mean()


@pytest.mark.slow  # the probes take minutes to make
def test_figure_2_costs_more_the_more_and_the_longer(real):
    frame = pd.read_csv(real[0] / "figures" / "figure2-tiny.csv")
    assert (frame[frame["frequency"] == 0]["share"] == 0).all()
    for _, group in frame.groupby("length"):
        assert group["share"].is_monotonic_increasing
    always = frame[frame["frequency"] == 1].sort_values("length")
    # by how much is this machine's affair, and other processes'
    assert always["generation_seconds"].iloc[-1] > always["generation_seconds"].iloc[0]
    environment = read_json(real[0] / "model-probes" / "cost-tiny.json")["environment"]
    caption = (real[0] / "figures" / "figure2-tiny.txt").read_text(encoding="utf-8")
    assert f"Times measured on {environment['device_name']} ({environment['cpu']}, 1 thread)" in caption


@pytest.mark.slow  # the probes take minutes to make
def test_figure_3_letters_its_panels_and_draws_skews_in_proportion_to_their_logarithm(real):
    drawn = from_models.gradients(COEFFICIENTS.read(real[0], "tiny"))
    panels = drawn.figure.axes
    assert [axes.get_title()[:3] for axes in panels] == ["(a)", "(b)", "(c)", "(d)"]
    assert [axes.get_yscale() for axes in panels] == ["log", "symlog", "log", "log"]
    for axes in panels[2:]:
        assert axes.get_xscale() == "symlog"
        x = axes.transData.transform([(alpha, 1) for alpha in (0.02, 0.05, 0.1, 0.9)])[:, 0]
        assert (x[1] - x[0]) / (x[3] - x[2]) == pytest.approx(math.log(2.5) / math.log(9))
    errors = drawn.frame[drawn.frame["what"].isin(["error", "plug-in"])]
    assert all(list(seeds) == list(STUDENTS) for _, seeds in errors.groupby(["what", "loss", "alpha"])["seed"])
    means = errors.groupby(["what", "loss", "alpha"])["normalised"].mean()
    for axes, what in zip(panels[2:], ("error", "plug-in"), strict=True):
        for line, bars, loss in zip(axes.lines, axes.collections, ("skl", "srkl"), strict=True):
            assert list(line.get_ydata()) == pytest.approx(list(means[what, loss]))
            low, high = np.array(bars.get_segments())[:, :, 1].T
            assert (low < line.get_ydata()).all()
            assert (line.get_ydata() < high).all()
    lowest = means.groupby(["what", "loss"]).idxmin().map(lambda index: index[-1])
    told = [f"at α = {alpha:g}" for alpha in lowest]
    assert all(text in drawn.caption[-1] for text in told)


@pytest.mark.slow  # the probes take minutes to make
def test_the_theorys_caption_says_whose_bound_it_is(real):
    drawn = from_models.theory(COEFFICIENTS.read(real[0], "tiny"))
    caption = " ".join(drawn.caption)
    assert "elementary one of our own" in caption
    assert "not the bound of the paper's appendix B" in caption
    assert "presume" in caption
    assert "training seeds 10, 20 and 30" in caption
    bounded = drawn.frame[(drawn.frame["estimate"] == "mean") & (drawn.frame["alpha"] > 0)]
    assert set(bounded["seed"]) == {10, 20, 30}
    expected = (bounded["alpha"].map(math.log) ** 2 + 4 / math.e**2) / bounded["n"]
    assert list(bounded["bound"]) == pytest.approx(list(expected))
    assert (bounded["sampled"] < bounded["bound"]).all()
    dotted = [axes.lines[-1] for axes in drawn.figure.axes[1:9]]
    shown = [y for line in dotted for y in line.get_ydata()]
    assert shown == pytest.approx(list(bounded[(bounded["loss"] == "skl") & (bounded["seed"] == 10)]["bound"]))
    own = bounded[(bounded["loss"] == "skl") & (bounded["alpha"] == 0.1) & (bounded["n"] == 16)]["sampled"]
    solid = next(axes for axes in drawn.figure.axes if axes.get_title().endswith("α = 0.1")).lines[0]
    assert dict(zip(solid.get_xdata(), solid.get_ydata(), strict=True))[16] == pytest.approx(own.mean())


@pytest.mark.slow  # the probes take minutes to make
def test_sampled_errors_agree_with_the_exact_ones_and_stay_below_the_bound(real):
    found = COEFFICIENTS.read(real[0], "tiny").found
    assert found.students == list(STUDENTS)
    for row in found.errors:
        assert row.sampled == pytest.approx(row.exact, rel=0.15)
        if row.bound is not None:
            assert row.exact <= row.bound
    for row in found.coefficients:
        if row.bound is not None:
            assert row.largest <= row.bound + 1e-9
    unbounded = next(row for row in found.coefficients if (row.loss, row.alpha) == ("skl", 0.0))
    assert unbounded.largest > 1000
