"""`bench recommend` by recorded runs: probabilities agree with comparisons, what counts is named."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from bench.analysis.blocks import Arm, compare_among, compare_arms, seed_noise
from bench.recommend.belief import Belief, belief
from bench.recommend.from_records import recommend
from bench.recommend.ranked_settings import Options
from bench.record.store import Store
from bench.system.errors import BenchError
from paper_tables.numbers.runs import RunIndex
from tests.conftest import invoke
from tests.records import altered, make_record, noisy, rewrite, rouge_rows

SEEDS = (10, 20, 30)
MEANS = {"kld": 30.0, "jsd": 29.8, "sft": 20.0}


def arms_of(means, seeds=SEEDS, noise=(1.0,), examples=50) -> dict[str, Arm]:
    """Arms whose scores have blocks of seeds and residuals of standard deviations `noise`, taken in turn."""
    rng = np.random.default_rng(3)
    hard, blocks = rng.normal(0, 5, examples), dict(zip(seeds, rng.normal(0, 2, len(seeds)), strict=True))
    found = {}
    for number, mean in enumerate(means):
        by_seed = [mean + blocks[seed] + rng.normal(0, noise[number % len(noise)]) for seed in seeds]
        found[f"arm{number}"] = Arm.of(seeds, np.array([one + hard + rng.normal(0, 4, examples) for one in by_seed]))
    return found


def noise_of(arms):
    return seed_noise({name: arm.scores for name, arm in arms.items()})


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "results")
    for method, mean in MEANS.items():
        for seed in SEEDS:
            store.write(*make_record(method, seed=seed, mean=mean, seconds=36.0 if method == "kld" else 18.0))
    return store


def test_what_is_believed_of_a_difference_is_the_interval_of_the_comparison():
    arms = arms_of([20, 21, 24, 19])
    noise = noise_of(arms)
    assert not noise.louder
    found = belief(arms, noise)
    for (i, first), (j, second) in combinations(enumerate(arms), 2):
        compared = compare_arms(arms[first], arms[second], noise)
        variance = found.spread[i, i] + found.spread[j, j] - 2 * found.spread[i, j]
        assert np.sqrt(variance) == pytest.approx(compared.standard_error)
        assert found.scores[i] - found.scores[j] == pytest.approx(compared.value)
        assert found.df == compared.df


def test_the_better_of_two_is_best_with_the_probability_of_students_t():
    arms = arms_of([20, 21])
    noise = noise_of(arms)
    compared = compare_arms(arms["arm1"], arms["arm0"], noise)
    best, near = belief(arms, noise).probabilities()
    assert best[1] == pytest.approx(stats.t.cdf(compared.value / compared.standard_error, compared.df), abs=0.002)
    assert near[1] == pytest.approx(stats.t.cdf((compared.value + 1) / compared.standard_error, compared.df), abs=0.002)
    assert best.sum() == pytest.approx(1)


def test_arms_that_gave_the_same_responses_share_the_probability():
    arms = arms_of([20, 15])
    arms["twin"] = arms["arm0"]
    best, _ = belief(arms, noise_of(arms)).probabilities()
    assert best[0] == pytest.approx(best[2], abs=0.003)
    assert best[0] + best[2] > 0.95
    best, near = belief(arms, None).probabilities()
    assert best[0] == best[2] > 0.49
    assert near[0] == near[2] > 0.99


def test_a_noisier_arm_has_its_own_variance_where_pooling_fails():
    arms = arms_of([20] * 6, seeds=tuple(range(10)), noise=(9.0, 0.3, 0.3, 0.3, 0.3, 0.3))
    noise = noise_of(arms)
    assert list(noise.louder) == ["arm0"]
    found = belief(arms, noise)
    spread = np.diag(found.spread)
    assert spread[0] > 5 * spread[1:].max()
    # every difference as comparisons have it
    for first, second in combinations(range(len(arms)), 2):
        compared = compare_among(arms, f"arm{first}", f"arm{second}", noise)
        variance = found.spread[first, first] + found.spread[second, second] - 2 * found.spread[first, second]
        assert np.sqrt(variance) == pytest.approx(compared.standard_error)
    assert found.df == 9


def test_methods_come_by_score_with_what_is_known_of_them(store):
    found = recommend(store, "dolly", options=Options(price=100.0))
    assert [one.method for one in found.methods] == ["kld", "jsd", "sft"]
    first, second, last = found.methods
    assert sum(one.best for one in found.methods) == pytest.approx(1)
    assert 0.2 < second.best <= first.best
    assert first.near_best > first.best
    assert last.near_best < 0.001
    assert [one.told_apart for one in found.methods] == [False, False, True]
    assert (first.seeds, first.seconds, first.before) == (SEEDS, 36.0, 2.0)
    assert first.cost == pytest.approx(100 * 38 / 3600)
    assert found.seeds_known
    assert found.next_runs is not None
    assert (set(found.next_runs.methods), found.next_runs.seed) == ({"kld", "jsd"}, 40)
    assert 0 < found.next_runs.regret_then < found.next_runs.regret_now


def test_the_seed_that_one_lacks_comes_before_a_new_one(store):
    missing = next(r for r in store.all() if (r.config.method.name, r.seed) == ("jsd", 30))
    (store.folder(missing.run_id) / "record.json").unlink()
    following = recommend(store, "dolly").next_runs
    assert (following.methods, following.seed) == (("jsd",), 30)
    assert f"--seed 30 --out {store.root}" in following.commands[0]


def test_the_best_is_told_by_seeds_that_methods_share(tmp_path):
    store = Store(tmp_path)
    for method, mean, seeds in (("kld", 30.0, SEEDS), ("jsd", 31.0, SEEDS), ("skl", 28.0, (20, 30))):
        for seed in seeds:
            store.write(*make_record(method, seed=seed, mean=mean - 12 * (seed == 10)))
    found = recommend(store, "dolly")
    assert [one.method for one in found.methods] == ["jsd", "kld", "skl"]
    assert found.methods[2].score > found.methods[0].score
    assert found.methods[0].best > found.methods[2].best
    told = invoke("recommend", "--task", "dolly", "--out", str(tmp_path)).stdout
    assert "jsd has the highest score at equal seeds" in told


def test_trials_of_tuning_never_count(store):
    before = recommend(store, "dolly")
    for method in MEANS:  # as many as there are runs, and better
        for seed in (40, 50, 60, 70):
            rows = rouge_rows(noisy(90.0, seed, ("validation",)))
            store.write(*make_record(method, seed=seed, rows=rows, assignments=("score_on=validation",)))
    assert recommend(store, "dolly") == before
    with pytest.raises(BenchError, match="no scores on 'validation'"):
        recommend(store, "dolly", options=Options(on="validation"))


def test_a_methods_own_settings_come_before_those_with_more_seeds(store):
    for seed in (10, 20, 30, 40):
        store.write(*make_record("kld", seed=seed, mean=50.0, sgo="on-policy"))
        store.write(*make_record("skl", seed=seed, mean=25.0, assignments=("method.alpha=0.3",)))
        if seed < 30:
            store.write(*make_record("skl", seed=seed, mean=26.0, assignments=("method.alpha=0.4",)))
    found = {one.method: one for one in recommend(store, "dolly").methods}
    assert found["kld"].score == pytest.approx(30, abs=2)
    assert found["skl"].seeds == (10, 20, 30, 40)  # nothing has its own: those with most seeds


def test_what_is_not_ranked_is_named_and_other_sources_are_ranked_on_demand(store):
    for seed in SEEDS:
        store.write(*make_record("srkl", seed=seed, mean=31.0))
        store.write(*make_record("srkl", seed=seed, mean=33.0, sgo="adaptive-off-policy"))
        store.write(*make_record("srkl", seed=seed, mean=35.0, init="pretrained"))
    words = ["recommend", "--task", "dolly", "--out", str(store.root)]
    told = invoke(*words).stdout
    assert "(--every-source ranks them): srkl (adaptive-off-policy) " in told
    assert "1 arms; the best of them is srkl with init changed (dolly-srkl-dataset-s10-" in told
    plain = json.loads(invoke(*words, "--json").stdout)
    assert [(one["source"], one["other"]) for one in plain["left_out"]] == [
        ("dataset", ["init"]),
        ("adaptive-off-policy", []),
    ]
    plain = json.loads(invoke(*words, "--json", "--every-source").stdout)
    names = ["srkl (adaptive-off-policy)", "srkl", "kld", "jsd", "sft"]
    assert [one["method"] for one in plain["methods"]] == names
    assert [one["source"] for one in plain["left_out"]] == ["dataset"]


def test_options_that_a_source_does_not_read_are_no_other_setting(store):
    for seed in SEEDS:  # the first seed's run says what an arm is
        unread = ("sgo.capacity=5",) if seed == SEEDS[0] else ()
        store.write(*make_record("srkl", seed=seed, mean=31.0, assignments=unread))
        store.write(*make_record("srkl", seed=seed, mean=35.0, init="pretrained", assignments=unread))
    plain = recommend(store, "dolly")
    assert next(one for one in plain.methods if one.method == "srkl").seeds == SEEDS
    assert [one.other for one in plain.left_out] == [("init",)]


def test_only_what_fits_the_budget_takes_part(store):
    found = recommend(store, "dolly", options=Options(max_seconds=20.0))
    assert [(one.method, one.within_budget) for one in found.methods] == [("jsd", True), ("sft", True), ("kld", False)]
    assert found.methods[2].best == 0
    with pytest.raises(BenchError, match=r"1: jsd takes least as far as is known, 20 s$"):
        recommend(store, "dolly", options=Options(max_seconds=1.0))


def test_a_time_beside_other_work_is_an_upper_bound(store):
    for seed, seconds in zip(SEEDS, (5.0, 9.0, 30.0), strict=True):
        store.write(*make_record("skl", seed=seed, mean=25.0, seconds=seconds, other_load=1.5))
        store.write(*make_record("tvd", seed=seed, mean=26.0, seconds=25.0, other_load=1.5))
    record, rows = make_record("rkld", mean=15.0)
    store.write(altered(record, environment__threads=7), rows)  # other hardware says nothing of this one
    found = {one.method: one for one in recommend(store, "dolly", options=Options(max_seconds=20, price=3600)).methods}
    assert [name for name, one in found.items() if one.within_budget] == ["jsd", "skl", "sft"]
    assert (found["skl"].seconds, found["skl"].at_most, found["skl"].cost) == (None, 9.0, 11.0)
    assert (found["sft"].seconds, found["sft"].at_most) == (18.0, None)
    assert (found["rkld"].seconds, found["rkld"].at_most, found["rkld"].cost) == (None, None, None)
    words = ["recommend", "--task", "dolly", "--out", str(store.root)]
    told = invoke(*words, "--price", "3600").stdout
    assert "≤ 25 │" in told
    assert "≤ 11 │" in told
    assert "≤ at most: timed beside other work" in told
    assert "No time is known on the hardware of most runs: rkld." in told
    for record in list(store.all()):
        rewrite(store.root, record, environment__other_load=1.5)
    with pytest.raises(
        BenchError, match=r"skl takes least as far as is known, at most 11 s \(timed beside other work\)"
    ):
        recommend(store, "dolly", options=Options(max_seconds=10))


@pytest.mark.parametrize(("task", "usual"), [("samsum", "tiny-t5"), ("iwslt", "tiny-marian")])
def test_of_pairs_with_as_many_runs_the_presets_own_is_ranked_and_the_other_named(tmp_path, task, usual):
    store = Store(tmp_path)
    for models in (usual, f"{usual}-small"):
        for method in ("kld", "sft"):
            store.write(*make_record(method, task, models=models))
    result = invoke("recommend", "--task", task, "--out", str(tmp_path))
    assert f"models {usual}, preset tiny" in result.stdout
    assert f"Another pair is recorded: --models {usual}-small\n" in result.stdout
    assert not result.stderr.strip()
    assert RunIndex(store, "tiny", task=task).scope.endswith(f"models {usual}")
    assert recommend(store, task, options=Options(models=f"{usual}-small")).other_pairs == ()
    store.write(*make_record("jsd", task, models=f"{usual}-small"))  # more runs decide
    assert (found := recommend(store, task)).models == f"{usual}-small"
    assert found.other_pairs == (usual,)


def test_what_cannot_be_compared_is_left_out_in_words(store):
    record, rows = make_record("skl", mean=40.0, assignments=("training.steps=50",))
    fields = record.comparison_fields | {"data": "f" * 64}
    store.write(record.model_copy(update={"comparison_fields": fields}), rows)
    result = invoke("recommend", "--task", "dolly", "--out", str(store.root))
    assert "skl" not in result.stdout
    told = " ".join(result.stderr.split())
    assert "left out 1 of dolly's runs" in told
    assert "They differ in training.steps (50 against 800), data (other contents). To rank them, copy them" in told


def test_what_comes_before_the_training_counts(store):
    for seed in SEEDS:
        record, rows = make_record("seqkd", seed=seed, mean=28.0, seconds=18.0)
        answers = {"mean_length": 5.0, "ended": 1.0}
        needs = {"init student": 2.0, "teacher responses": 30.0}
        store.write(altered(record, data__teacher_responses=answers, time__before=needs), rows)
    found = {one.method: one for one in recommend(store, "dolly", options=Options(max_seconds=45, price=3600)).methods}
    assert (found["seqkd"].before, found["seqkd"].seconds, found["seqkd"].cost) == (32.0, 18.0, 50.0)
    assert [name for name, one in found.items() if not one.within_budget] == ["seqkd"]
    assert [name for name, one in found.items() if one.cost is not None and one.cost < 25] == ["jsd", "sft"]
    for record in list(store.all()):  # what comes before is known of runs that were not timed, too
        rewrite(store.root, record, environment__other_load=1.5)
    (seqkd,) = (one for one in recommend(store, "dolly").methods if one.method == "seqkd")
    assert (seqkd.before, seqkd.seconds, seqkd.at_most) == (32.0, None, 18.0)


def test_one_seed_a_method_says_nothing_of_others(tmp_path):
    store = Store(tmp_path)
    for method, mean in (("kld", 60.0), ("jsd", 30.0), ("sft", 20.0)):  # by examples alone, kld is surely the best
        store.write(*make_record(method, mean=mean))
    found = recommend(store, "dolly")
    assert not found.seeds_known
    assert {(one.best, one.near_best) for one in found.methods} == {(None, None)}
    assert (found.next_runs.seed, found.next_runs.methods) == (20, ("kld", "jsd"))
    told = invoke("recommend", "--task", "dolly", "--out", str(tmp_path)).stdout
    assert "One training seed a method" in told
    assert "What would tell most: kld and jsd at seed 20:" in told
    assert told.count("--seed 20") == 2
    assert "probability" not in told
    assert "would tell little" not in told


def test_what_the_test_cannot_tell_for_noise_is_not_called_as_good(tmp_path):
    store = Store(tmp_path)
    for seed, shift in zip(SEEDS, (-12.0, 0.0, 12.0), strict=True):
        for method, mean in (("kld", 40.0), ("jsd", 39.8), ("sft", 35.0), ("rkld", 34.0), ("tvd", 33.0), ("skl", 36.0)):
            store.write(*make_record(method, seed=seed, mean=mean))
        store.write(*make_record("minillm", seed=seed, mean=10.0 + shift))
    found = recommend(store, "dolly")
    assert not found.pooled
    assert [one.method for one in found.too_noisy] == ["minillm"]
    assert "jsd" in [one.method for one in found.as_good]
    told = invoke("recommend", "--task", "dolly", "--out", str(tmp_path)).stdout
    assert "less than 5 % probability: minillm." in told
    assert "minillm*" not in told


def test_why_a_method_that_is_probably_not_as_good_runs_next_is_told(tmp_path):
    store = Store(tmp_path)
    for seed, shift in zip(SEEDS, (-12.0, 0.0, 12.0), strict=True):
        for method, mean in (("kld", 40.0), ("jsd", 31.0), ("sft", 32.0), ("rkld", 31.0), ("tvd", 30.0)):
            store.write(*make_record(method, seed=seed, mean=mean))
        store.write(*make_record("minillm", seed=seed, mean=16.0 + shift))
    told = invoke("recommend", "--task", "dolly", "--out", str(tmp_path)).stdout
    assert "less than 5 % probability: minillm." in told
    assert "kld and minillm at seed 40 (minillm is probably not as good, but so noisy that it may yet be); to" in told


def test_the_gain_of_runs_is_that_of_changing_the_choice():
    one = Belief(np.array([1.0, 0.0]), np.diag([2.0, 2.0]), 5.0)
    moves = np.sqrt(0.5 + 1.0)  # of the difference
    z = 1 / moves
    expected = moves * ((5 + z**2) / 4 * stats.t.pdf(z, 5) - z * stats.t.sf(z, 5))
    assert one.gain(replace(one, spread=np.diag([1.5, 1.0]))) == pytest.approx(expected, rel=0.02)
    shared = 3.0 + np.diag([1.5, 1.0])  # what all arms share is not determined
    assert one.gain(replace(one, spread=shared)) == pytest.approx(expected, rel=0.02)

    def after(*seeds: int) -> Belief:
        return Belief(np.array([41.7, 41.2, 38.0]), np.diag(np.array([0.8, 0.8, 5.8]) / seeds), 3.0)

    now, near, loud = after(3, 3, 3), after(4, 4, 3), after(4, 3, 4)
    assert loud.regret() < near.regret(), "a loud arm's seed takes most off the noise"
    assert now.gain(near) > 1.3 * now.gain(loud), "which changes the choice less"


def test_other_presets_of_the_folder_are_named_with_their_leader(store):
    file = store.root / "tuning" / "slow.yaml"
    file.parent.mkdir()
    file.write_text("extends: tiny\ntraining: {learning_rate: 0.001}\n")
    for seed in SEEDS:
        store.write(*make_record("sft", seed=seed, mean=50.0, preset=str(file)))
        store.write(*make_record("kld", seed=seed, mean=20.0, preset=str(file)))
    told = invoke("recommend", "--task", "dolly", "--out", str(store.root)).stdout
    assert "At preset slow, sft has the highest score (the best with probability 1.00), which is another:" in told
    command = next(line for line in told.splitlines() if line.startswith("bench recommend"))
    there = invoke(*shlex.split(command)[1:])
    assert there.exit_code == 0, there.output
    assert "sft has the highest score" in there.stdout
    assert "At preset tiny, kld has the highest score" in there.stdout


def test_the_command(store):
    words = ["recommend", "--task", "dolly", "--out", str(store.root), "--price", "100"]
    shown = invoke(*words)
    assert shown.exit_code == 0, shown.output
    assert "jsd*" in shown.stdout
    assert "kld has the highest score; it is the best with probability 0." in shown.stdout
    assert "Not told from it (5 %, Tukey's test of 3 methods): jsd." in shown.stdout
    assert "What would tell most: " in shown.stdout
    plain = json.loads(invoke(*words, "--json").stdout)
    assert [one["method"] for one in plain["methods"]] == ["kld", "jsd", "sft"]
    assert plain["next_runs"]["seed"] == 40


def test_runs_without_any_student_output_are_told(store):
    file = store.root / "slow.yaml"
    file.write_text("extends: tiny\n")
    for seed in SEEDS:
        store.write(*make_record("distillm", seed=seed, mean=50.0, phi=0.0 if seed < 30 else 0.5))
        store.write(*make_record("distillm", seed=seed, mean=50.0, phi=0.0, preset=str(file)))
        store.write(*make_record("kld", seed=seed, preset=str(file)))
    words = ["recommend", "--task", "dolly", "--out", str(store.root)]
    told = invoke(*words).stdout.splitlines()
    assert [line for line in told if line.startswith("distillm: in 2 of 3 runs φ stayed 0 and no batch was of")]
    assert [line for line in told if line.startswith("At preset slow, distillm has") and "in 3 of 3 runs φ" in line]
    noted = {one["method"]: one["no_student_outputs"] for one in json.loads(invoke(*words, "--json").stdout)["methods"]}
    assert noted["distillm"].startswith("in 2 of 3 runs φ stayed 0")
    assert noted["kld"] == ""
    compared = " ".join(
        invoke("compare", "--task", "dolly", "distillm", "kld", "--out", str(store.root)).stdout.split()
    )
    assert "distillm: in 2 of 3 runs φ stayed 0" in compared
    assert "kld: in" not in compared
    runs = ["dolly-distillm-adaptive-off-policy-s10", "dolly-kld-dataset-s10"]
    ids = [r.run_id for r in store.all() if r.config.preset == "tiny" and r.run_id.startswith(tuple(runs))]
    compared = " ".join(invoke("compare", *ids, "--out", str(store.root)).stdout.split())
    assert f"{ids[0]}: in its one run φ stayed 0" in compared


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--task", "samsum"], "no runs on samsum at preset tiny"),
        (["--preset", "real"], "no runs on dolly at preset real in"),
        (["--preset", "real"], "(recorded: --preset tiny)"),
        (["--on", "nowhere"], "no scores on 'nowhere'"),
        (["--models", "tiny-t5"], "with models tiny-t5"),
        (["--method", "kld"], "--method goes with --minutes"),
        (["--minutes", "1", "--price", "2"], "--price goes without --minutes"),
    ],
)
def test_what_cannot_be_answered_is_told(store, more, told):
    result = invoke("recommend", "--task", "dolly", "--out", str(store.root), *more)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
