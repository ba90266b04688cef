"""The numbers of a table, on constructed records for which each verdict is known."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy.stats import studentized_range, t

from bench.analysis.significance import Estimate, detectable_difference, p_values_of_best
from bench.record.store import Store
from bench.system.errors import BenchError
from paper_tables.numbers.cells import INIT_STUDENT, TEACHER, table_statistics, visible_differences
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import find_table
from paper_tables.tables.make import fill_table
from tests.records import SETS, noisy, rewrite, rouge_rows, write_record


def statistics_of(out, name="1", **options):
    table = find_table(name, "tiny")
    return table_statistics(table, RunIndex(Store(out), "tiny", **options).select(table))


def constructed(out, method: str, shift: float, noise: float, seeds=(10, 20, 30), **fields) -> None:
    """Runs whose examples score the same base plus `shift`, up to noise of their own."""
    base = noisy(30, 0, SETS["dolly"], sd=0)
    for seed in seeds:
        rng = np.random.default_rng([seed, len(method), ord(method[0])])
        scores = {name: values + shift + rng.normal(0, noise, values.shape) for name, values in base.items()}
        write_record(out, method, seed=seed, rows=rouge_rows(scores), **fields)


def test_mean_and_deviation_are_over_training_seeds(out):
    cell = statistics_of(out).cells["kld", "vicuna"]
    scores = [r.scores["vicuna"].primary.mean for r in Store(out).all() if r.config.method.name == "kld"]
    assert cell.mean == pytest.approx(statistics.fmean(scores))
    assert cell.sd == pytest.approx(statistics.stdev(scores))
    assert cell.seeds == (10, 20, 30)


def test_the_best_what_is_as_good_and_what_is_worse(tmp_path):
    constructed(tmp_path, "skl", 5.0, 1.0)
    constructed(tmp_path, "rkld", 4.99, 1.0)
    constructed(tmp_path, "kld", 0.0, 1.0)
    cells = statistics_of(tmp_path).cells
    for column in ("dolly", "selfinst", "vicuna", "sinst", "uinst"):
        two = [cells["skl", column], cells["rkld", column]]
        (best,) = [cell for cell in two if cell.best]
        (other,) = [cell for cell in two if not cell.best]
        assert (best.p, best.difference, best.as_good_as_best) == (None, None, False)
        assert other.p >= 0.05
        assert other.as_good_as_best is not other.too_noisy
        assert other.difference == pytest.approx(best.mean - other.mean, abs=0.01)
        worse = cells["kld", column]
        assert worse.p < 0.05
        assert not worse.as_good_as_best
        assert not worse.best
    assert any(cell.as_good_as_best for cell in cells.values())


def test_differences_to_the_best_of_a_column_are_held_to_the_range_of_its_methods(out, monkeypatch):
    families: list[list[Estimate]] = []

    def spy(differences):
        families.append(differences)
        return p_values_of_best(differences)

    monkeypatch.setattr("paper_tables.numbers.cells.p_values_of_best", spy)
    cells = statistics_of(out).cells
    assert [len(family) for family in families] == [3] * 5  # four rows with runs, five columns
    first = [cells[row, "dolly"].p for row in ("kld", "rkld", "jsd")]
    theirs = [studentized_range.sf(abs(one.value) / one.standard_error * 2**0.5, 4, one.df) for one in families[0]]
    assert first == pytest.approx(theirs, abs=1e-9)


def test_seed_noise_widens_what_cannot_be_told_apart(tmp_path):
    """With the same gap, seeds that agree show a difference, seeds that scatter do not."""
    steady, scattered = tmp_path / "steady", tmp_path / "scattered"
    base = noisy(30, 0, SETS["dolly"], sd=0)
    for out, scatter in ((steady, 0), (scattered, 4)):
        for method, gap, own in (("kld", 0.0, (-1, 0, 1)), ("skl", 1.5, (1, 0, -1))):
            for seed, shift in zip((10, 20, 30), np.multiply(own, scatter), strict=True):
                write_record(out, method, seed=seed, rows=rouge_rows({n: v + gap + shift for n, v in base.items()}))
    assert not statistics_of(steady).cells["kld", "dolly"].as_good_as_best
    assert statistics_of(scattered).cells["kld", "dolly"].as_good_as_best
    assert statistics_of(scattered).minimum_detectable["dolly"] > 5 * statistics_of(steady).minimum_detectable["dolly"]


def test_a_lone_cell_is_not_called_the_best(tmp_path):
    write_record(tmp_path, "kld")
    found = statistics_of(tmp_path)
    assert not any(cell.best for cell in found.cells.values())
    assert not found.minimum_detectable
    assert found.cells["kld", "dolly"].sd is None


def test_bleu_is_compared_over_pooled_predictions(tmp_path):
    for seed in (10, 20):
        write_record(tmp_path, "kld", "iwslt", seed, mean=40.0)
        write_record(tmp_path, "sft", "iwslt", seed, mean=85.0)
    cells = statistics_of(tmp_path, "3").cells
    assert cells["sft", "iwslt"].best
    assert cells["kld", "iwslt"].p < 0.05
    assert cells["kld", "iwslt"].difference == pytest.approx(
        cells["sft", "iwslt"].mean - cells["kld", "iwslt"].mean, abs=1.5
    )


def test_the_teacher_and_the_init_student_stand_beside_the_methods(out):
    references = statistics_of(out).references
    assert references[TEACHER, "dolly"].sd is None
    assert references[INIT_STUDENT, "dolly"].seeds == (10, 20, 30)


def test_time_is_relative_to_kld_and_of_exclusively_timed_runs_only(tmp_path):
    for seed, seconds in ((10, 10.0), (20, 12.0)):
        write_record(tmp_path, "kld", seed=seed, seconds=seconds)
        write_record(tmp_path, "srkl", seed=seed, seconds=2 * seconds)
    write_record(tmp_path, "srkl", seed=30, seconds=500.0, other_load=1.5)
    write_record(tmp_path, "skl", other_load=1.5)
    write_record(tmp_path, "jsd", other_load=None)
    write_record(tmp_path, "rkld", resumes=1)
    found = statistics_of(tmp_path, "main")
    assert found.times["kld"].mean == pytest.approx(1.0)
    assert found.times["srkl"].mean == pytest.approx(2.0)
    assert found.times["srkl"].seeds == (10, 20)
    assert found.cells["srkl", "dolly"].seeds == (10, 20, 30)
    assert set(found.untimed) == {"skl", "jsd", "rkld"}
    assert not statistics_of(tmp_path, "1").times


def test_no_time_without_kld_to_relate_it_to(tmp_path):
    write_record(tmp_path, "srkl")
    write_record(tmp_path, "kld", other_load=2.0)
    found = statistics_of(tmp_path, "main")
    assert not found.times
    assert "no run of kld" in found.untimed["srkl"]


def test_times_of_different_hardware_are_not_related(tmp_path):
    write_record(tmp_path, "kld")
    record = write_record(tmp_path, "srkl")
    rewrite(tmp_path, record, environment__cpu="another one")
    found = statistics_of(tmp_path, "main")
    assert list(found.times) == ["kld"]
    assert found.untimed["srkl"] == "measured on other hardware than most"


def test_of_several_hardwares_the_times_are_of_the_one_that_most_runs_share(tmp_path):
    for method, seconds in (("kld", 10.0), ("srkl", 30.0)):
        for seed in (10, 20, 30):
            record = write_record(tmp_path, method, seed=seed, seconds=seconds)
            if (method, seed) == ("srkl", 10):
                rewrite(tmp_path, record, environment__threads=16, time__training_seconds=1.0)
    times = statistics_of(tmp_path, "main").times
    assert times["srkl"].mean == pytest.approx(3.0)
    assert (times["srkl"].seeds, times["kld"].seeds) == ((20, 30), (10, 20, 30))


def test_the_minimum_detectable_difference_is_of_the_range_of_a_columns_methods(tmp_path, monkeypatch):
    asked = []

    def spy(error, *, level, df):
        asked.append((level, df))
        return detectable_difference(error, level=level, df=df)

    monkeypatch.setattr("paper_tables.numbers.cells.detectable_difference", spy)
    for method in ("skl", "rkld", "kld"):
        constructed(tmp_path, method, float(len(method)), 1.0)
    detectable = statistics_of(tmp_path).minimum_detectable
    for level, df in asked:
        assert studentized_range.sf(t.ppf(0.5 + level / 2, df) * 2**0.5, 3, df) == pytest.approx(0.05, abs=1e-6)
        assert 2 <= df < 100
    assert len(asked) == 5 * 2, "each method has its own"
    assert len(detectable) == 5


def test_what_a_loud_method_hides_is_too_noisy_to_tell_and_stands_apart(tmp_path):
    """Its own variance, of two degrees of freedom, would hide a difference several times as large as the column's."""
    base = noisy(30, 0, SETS["dolly"], sd=0)
    of = {"kld": (0.0, 0.1, -0.1), "skl": (3.1, 2.9, 3.0), "jsd": (2.9, 3.0, 2.9), "rkld": (0.1, 0.0, -0.1)}
    for method, own in {**of, "srkl": (-9.0, 0.0, -1.0)}.items():
        for seed, residual in zip((10, 20, 30), own, strict=True):
            write_record(
                tmp_path, method, seed=seed, rows=rouge_rows({name: one + residual for name, one in base.items()})
            )
    found = statistics_of(tmp_path)
    loud, quiet = found.cells["srkl", "dolly"], found.cells["jsd", "dolly"]
    assert found.cells["skl", "dolly"].best
    assert (loud.too_noisy, loud.as_good_as_best) == (True, False)
    assert (quiet.too_noisy, quiet.as_good_as_best) == (False, True)
    assert loud.difference > 5 * found.minimum_detectable["dolly"]
    assert loud.detectable > loud.difference
    assert found.detectable_of_louder("dolly") == {"srkl": loud.detectable}
    (view, *_) = fill_table(RunIndex(Store(tmp_path), "tiny"), "1").views
    texts = {row[0].text: row[1].text for row in view.rows}
    assert texts["SRKL"].endswith(" ?")
    assert texts["JSD"].endswith(" †")
    notes = " ".join(view.notes)
    assert f"keep their own variance, by themselves: Dolly: SRKL {loud.detectable:.2f}" in notes
    assert "?: not significantly different from the best, but by the variance of one method alone" in notes
    row = view.frame[(view.frame["row"] == "srkl") & (view.frame["column"] == "dolly")].iloc[0]
    assert (row["too_noisy"], row["as_good_as_best"]) == (True, False)


def test_where_the_best_is_the_loud_one_nothing_of_its_column_can_be_told(tmp_path):
    base = noisy(30, 0, SETS["dolly"], sd=0)
    for method, own in {"kld": (0.0, 0.1, -0.1), "jsd": (0.2, 0.3, 0.2), "rkld": (0, 0, 0), "skl": (12, 2, 4)}.items():
        for seed, residual in zip((10, 20, 30), own, strict=True):
            write_record(
                tmp_path, method, seed=seed, rows=rouge_rows({name: one + residual for name, one in base.items()})
            )
    found = statistics_of(tmp_path)
    tested = [cell for (_, column), cell in found.cells.items() if column == "dolly" and not cell.best]
    assert found.cells["skl", "dolly"].best
    assert all(cell.too_noisy for cell in tested)
    assert found.minimum_detectable["dolly"] == pytest.approx(tested[0].detectable, rel=0.1)
    assert not found.detectable_of_louder("dolly")


def test_predictions_over_other_examples_are_refused(tmp_path):
    write_record(tmp_path, "kld")
    record = write_record(tmp_path, "skl")
    rows = Store(tmp_path).predictions(record)
    other = {"vicuna-3": "vicuna-99"}
    Store(tmp_path).write(record, [row | {"id": other.get(row["id"], row["id"])} for row in rows])
    with pytest.raises(BenchError, match=r"predictions for Vicuna are not over the same examples"):
        statistics_of(tmp_path)


def test_nothing_of_a_table_is_drawn_at_random(out, monkeypatch):
    """No mark can hang on a bootstrap's seed where there is none."""

    def refuse(*_: object) -> None:
        raise AssertionError("drawn at random")

    table = find_table("1", "tiny")
    selection = RunIndex(Store(out), "tiny").select(table)
    monkeypatch.setattr(np.random, "default_rng", refuse)
    first = table_statistics(table, selection)
    assert first == table_statistics(table, selection)
    assert any(cell.p is not None for cell in first.cells.values())


def test_what_a_seed_does_to_all_arms_alike_hides_no_difference(tmp_path):
    """The same residuals, with seeds that move all methods together by ten times the difference."""
    base = noisy(30, 0, SETS["dolly"], sd=0)
    for method, own in (("kld", (0.0, 0.2, -0.2)), ("skl", (2.1, 1.9, 2.0)), ("jsd", (0.9, 1.1, 1.1))):
        for seed, block, residual in zip((10, 20, 30), (-20, 0, 20), own, strict=True):
            rows = rouge_rows({name: values + block + residual for name, values in base.items()})
            write_record(tmp_path, method, seed=seed, rows=rows)
    found = statistics_of(tmp_path)
    assert found.cells["skl", "dolly"].best
    assert found.cells["skl", "dolly"].sd > 15
    assert not found.cells["kld", "dolly"].as_good_as_best
    assert not found.noise["dolly"].louder


def test_a_seed_that_is_bad_for_all_does_not_count_against_those_that_have_it(tmp_path):
    base = noisy(30, 0, SETS["dolly"], sd=0)
    for method, own, seeds in (("kld", 0.0, (10, 20, 30)), ("jsd", 2.0, (10, 20, 30)), ("skl", 0.5, (20, 30))):
        for seed in seeds:
            noise = np.random.default_rng([seed, len(method)]).normal(0, 0.1)
            rows = rouge_rows({n: values + own + noise - 15 * (seed == 10) for n, values in base.items()})
            write_record(tmp_path, method, seed=seed, rows=rows)
    found = statistics_of(tmp_path).cells
    assert found["skl", "dolly"].mean > found["jsd", "dolly"].mean
    assert found["jsd", "dolly"].best
    assert found["skl", "dolly"].difference == pytest.approx(1.5, abs=0.3)


def test_a_method_below_its_own_init_student_is_told(tmp_path):
    for method, mean in (("kld", 30.0), ("tvd", 30.0)):
        record = write_record(tmp_path, method, mean=mean)
        if method == "tvd":
            start = record.scores["test"].primary.mean + 1
            rewrite(tmp_path, record, init_scores__test__metrics__rouge_l__mean=start)
    assert statistics_of(tmp_path, "main").below_init == (("tvd", "dolly"),)
    (view, *_) = fill_table(RunIndex(Store(tmp_path), "tiny"), "main").views
    assert "Below its own init student: TVD (Dolly)." in view.notes


def test_what_more_seeds_would_show(out):
    table = find_table("1", "tiny")
    selection = RunIndex(Store(out), "tiny").select(table)
    few, more = (visible_differences(table, selection, seeds) for seeds in (3, 12))
    printed = table_statistics(table, selection).minimum_detectable
    assert [one.difference for one in few.values()] == pytest.approx(list(printed.values())), "as below the table"
    assert few.keys() == {"Dolly", "SelfInst", "Vicuna", "S-NI", "UnNI"}
    assert all(more[label].difference < few[label].difference for label in few)
    needed = {label: one.seeds for label, one in few.items() if one.seeds is not None}
    assert max(needed.values()) > 2
    for label, seeds in needed.items():  # the fewest from which one point is seen
        assert visible_differences(table, selection, seeds)[label].difference <= 1
        assert seeds == 2 or visible_differences(table, selection, seeds - 1)[label].difference > 1
