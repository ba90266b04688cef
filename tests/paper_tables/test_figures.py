"""Figures: the numbers they show, the files they leave, and measurements on real tiny models."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from functools import partial
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from rich.console import Console

from bench.display import Reporter
from bench.files import read_json, write_json
from bench.store import Store
from distillm import skl, srkl
from paper_tables.figures import from_models, from_runs
from paper_tables.figures.catalogue import FROM_MODELS, FROM_RUNS, make_figures
from paper_tables.figures.drawn import NothingToDraw
from paper_tables.figures.labels import Label, label_ends, label_points
from paper_tables.figures.measurements import (
    MEASUREMENTS,
    bound,
    largest_coefficient,
    measured,
    plug_in,
    ratio_and_coefficient,
)
from paper_tables.figures.style import COLUMN, look, paper_style
from paper_tables.layout import tables
from paper_tables.select import Library
from paper_tables.sweeps import sweeps
from tests.records import make_record, write_record

SEEDS = (10, 20)


def write_arm(out, arm, seed=10, **fields):
    return write_record(out, arm.method, arm.task, seed, sgo=arm.sgo, init=arm.init, assignments=arm.options, **fields)


@pytest.fixture(autouse=True)
def style():
    """Figures as `make_figures` has them drawn; none is left open."""
    with paper_style():
        yield
    plt.close("all")


@pytest.fixture
def check_legible(monkeypatch):
    """No letter of a figure is smaller than can be read, cut at an edge, or on top of another."""
    drawn = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer)))

    def check(figure):
        drawn.clear()
        figure.canvas.draw()
        page = figure.bbox
        boxes = []
        for text in drawn:
            if not text.get_visible() or not text.get_text().strip():
                continue
            assert text.get_fontsize() >= 7, text
            assert not text.get_parse_math() or "$" not in text.get_text(), f"exponents would be smaller: {text}"
            box = Text.get_window_extent(text)
            assert all(page.padded(1).contains(*corner) for corner in box.corners()), f"cut: {text}"
            boxes.append((text, box.padded(-1, -2)))  # lines of text are set closer than their boxes are high
        assert len(boxes) > 5
        for (one, box), (other, its_box) in combinations(boxes, 2):
            assert not box.overlaps(its_box), (one, other)

    return check


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Two seeds of each arm of the main table, table 2 and all sweeps, to be read only."""
    out = tmp_path_factory.mktemp("everything")
    arms = {a for name in ("main", "1", "2") for a in tables("tiny")[name].arms}
    arms |= {a for sweep in sweeps("tiny").values() for a in sweep.arms}
    for number, arm in enumerate(sorted(arms, key=repr)):
        for seed in SEEDS:
            write_arm(out, arm, seed, mean=20.0 + number, seconds=10.0 + number)
    return out


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


def test_the_start_is_drawn_where_its_score_was_measured(everything, tmp_path):
    assert "first score is measured at step 300" in " ".join(from_runs.convergence(library(everything)).caption)
    record, rows = make_record("kld", init="init")
    first, *others = record["validations"]
    Store(tmp_path).write(record | {"validations": [first | {"metric": 7.0}, *others]}, rows)
    drawn = from_runs.convergence(library(tmp_path))
    assert list(drawn.frame["step"]) == [0, 300]
    assert drawn.frame["mean"].iloc[0] == 7.0
    assert "first score" not in " ".join(drawn.caption)


def test_names_of_lines_that_end_together_and_of_points_in_a_heap_lie_apart(check_legible):
    figure, axes = plt.subplots(figsize=(COLUMN, 2))
    axes.set_ylim(0, 10)
    label_ends(axes, [Label(1, y, f"line {y}", "black") for y in (0.1, 3.0, 3.1, 3.2, 3.3, 9.0, 9.1)])
    check_legible(figure)
    figure, axes = plt.subplots(figsize=(COLUMN, 2))
    points = [(0.5 + 0.01 * number, 0.5 + 0.02 * (number % 3)) for number in range(9)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    label_points(axes, [Label(x, y, f"point {x:.2f}", "black") for x, y in points], points)
    check_legible(figure)
    dots = axes.transData.transform(points)
    for text in axes.texts:
        assert not any(Text.get_window_extent(text).contains(*dot) for dot in dots), text


def test_lines_differ_in_marker_and_dash_as_in_colour():
    looks = [look(number) for number in range(13)]
    assert len({one["marker"] for one in looks}) == 13
    for one, other in pairwise(looks):
        assert one["color"] != other["color"]
        assert str(one["linestyle"]) != str(other["linestyle"])


@pytest.mark.parametrize("name", list(FROM_RUNS))
def test_figures_of_runs_can_be_read_and_say_what_is_missing(everything, check_legible, name):
    drawn = FROM_RUNS[name](library(everything))
    check_legible(drawn.figure)
    caption = " ".join(drawn.caption)
    assert "Missing" not in caption
    if name in ("7", "pareto", "budget"):
        assert "Times measured on cpu (A CPU & Co, threads: 2)." in caption


def test_relative_time_is_against_the_same_loss_on_fixed_data(everything):
    frame = from_runs.relative_time(library(everything)).frame
    fixed = frame[frame["source"] == "dataset"]
    assert list(fixed["relative_time"]) == [1.0, 1.0]
    assert len(frame) == 10
    for loss, group in frame.groupby("loss"):
        base = group[group["source"] == "dataset"]["seconds"].iloc[0]
        assert list(group["relative_time"]) == pytest.approx(list(group["seconds"] / base)), loss


def test_each_of_several_timed_runs_is_shown(tmp_path):
    for loss in ("skl", "srkl"):
        write_record(tmp_path, loss, seconds=10.0)
    for seed, seconds in ((10, 15.0), (20, 25.0)):
        write_record(tmp_path, "srkl", seed=seed, sgo="on-policy", seconds=seconds)
    drawn = from_runs.relative_time(library(tmp_path))
    bar = drawn.frame[drawn.frame["source"] == "on-policy"].iloc[0]
    assert (bar["relative_time"], bar["n"], bar["each"]) == (2.0, 2, "1.5 2.5")
    dots = [list(map(float, line.get_ydata())) for line in drawn.figure.axes[0].lines]
    assert dots == [[1.5, 2.5]]
    assert "2.00" in [text.get_text() for text in drawn.figure.axes[0].texts]
    assert "n = 1–2 a bar; dots: each run" in drawn.caption[0]
    assert "bench suite table2" in drawn.caption[-1]


def test_times_of_a_shared_machine_are_not_drawn(tmp_path):
    for arm in tables("tiny")["main"].arms:
        write_arm(tmp_path, arm, other_load=1.0)
    for draw in (from_runs.pareto, from_runs.equal_budget, from_runs.relative_time):
        with pytest.raises(NothingToDraw, match="had the machine to themselves: bench suite"):
            draw(library(tmp_path))


def test_fast_methods_have_ticks_and_several_times_their_spread(tmp_path):
    for number, arm in enumerate(tables("tiny")["main"].arms):
        for seed in SEEDS:
            write_arm(tmp_path, arm, seed, mean=20.0 + number % 4, seconds=12.0 + 2 * number + seed / 10)
    drawn = from_runs.pareto(library(tmp_path))
    axes = drawn.figure.axes[0]
    ticks = [tick for tick in axes.get_xticks() if axes.viewLim.containsx(tick)]
    assert min(ticks) < 1.2 * drawn.frame["seconds"].min()
    assert list(drawn.frame["slowest"] - drawn.frame["fastest"]) == pytest.approx([1.0] * 13)
    assert "fastest to slowest timed run" in drawn.caption[0]
    assert {text.get_text() for text in axes.texts} == set(drawn.frame["method"])


def test_the_front_holds_what_nothing_beats_in_both(tmp_path):
    for number, arm in enumerate(tables("tiny")["main"].arms):
        write_arm(tmp_path, arm, mean=20.0 + 7 * number % 13, seconds=10.0 + number)
    frame = from_runs.pareto(library(tmp_path)).frame
    assert len(frame) == 13
    for _, point in frame.iterrows():
        beaten = ((frame["seconds"] <= point["seconds"]) & (frame["score"] > point["score"])).any()
        assert point["on_front"] == (not beaten)
    assert 1 < frame["on_front"].sum() < 13


def test_quality_at_a_budget_never_falls(everything):
    frame = from_runs.equal_budget(library(everything)).frame
    for _, group in frame.groupby("method"):
        assert group["best"].is_monotonic_increasing
        assert group["seconds"].is_monotonic_increasing


def test_a_budget_is_not_claimed_to_be_a_run_of_that_length(everything):
    drawn = from_runs.equal_budget(library(everything))
    assert "not the score of runs trained to a smaller budget" in drawn.caption[0]
    assert "learning rate" in drawn.caption[0]
    assert sum(axes.get_visible() for axes in drawn.figure.axes) == 13


@pytest.mark.parametrize("name", list(sweeps("tiny")))
def test_a_sweep_shows_each_value_of_each_series(everything, name):
    table = sweeps("tiny")[name]
    frame = from_runs.sweep(library(everything), name).frame
    assert len(frame) == len(table.rows) * len(table.columns)
    assert set(frame["n"]) == {2}
    assert frame["sd"].notna().all()


def test_skews_lie_on_a_logarithmic_axis_with_the_papers_marked_and_no_two_in_one_place(everything):
    drawn = from_runs.sweep(library(everything), "alpha")
    axes = drawn.figure.axes[0]
    assert axes.get_xscale() == "log"
    assert "the paper's 0.1" in [text.get_text() for text in axes.texts]
    skl, srkl = (list(bars.lines[0].get_xdata()) for bars in axes.containers)
    assert all(a < float(alpha) < b for a, alpha, b in zip(skl, drawn.frame["value"], srkl, strict=False))


def test_a_sweep_in_part_says_how_many_runs_are_missing_and_what_makes_them(tmp_path):
    table = sweeps("tiny")["buffer-capacity"]
    for row in table.rows[:3]:
        for arm in row.arms.values():
            for seed in SEEDS:
                write_arm(tmp_path, arm, seed)
    caption = from_runs.sweep(library(tmp_path), "buffer-capacity").caption[-1]
    labels = ", ".join(row.label for row in table.rows[3:])
    assert caption == f"Missing: 4 of 10 runs, of {labels}; made by: bench suite buffer-capacity"
    for arm in sweeps("tiny")["init"].rows[0].arms.values():
        write_arm(tmp_path, arm)
    caption = from_runs.sweep(library(tmp_path), "init").caption[-1]
    assert "Missing: 20 of 24 runs" in caption
    assert "SRKL (pretrained start)" in caption
    assert caption.endswith("bench suite init")


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


def test_a_damaged_measurement_is_named(command, out):
    path = out / "measurements" / "coefficients-tiny.json"
    path.parent.mkdir()
    path.write_text('{"found": {"err')
    result = command("figures", "3", "--out", out)
    assert result.exit_code == 2
    assert "coefficients-tiny.json: damaged" in result.stderr
    assert "bench figures --fresh" in result.stderr


@pytest.mark.parametrize("name", ["6", "pareto", "budget"])
def test_one_run_is_enough_for_a_figure(tmp_path, check_legible, name):
    write_record(tmp_path, "kld", init="init")
    drawn = FROM_RUNS[name](library(tmp_path))
    check_legible(drawn.figure)
    assert "made by: bench suite" in drawn.caption[-1]


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


def test_the_plug_in_estimate_is_the_divergence_of_two_empirical_distributions():
    """Of many tokens it is the divergence itself; of one from each it is 0 or the largest there can be."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]], dtype=torch.float64)
    log_p, log_q = probabilities.log().expand(2, 3000, 3)
    rows = {(row["loss"], row["alpha"], row["n"]): row for row in plug_in(log_p, log_q, generator)}
    for loss, of in (("skl", skl), ("srkl", srkl)):
        exact = float(of(log_q[0], log_p[0], alpha=0.1))
        assert rows[loss, 0.1, 1]["divergence"] == pytest.approx(exact)
        same = 0.5 * 0.2 + 0.3 * 0.2 + 0.2 * 0.6  # the two tokens are equal
        expected = same * exact**2 + (1 - same) * (math.log(10) - exact) ** 2
        assert rows[loss, 0.1, 1]["sampled"] == pytest.approx(expected, rel=0.05)
        assert rows[loss, 0.1, 256]["sampled"] < rows[loss, 0.1, 16]["sampled"] / 8
        assert (loss, 0.0, 1) not in rows


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


def test_a_measurement_that_holds_less_than_is_drawn_is_made_again(real, tmp_path, monkeypatch):
    recorded = read_json(real[0] / "measurements" / "coefficients-tiny.json")
    del recorded["version"], recorded["found"]["plug_in"]
    write_json(tmp_path / "measurements" / "coefficients-tiny.json", recorded)
    monkeypatch.setitem(MEASUREMENTS, "coefficients", lambda pair: {"made": pair.preset})
    made = measured("coefficients", "tiny", 10, tmp_path, Reporter(Console(), quiet=True))
    assert made["found"] == {"made": "tiny"}


@pytest.mark.parametrize("name", list(FROM_MODELS))
def test_measured_figures_can_be_read(real, check_legible, name):
    measurement, draw = FROM_MODELS[name]
    check_legible(draw(read_json(real[0] / "measurements" / f"{measurement}-tiny.json")).figure)


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


def test_figure_2_costs_more_the_more_and_the_longer(real):
    frame = pd.read_csv(real[0] / "figures" / "figure2-tiny.csv")
    assert (frame[frame["frequency"] == 0]["share"] == 0).all()
    for _, group in frame.groupby("length"):
        assert group["share"].is_monotonic_increasing
    always = frame[frame["frequency"] == 1].sort_values("length")
    # by how much is this machine's affair, and other processes'
    assert always["generation_seconds"].iloc[-1] > always["generation_seconds"].iloc[0]
    environment = read_json(real[0] / "measurements" / "cost-tiny.json")["environment"]
    caption = (real[0] / "figures" / "figure2-tiny.txt").read_text(encoding="utf-8")
    assert f"Times measured on {environment['device_name']} ({environment['cpu']}, threads: 1)" in caption


def test_figure_3_letters_its_panels_and_draws_skews_in_proportion_to_their_logarithm(real):
    drawn = from_models.gradients(read_json(real[0] / "measurements" / "coefficients-tiny.json"))
    panels = drawn.figure.axes
    assert [axes.get_title()[:3] for axes in panels] == ["(a)", "(b)", "(c)", "(d)"]
    assert [axes.get_yscale() for axes in panels] == ["log", "symlog", "log", "log"]
    for axes in panels[2:]:
        assert axes.get_xscale() == "symlog"
        x = axes.transData.transform([(alpha, 1) for alpha in (0.02, 0.05, 0.1, 0.9)])[:, 0]
        assert (x[1] - x[0]) / (x[3] - x[2]) == pytest.approx(math.log(2.5) / math.log(9))
    errors = drawn.frame[drawn.frame["what"].isin(["error", "plug-in"])].reset_index()
    lowest = errors.loc[errors.groupby(["what", "loss"])["normalised"].idxmin()]
    told = [f"at α = {alpha:g}" for alpha in lowest["alpha"]]
    assert all(text in drawn.caption[-1] for text in told)


def test_the_theorys_caption_says_whose_bound_it_is(real):
    drawn = from_models.theory(read_json(real[0] / "measurements" / "coefficients-tiny.json"))
    caption = " ".join(drawn.caption)
    assert "elementary one of our own" in caption
    assert "not the bound of the paper's appendix B" in caption
    assert "presume" in caption
    bounded = drawn.frame[(drawn.frame["estimate"] == "mean") & (drawn.frame["alpha"] > 0)]
    expected = (bounded["alpha"].map(math.log) ** 2 + 4 / math.e**2) / bounded["n"]
    assert list(bounded["bound"]) == pytest.approx(list(expected))
    assert (bounded["sampled"] < bounded["bound"]).all()
    dotted = [axes.lines[-1] for axes in drawn.figure.axes[1:9]]
    shown = [y for line in dotted for y in line.get_ydata()]
    assert shown == pytest.approx(list(bounded[bounded["loss"] == "skl"]["bound"]))


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
