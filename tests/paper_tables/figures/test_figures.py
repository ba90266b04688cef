"""Figures of runs: the numbers they show, the files they leave, and what is said where there is nothing to draw."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text

from bench.record.store import Store
from paper_tables.figures import from_runs
from paper_tables.figures.catalogue import FROM_RUNS
from paper_tables.figures.labels import Label, label_ends, label_points
from paper_tables.figures.style import COLUMN, NothingToDraw, look
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ablations
from paper_tables.paper.tables import tables
from tests.records import altered, make_record, rewrite, write_record

SEEDS = (10, 20)
pytestmark = pytest.mark.usefixtures("style")


def write_run(out, spec, seed=10, **fields):
    fields |= {"sgo": spec.output_source, "init": spec.init_student, "assignments": spec.options}
    return write_record(out, spec.method, spec.task, seed, **fields)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Two seeds of each run of the main table, table 2 and all ablations, to be read only."""
    out = tmp_path_factory.mktemp("everything")
    specs = {spec for name in ("main", "1", "2") for spec in tables("tiny")[name].specs}
    specs |= {spec for ablation in ablations("tiny").values() for spec in ablation.specs}
    for number, spec in enumerate(sorted(specs, key=repr)):
        for seed in SEEDS:
            write_run(out, spec, seed, mean=20.0 + number, seconds=10.0 + number)
    return out


def index(out):
    return RunIndex(Store(out), "tiny")


def test_convergence_is_the_mean_validation_score_by_step(everything):
    frame = from_runs.convergence(index(everything)).frame
    assert set(frame["loss"]) == {"kld", "rkld", "jsd", "skl", "srkl"}
    kld = frame[frame["loss"] == "kld"]
    records = [r for r in Store(everything).all() if r.run_id.startswith("dolly-kld-dataset")]
    expected = sum(r.validations[1].metric for r in records if r.config.init == "sft") / 2
    assert list(kld["step"]) == [300]
    assert kld["mean"].iloc[0] == pytest.approx(expected)


def test_the_init_student_is_drawn_where_its_score_was_measured(everything, tmp_path):
    assert "first score is measured at step 300" in " ".join(from_runs.convergence(index(everything)).caption)
    record, rows = make_record("kld", init="sft")
    first, *others = record.plain()["validations"]
    Store(tmp_path).write(altered(record, validations=[first | {"metric": 7.0}, *others]), rows)
    drawn = from_runs.convergence(index(tmp_path))
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


def test_the_name_of_a_point_is_nearest_to_it_and_keeps_off_the_frame():
    figure, axes = plt.subplots(figsize=(COLUMN, 2))
    points = {"left": (0.03, 0.6), "upper": (0.50, 0.64), "lower": (0.51, 0.60)}
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    spread = [(x, y + step / 50) for x, y in points.values() for step in range(-4, 5)]
    front = [(0.03 + step / 20, 0.6) for step in range(10)]  # no room to the right of "left"
    label_points(axes, [Label(*at, name, "black") for name, at in points.items()], [*spread, *front])
    figure.canvas.draw()
    for text in axes.texts:
        box = Text.get_window_extent(text)
        gaps = {}
        for name, at in points.items():
            x, y = axes.transData.transform(at)
            gaps[name] = math.hypot(max(box.x0 - x, x - box.x1, 0), (box.y0 + box.y1) / 2 - y)
        assert min(gaps, key=gaps.get) == text.get_text()
        assert axes.get_window_extent().padded(-2 * figure.dpi / 72).containsx(box.x0)


def test_lines_differ_in_marker_and_dash_as_in_colour():
    looks = [look(number) for number in range(13)]
    assert len({one["marker"] for one in looks}) == 13
    for one, other in pairwise(looks):
        assert one["color"] != other["color"]
        assert str(one["linestyle"]) != str(other["linestyle"])


@pytest.mark.parametrize("name", list(FROM_RUNS))
def test_figures_of_runs_can_be_read_and_say_what_is_missing(everything, check_legible, name):
    drawn = FROM_RUNS[name](index(everything))
    check_legible(drawn.figure)
    caption = " ".join(drawn.caption)
    assert "Missing" not in caption
    if name in ("7", "pareto", "budget"):
        assert "Times measured on cpu (A CPU & Co, 2 threads)." in caption


def test_relative_time_is_against_the_same_loss_on_fixed_data(everything):
    frame = from_runs.relative_time(index(everything)).frame
    fixed = frame[frame["output_source"] == "dataset"]
    assert list(fixed["relative_time"]) == [1.0, 1.0]
    assert len(frame) == 10
    for loss, group in frame.groupby("loss"):
        base = group[group["output_source"] == "dataset"]["seconds"].iloc[0]
        assert list(group["relative_time"]) == pytest.approx(list(group["seconds"] / base)), loss


def test_each_of_several_timed_runs_is_shown(tmp_path):
    for loss in ("skl", "srkl"):
        write_record(tmp_path, loss, seconds=10.0)
    for seed, seconds in ((10, 15.0), (20, 25.0)):
        write_record(tmp_path, "srkl", seed=seed, sgo="on-policy", seconds=seconds)
    drawn = from_runs.relative_time(index(tmp_path))
    bar = drawn.frame[drawn.frame["output_source"] == "on-policy"].iloc[0]
    assert (bar["relative_time"], bar["n"], bar["each"]) == (2.0, 2, "1.5 2.5")
    dots = [list(map(float, line.get_ydata())) for line in drawn.figure.axes[0].lines]
    assert dots == [[1.5, 2.5]]
    assert "2.00" in [text.get_text() for text in drawn.figure.axes[0].texts]
    assert "n = 1–2 a bar; dots: each run" in drawn.caption[0]
    assert "bench suite table2" in drawn.caption[-1]


def test_times_of_a_shared_machine_are_not_drawn(tmp_path):
    for spec in tables("tiny")["main"].specs:
        write_run(tmp_path, spec, other_load=1.0)
    for draw in (from_runs.pareto, from_runs.equal_budget, from_runs.relative_time):
        with pytest.raises(NothingToDraw, match=r"no exclusively timed runs .*: bench suite"):
            draw(index(tmp_path))


def test_fast_methods_have_ticks_and_several_times_their_spread(tmp_path):
    for number, spec in enumerate(tables("tiny")["main"].specs):
        for seed in SEEDS:
            write_run(tmp_path, spec, seed, mean=20.0 + number % 4, seconds=12.0 + 2 * number + seed / 10)
    drawn = from_runs.pareto(index(tmp_path))
    axes = drawn.figure.axes[0]
    ticks = [tick for tick in axes.get_xticks() if axes.viewLim.containsx(tick)]
    assert min(ticks) < 1.2 * drawn.frame["seconds"].min()
    assert list(drawn.frame["slowest"] - drawn.frame["fastest"]) == pytest.approx([1.0] * 13)
    assert "horizontal bars: the fastest to the slowest" in drawn.caption[0]
    assert {text.get_text() for text in axes.texts} == set(drawn.frame["method"])


def test_the_front_holds_what_nothing_beats_in_both(tmp_path):
    for number, spec in enumerate(tables("tiny")["main"].specs):
        write_run(tmp_path, spec, mean=20.0 + 7 * number % 13, seconds=10.0 + number)
    frame = from_runs.pareto(index(tmp_path)).frame
    assert len(frame) == 13
    for _, point in frame.iterrows():
        beaten = ((frame["seconds"] <= point["seconds"]) & (frame["score"] > point["score"])).any()
        assert point["on_front"] == (not beaten)
    assert 1 < frame["on_front"].sum() < 13


def test_times_of_another_machine_are_not_mixed_in_and_one_slow_run_moves_no_point(tmp_path):
    for number, spec in enumerate(tables("tiny")["main"].specs):
        for seed, seconds in zip((10, 20, 30, 40), (10.0, 11.0, 90.0, 1000.0), strict=True):
            record = write_run(tmp_path, spec, seed, mean=20.0 + number, seconds=seconds)
            if seed == 40:
                rewrite(tmp_path, record, environment__threads=64)
    frame = from_runs.pareto(index(tmp_path)).frame
    assert set(frame["seconds"] - frame["before"]) == {11.0}
    # the last validation is at three quarters of the steps
    budget = from_runs.equal_budget(index(tmp_path)).frame.set_index("method")["seconds"]
    assert set(budget - frame.set_index("method")["before"]) == {0.75 * 11.0}


def test_what_a_method_needs_before_its_training_counts(tmp_path):
    """A method that is faster in training alone is not on the front."""
    sft, seqkd = (next(s for s in tables("tiny")["main"].specs if s.method == name) for name in ("sft", "seqkd"))
    for spec, seconds, mean in ((sft, 13.0, 30.0), (seqkd, 12.0, 25.0)):
        for seed in SEEDS if spec == sft else SEEDS[:1]:
            record = write_run(tmp_path, spec, seed, mean=mean, seconds=seconds)
            before = {"init student": 1.0} | ({"teacher responses": 3.0} if spec == seqkd else {})
            responses = {"mean_length": 9.0, "ended": 1.0} if spec == seqkd else None
            rewrite(tmp_path, record, time__before=before, data__teacher_responses=responses)
    drawn = from_runs.pareto(index(tmp_path))
    points = drawn.frame.set_index("method")
    assert list(points["seconds"]) == [14.0, 16.0]
    assert list(points["before"]) == [1.0, 4.0]
    assert list(points["fastest"]) == [14.0, 16.0]
    assert list(points["on_front"]) == [True, False]
    for one in (drawn, from_runs.equal_budget(index(tmp_path))):
        told = " ".join(one.caption)
        assert "Counted: training and what a method needs before it (init student, the teacher's responses)" in told
        assert "Timed runs: 2 of SFT; 1 of SeqKD." in told
        assert "Not recorded" not in told
    rewrite(tmp_path, record, time__before={"init student": 1.0}, data__teacher_responses=responses)
    drawn = from_runs.pareto(index(tmp_path))
    assert list(drawn.frame["seconds"]) == [14.0, 12.0]
    assert "Not recorded, so left out, is what comes before SeqKD." in " ".join(drawn.caption)


def test_quality_at_a_budget_is_the_best_that_each_run_has_reached(tmp_path):
    spec = tables("tiny")["main"].specs[0]
    for seed, scores in ((10, (20.0, 26.0)), (20, (22.0, 16.0))):
        validations = [{"step": step, "loss": 1.0, "metric": one} for step, one in zip((100, 200), scores, strict=True)]
        rewrite(tmp_path, write_run(tmp_path, spec, seed), validations=validations)
    frame = from_runs.equal_budget(index(tmp_path)).frame
    assert list(frame["best"]) == [21.0, 24.0]
    assert list(frame["sd"]) == pytest.approx([2**0.5, 8**0.5])
    assert set(frame["n"]) == {2}


def test_quality_at_a_budget_never_falls(everything):
    frame = from_runs.equal_budget(index(everything)).frame
    for _, group in frame.groupby("method"):
        assert group["best"].is_monotonic_increasing
        assert group["seconds"].is_monotonic_increasing


def test_a_budget_is_not_claimed_to_be_a_run_of_that_length(everything):
    drawn = from_runs.equal_budget(index(everything))
    assert "not the score of runs trained to a smaller budget" in drawn.caption[0]
    assert "learning rate" in drawn.caption[0]
    assert sum(axes.get_visible() for axes in drawn.figure.axes) == 13


@pytest.mark.parametrize("name", list(ablations("tiny")))
def test_an_ablation_shows_each_value_of_each_series(everything, name):
    table = ablations("tiny")[name]
    frame = from_runs.ablation(index(everything), name).frame
    assert len(frame) == len(table.rows) * len(table.columns)
    assert set(frame["n"]) == {2}
    assert frame["sd"].notna().all()


def test_skews_lie_on_a_logarithmic_axis_with_the_papers_marked_and_no_two_in_one_place(everything):
    drawn = from_runs.ablation(index(everything), "alpha")
    axes = drawn.figure.axes[0]
    assert axes.get_xscale() == "log"
    assert "the paper's 0.1" in [text.get_text() for text in axes.texts]
    skl, srkl = (list(bars.lines[0].get_xdata()) for bars in axes.containers)
    assert all(a < float(alpha) < b for a, alpha, b in zip(skl, drawn.frame["value"], srkl, strict=False))


def test_a_sweep_is_drawn_on_the_seeds_that_all_points_share(tmp_path):
    table = ablations("tiny")["buffer-capacity"]
    for row in table.rows:
        for seed in (10, 20, 30, 40) if row.name == "1000" else (10, 20):
            (spec,) = row.specs.values()
            write_record(tmp_path, spec.method, seed=seed, mean=20.0 + seed, assignments=spec.options)
    drawn = from_runs.ablation(index(tmp_path), "buffer-capacity")
    assert set(drawn.frame["n"]) == {2}
    assert drawn.frame["mean"].max() < 50
    caption = " ".join(drawn.caption)
    told = "mean over training seeds 10, 20, which all points share; further seeds of some points are left out: 30, 40;"
    assert told in caption
    assert "Missing" not in caption


def test_a_sweep_whose_points_share_no_two_seeds_has_all_and_says_how_many(tmp_path):
    table = ablations("tiny")["buffer-capacity"]
    for row, seeds in zip(table.rows, ((10, 20), (10, 30), (20, 30)), strict=False):
        (spec,) = row.specs.values()
        for seed in seeds:
            write_record(tmp_path, spec.method, seed=seed, assignments=spec.options)
    (first, *_) = from_runs.ablation(index(tmp_path), "buffer-capacity").caption
    assert "mean over the training seeds 10, 20, 30, n = 2 a point; bars" in first


def test_an_ablation_in_part_says_how_many_runs_are_missing_and_what_makes_them(tmp_path):
    table = ablations("tiny")["buffer-capacity"]
    for row in table.rows[:3]:
        for spec in row.specs.values():
            for seed in SEEDS:
                write_run(tmp_path, spec, seed)
    caption = from_runs.ablation(index(tmp_path), "buffer-capacity").caption[-1]
    labels = ", ".join(row.label for row in table.rows[3:])
    assert caption == f"Missing: 4 of 10 runs, of {labels}; made by: bench suite buffer-capacity"
    for spec in ablations("tiny")["init-student"].rows[0].specs.values():
        write_run(tmp_path, spec)
    caption = from_runs.ablation(index(tmp_path), "init-student").caption[-1]
    assert "Missing: 20 of 24 runs" in caption
    assert "SRKL (pretrained init student)" in caption
    assert caption.endswith("bench suite init-student")


def test_files_and_their_data_are_the_same_each_time_and_what_is_missing_is_told(command, out):
    first = command("figures", "6", "8", "--out", out)
    assert first.exit_code == 0, first.output
    assert "8: not made: no runs: bench suite figures" in first.stderr
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {f"figure6-tiny.{form}" for form in ("svg", "pdf", "png", "csv", "txt")}
    before = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    assert command("figures", "6", "--out", out).exit_code == 0
    assert before == {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    assert command("figures", "6", "--seeds", "10", "--out", out).exit_code == 0
    after = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    assert {name: after[name] for name in before} == before, "chosen runs have files of their own"
    assert "figure6-tiny-seeds-10.svg" in after
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


def test_a_damaged_probe_is_named(command, out):
    path = out / "model-probes" / "coefficients-tiny.json"
    path.parent.mkdir()
    path.write_text('{"found": {"err')
    result = command("figures", "3", "--out", out)
    assert result.exit_code == 2
    assert "coefficients-tiny.json: damaged" in result.stderr
    assert "bench figures 3 --fresh" in result.stderr


@pytest.mark.parametrize("name", ["6", "pareto", "budget"])
def test_one_run_is_enough_for_a_figure(tmp_path, check_legible, name):
    write_record(tmp_path, "kld", init="sft")
    drawn = FROM_RUNS[name](index(tmp_path))
    check_legible(drawn.figure)
    assert "made by: bench suite" in drawn.caption[-1]


def test_an_unwritable_folder_is_told(command, out):
    (out / "figures").write_text("in the way")
    result = command("figures", "6", "--out", out)
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
