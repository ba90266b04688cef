"""Two recorded runs, compared from their stored predictions."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import sacrebleu

from bench.analysis.blocks import Arm, compare_arms
from bench.analysis.compare import RunScore, arm_key, compare_runs, method_sides
from bench.analysis.significance import holm
from bench.cli.console_tables import comparison_notes
from bench.metrics.registry import find_metric
from bench.record.example_scores import Prediction
from bench.record.record import MetricInfo, RunRecord
from bench.record.store import Store
from bench.system.errors import BenchError
from tests.conftest import invoke
from tests.records import make_record, noisy, rewrite, write_record
from tests.records import rouge_rows as drawn_rows

SEEDS = (10, 20)
WORDS = ["the", "a", "cat", "mat", "birds", "trees", "saw", "sat", "on", "over", "near", "two", "old", "our", "house"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def recorded(
    store: Store, run_id: str, rows: list[Prediction], metrics: tuple[str, ...] = ("rouge_l",), **fields
) -> RunRecord:
    """Write a run; `fields` are what it is compared by."""
    infos = [MetricInfo(name=name, label=find_metric(name).label, signature="") for name in metrics]
    made = make_record()[0]
    every = dict.fromkeys((*metrics, *rows[0].get("scores", ())))
    scores = {
        whose: {
            name: one.model_copy(
                update={"metrics": {m: one.primary.model_copy(update={"mean": mean(rows, name, m)}) for m in every}}
            )
            for name, one in getattr(made, whose).items()
        }
        for whose in ("scores", "teacher_scores", "init_scores")
    }
    record = made.model_copy(
        update={
            **scores,
            "run_id": run_id,
            "comparison_key": repr(sorted(fields.items())),
            "comparison_fields": fields,
            "metrics": infos,
        }
    )
    store.write(record, rows)
    return record


def mean(rows: list[Prediction], where: str, metric: str) -> float:
    """What a record has: the mean over decoding seeds of the metric of a seed's rows; 0 without several rows."""
    found: dict[int, list] = {}
    for row in rows if len(rows) > 1 else ():
        if row["set"] == where and metric in row["scores"]:
            found.setdefault(row["seed"], []).append(row["scores"][metric])
    if not found:
        return 0.0
    if not isinstance(next(iter(found.values()))[0], list):
        return float(np.mean([np.mean(values) for values in found.values()]))
    known = metric == "bleu"
    return float(np.mean([find_metric(metric).score_of_sum(np.sum(v, axis=0)) if known else 0 for v in found.values()]))


def rouge_rows(scores: dict[str, np.ndarray]) -> list[Prediction]:
    """Rows for scores (decoding seeds, examples) by set."""
    return [
        {"set": name, "seed": seed, "id": f"e{i:02}", "scores": {"rouge_l": float(value)}}
        for name, table in scores.items()
        for seed, line in zip(SEEDS, table, strict=True)
        for i, value in enumerate(line)
    ]


def random_scores(mean: float, seed: int, sets: tuple[str, ...] = ("test",), n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(mean, 5, (len(SEEDS), n)) for name in sets}


def test_difference_interval_and_p_value(store):
    one, two = random_scores(33, 0), random_scores(30, 1)
    first, second = recorded(store, "a", rouge_rows(one), x=1), recorded(store, "b", rouge_rows(two), x=1)
    (row,) = compare_runs(store, first, second)
    a, b = one["test"].mean(0), two["test"].mean(0)  # an example's score is its mean over decoding seeds
    assert row.first == RunScore("a", pytest.approx(a.mean()))
    assert row.second == RunScore("b", pytest.approx(b.mean()))
    assert row.difference == pytest.approx(a.mean() - b.mean())
    assert (row.set, row.metric, row.label, row.examples) == ("test", "rouge_l", "ROUGE-L", 40)
    direct = compare_arms(Arm.of((10,), a[None]), Arm.of((10,), b[None]))
    assert (row.low, row.high, row.p) == pytest.approx((*direct.interval(), direct.p_value()))
    assert row.low < row.difference < row.high
    assert row.p_holm == row.p
    (swapped,) = compare_runs(store, second, first)
    assert swapped.difference == pytest.approx(-row.difference)


def test_real_and_absent_differences_are_told_apart(store):
    base = random_scores(30, 0)
    better = {"test": base["test"] + np.random.default_rng(1).normal(3, 1, base["test"].shape)}
    first, second = recorded(store, "a", rouge_rows(better), x=1), recorded(store, "b", rouge_rows(base), x=1)
    (row,) = compare_runs(store, first, second)
    assert row.low > 0
    assert row.p < 0.01
    (same,) = compare_runs(store, second, recorded(store, "c", rouge_rows(base), x=1))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_rows_are_paired_by_example_and_not_by_their_order(store):
    one, two = random_scores(30, 0), random_scores(30, 1)
    order = np.random.default_rng(2).permutation(40)
    shuffled = sorted(rouge_rows(two), key=lambda row: (row["seed"], order[int(row["id"][1:])]))
    first = recorded(store, "a", rouge_rows(one), x=1)
    plain = compare_runs(store, recorded(store, "b", rouge_rows(two), x=1), first)
    mixed = compare_runs(store, recorded(store, "b", shuffled, x=1), first)
    floats = [
        {key: value for key, value in asdict(rows[0]).items() if isinstance(value, float)} for rows in (plain, mixed)
    ]
    assert floats[0].keys() == {"difference", "low", "high", "p", "p_holm", "visible"}
    assert floats[0] == pytest.approx(floats[1])


def test_every_set_has_a_row_and_p_is_corrected_for_their_number(store):
    sets = ("test", "vicuna", "sinst")
    first = recorded(store, "a", rouge_rows(random_scores(31, 0, sets)), x=1)
    second = recorded(store, "b", rouge_rows(random_scores(30, 1, sets)), x=1)
    rows = compare_runs(store, first, second)
    assert [row.set for row in rows] == list(sets)
    assert [row.p_holm for row in rows] == holm([row.p for row in rows])
    assert any(row.p_holm > row.p for row in rows)


def test_every_metric_has_its_rows_the_one_that_selects_checkpoints_first(store):
    """One of the metrics counts on its own: numbers for one, counts that are summed for the other."""

    def rows(good: float, seed: int) -> list[Prediction]:
        rng = np.random.default_rng(seed)
        texts = ["the old cat sat on the mat" if rng.random() < good else "the cat saw two birds" for _ in range(40)]
        return [
            {
                "set": "test",
                "seed": 10,
                "id": f"e{i:02}",
                "scores": {name: find_metric(name).example(text, ("the old cat sat on the mat",)) for name in metrics},
            }
            for i, text in enumerate(texts)
        ]

    metrics = ("bleu", "rouge_l")
    first, second = (recorded(store, name, rows(*how), metrics) for name, how in (("a", (0.9, 0)), ("b", (0.3, 1))))
    found = compare_runs(store, first, second)
    assert [(row.set, row.metric) for row in found] == [("test", "bleu"), ("test", "rouge_l")]
    alone = [
        compare_runs(store, *(one.model_copy(update={"metrics": [info]}) for one in (first, second)))[0]
        for info in first.metrics
    ]
    assert [(row.difference, row.low, row.high, row.p) for row in found] == [
        (row.difference, row.low, row.high, row.p) for row in alone
    ]
    assert [row.p_holm for row in found] == holm([row.p for row in found])
    result = invoke("compare", "a", "b", "--out", str(store.root), "--json")
    assert json.loads(result.stdout) == [asdict(row) for row in found]
    shown = invoke("compare", "a", "b", "--out", str(store.root)).stdout
    assert "test BLEU" in shown
    assert "test ROUGE-L" in shown


def test_numbers_are_compared_without_the_metrics_code_and_counts_are_not(store):
    mine = [MetricInfo(name="mine", label="my metric", signature="")]

    def run(run_id: str, scores: list) -> RunRecord:
        rows = [{"set": "test", "seed": 10, "id": f"e{i}", "scores": {"mine": one}} for i, one in enumerate(scores)]
        record = recorded(store, run_id, rows, x=1).model_copy(update={"metrics": mine})
        store.write(record, rows)
        return record

    (row,) = compare_runs(store, run("a", [1.0, 0.0, 1.0]), run("b", [0.0, 0.0, 1.0]))
    assert (row.metric, row.label, row.difference) == ("mine", "my metric", pytest.approx(1 / 3))
    with pytest.raises(BenchError, match="unknown metric 'mine'"):
        compare_runs(store, run("a", [[1, 2], [3, 4]]), run("b", [[1, 2], [0, 4]]))


def test_bleu_is_that_of_sacrebleu_a_decoding_seed_and_differences_are_of_all_predictions(store):
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(WORDS, size=rng.integers(4, 12))) for _ in range(60)]

    def predictions(rate: float) -> list[tuple[int, int, str]]:
        def spoiled(text: str) -> str:
            return " ".join(word if rng.random() > rate else rng.choice(WORDS) for word in text.split())

        return [(seed, i, spoiled(text)) for seed in SEEDS for i, text in enumerate(references)]

    metric = find_metric("bleu")
    made = {"a": predictions(0.2), "b": predictions(0.4)}
    runs = [
        recorded(
            store,
            name,
            [
                {
                    "set": "test",
                    "seed": seed,
                    "id": f"e{i:02}",
                    "scores": {"bleu": metric.example(text, (references[i],))},
                }
                for seed, i, text in rows
            ],
            ("bleu",),
        )
        for name, rows in made.items()
    ]
    (row,) = compare_runs(store, runs[0], runs[1])

    def corpus(rows: list[tuple[int, int, str]]) -> float:
        return sacrebleu.corpus_bleu([text for *_, text in rows], [[references[i] for _, i, _ in rows]]).score

    for side, rows in zip(("first", "second"), made.values(), strict=True):
        by_seed = [corpus([one for one in rows if one[0] == seed]) for seed in SEEDS]
        assert getattr(row, side).score == pytest.approx(np.mean(by_seed)), "as tables have it"
        assert getattr(row, side).score != pytest.approx(corpus(rows), abs=1e-6)
    assert row.difference == pytest.approx(corpus(made["a"]) - corpus(made["b"]))
    assert 0 < row.low < row.difference < row.high
    assert row.examples == len(references)
    assert row.of_sums
    told = " ".join(invoke("compare", "a", "b", "--out", str(store.root)).stdout.split())
    assert abs(row.difference - (row.first.score - row.second.score)) > 0.005
    assert "BLEU: A and B are means over decoding seeds; A - B is of the counts of all decoding seeds'" in told
    assert not any("means over decoding" in one for one in comparison_notes([], [replace(row, of_sums=False)]))
    same = replace(row, difference=row.first.score - row.second.score)
    assert not any("means over decoding" in one for one in comparison_notes([], [same]))


def test_runs_that_differ_in_more_are_refused_and_it_says_in_what(store):
    rows = rouge_rows(random_scores(30, 0))
    config = {"training": {"steps": 600, "batch_size": 16}, "task": "dolly"}
    first = recorded(store, "a", rows, config=config, data="x")
    other = config | {"training": {"steps": 700, "batch_size": 16}}
    second = recorded(store, "b", rows, config=other, data="y")
    with pytest.raises(BenchError, match="a and b cannot be compared") as caught:
        compare_runs(store, first, second)
    told = str(caught.value).splitlines()[1:]
    assert [line.strip() for line in told] == ["training.steps (600 against 700)", "data (x against y)"]


def test_different_examples_are_refused(store):
    rows = rouge_rows(random_scores(30, 0))
    first = recorded(store, "a", rows, x=1)
    second = recorded(store, "b", [row for row in rows if row["id"] != "e07"], x=1)
    for one, two in ((first, second), (second, first)):
        with pytest.raises(BenchError, match=r"test: .*not over the same examples"):
            compare_runs(store, one, two)


def test_different_sets_are_refused(store):
    first = recorded(store, "a", rouge_rows(random_scores(30, 0, ("test", "vicuna"))), x=1)
    second = recorded(store, "b", rouge_rows(random_scores(30, 1)), x=1)
    with pytest.raises(BenchError, match=r"vicuna: .*not over the same examples"):
        compare_runs(store, first, second)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "e0", "scores": {"rouge_l": 1.0}}, "of another form .*`set`"),
        ({"set": "test", "scores": {"rouge_l": 1.0}}, "of another form .*`id`"),
        ({"set": "test", "id": "e0"}, "without 'rouge_l'"),
        ({"set": "test", "id": "e0", "scores": {"bleu": [1]}}, "without 'rouge_l'"),
    ],
)
def test_predictions_that_lack_something_are_told(store, row, told):
    first, second = (recorded(store, name, [row], x=1) for name in ("a", "b"))
    with pytest.raises(BenchError, match=f"predictions {told}"):
        compare_runs(store, first, second)


def test_methods_are_compared_with_all_their_seeds_and_single_runs_are_told_what_one_seed_can_tell(tmp_path):
    """Two seeds of one method differ for sure on these examples; that is no difference between methods."""
    base = noisy(30, 0, ("test",), sd=0.2)
    for method, gap in (("kld", 0.0), ("distillm", 4.0)):
        for number, seed in enumerate((10, 20, 30)):
            own = np.random.default_rng([seed, len(method)]).normal(0, 0.2)
            rows = drawn_rows({"test": base["test"] + 3 * number + gap + own})
            write_record(tmp_path, method, "samsum", seed, rows=rows)
    whole = invoke("compare", "--task", "samsum", "distillm", "kld", "--out", str(tmp_path))
    assert "within the seeds that A and B share" in " ".join(whole.stdout.split())
    shown = invoke("compare", "--task", "samsum", "distillm", "kld", "--out", str(tmp_path), "--json").stdout
    (row,) = json.loads(shown)
    assert (row["first"]["run"], row["seeds"], row["seed_noise"]) == ("distillm", 3, True)
    assert 2 < row["low"] < 4 < row["high"] < 6  # though kld at seed 30 scores above distillm at seed 10
    store = Store(tmp_path)
    runs = {(one.config.method.name, one.seed): one for one in store.all()}
    (apart,) = compare_runs(store, runs["kld", 10], runs["kld", 30])
    assert apart.difference == pytest.approx(-6, abs=1)
    assert apart.low < 0 < apart.high  # three points a seed
    single = invoke("compare", *(runs["kld", seed].run_id for seed in (10, 30)), "--out", str(tmp_path)).stdout
    assert "widened by what other recorded seeds of these methods do" in " ".join(single.split())
    for seed in (20, 30):  # without other seeds nothing is known of them
        shutil.rmtree(store.folder(runs["kld", seed].run_id))
        shutil.rmtree(store.folder(runs["distillm", seed].run_id))
    (alone,) = compare_runs(store, runs["distillm", 10], runs["kld", 10])
    assert not alone.seed_noise
    pair = [runs[method, 10].run_id for method in ("distillm", "kld")]
    told = " ".join(invoke("compare", *pair, "--out", str(tmp_path)).stdout.split())
    assert "Another seed of the same method often differs as much" in told


def test_a_run_below_its_own_init_student_is_told(tmp_path):
    record = write_record(tmp_path, "kld", "samsum")
    rewrite(tmp_path, record, init_scores__test__metrics__rouge_l__mean=99.0)
    other = write_record(tmp_path, "skl", "samsum")
    told = " ".join(invoke("compare", record.run_id, other.run_id, "--out", str(tmp_path)).stdout.split())
    assert f"{record.run_id} ends below its own init student:" in told
    assert f"{other.run_id} ends below" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "samsum", "kld"), "give two methods or more"),
        (("--task", "samsum", "kld", "skl"), "no run of skl on samsum at preset tiny"),
        (("samsum-kld",), "give two runs, or methods and --task"),
        (("samsum-kld", "samsum-kld"), "cannot be compared with itself: give two runs"),
        (("--task", "samsm", "kld", "skl"), "unknown task 'samsm': did you mean 'samsum'?"),
        (("--task", "samsum", "kldd", "skl"), "unknown method 'kldd': did you mean 'kld'?"),
    ],
)
def test_what_cannot_be_compared_is_told(tmp_path, words, told):
    write_record(tmp_path, "kld", "samsum")
    result = invoke("compare", *words, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert told in result.stderr


def test_of_a_method_with_several_settings_the_default_is_compared(tmp_path):
    for seed in (10, 20):
        for method in ("kld", "srkl"):
            write_record(tmp_path, method, "samsum", seed)
        for other in ("method.alpha=0.3", "training.steps=50"):
            write_record(tmp_path, "srkl", "samsum", seed, assignments=(other,))
    usual, _ = method_sides(Store(tmp_path), "samsum", ["srkl", "kld"])
    assert {(r.config.canonical()["method"]["alpha"], r.config.training.steps) for r in usual.records} == {(0.1, 800)}


def test_runs_of_two_machines_are_those_of_one_method_wherever_their_data_lies(tmp_path):
    for seed, place in ((10, "here"), (20, "there")):
        (tmp_path / place).mkdir()
        of_place = (f"data.dir={tmp_path / place}", *(f"models.{one}=scratch" for one in ("teacher", "student")))
        for method, *own in (("kld",), ("srkl",), ("srkl", "method.alpha=0.3")):
            write_record(tmp_path, method, "samsum", seed, assignments=(*of_place, *own))
    found = method_sides(Store(tmp_path), "samsum", ["srkl", "kld"])
    assert [side.seeds for side in found] == [(10, 20), (10, 20)]
    assert {record.config.canonical()["method"]["alpha"] for record in found[0].records} == {0.1}


def test_a_task_of_its_own_is_named_by_its_file_and_by_its_name(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nmetrics: [rouge_l]\nprompt_columns: [a]\nresponse_column: b\ntemplates: {t5: 'T: {a}'}\n"
    )
    out = tmp_path / "out"
    for seed in (10, 20):
        for method in ("kld", "skl"):
            record = write_record(out, method, "samsum", seed)
            rewrite(out, record, config__task="mine", config__task_file=str(file))
    found = [
        invoke("compare", "--task", task, "kld", "skl", "--out", str(out), "--json") for task in ("mine", str(file))
    ]
    assert [one.exit_code for one in found] == [0, 0]
    assert found[0].stdout == found[1].stdout
    other = invoke("compare", "--task", str(file), "kld", "gkd", "--out", str(out))
    assert f"bench run --method gkd --task {file} --preset tiny" in other.stderr


def test_what_the_legend_explains_is_shown_at_80_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for seed in (10, 20):
        for method, mean in (("kld", 130.0), ("skl", 100.0)):
            write_record(tmp_path, method, "dolly", seed, mean=mean)
    shown = invoke("compare", "--task", "dolly", "kld", "skl", "--out", str(tmp_path)).stdout
    heading = next(line for line in shown.splitlines() if "95 % interval" in line)
    assert heading.split() == ["set", "A", "B", "A", "-", "B", "95", "%", "interval", "p", "visible"]


def test_a_setting_without_effect_makes_no_arm_of_its_own(tmp_path):
    plain = write_record(tmp_path, "kld", "samsum")
    same = write_record(tmp_path, "kld", "samsum", assignments=("sgo.capacity=7",))
    assert plain.run_id != same.run_id
    assert arm_key(plain) == arm_key(same)
    mixed = [write_record(tmp_path, "distillm", "samsum", assignments=(f"sgo.capacity={n}",)) for n in (64, 128)]
    assert arm_key(mixed[0]) != arm_key(mixed[1])
