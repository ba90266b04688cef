"""`bench tune`: the same trials for every method, on validation alone, recorded once, and what tables say of them."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from bench.config.comparable import comparison_fields
from bench.config.presets import read_preset
from bench.config.resolve import resolve, resolve_again
from bench.config.tuned import LEARNING_RATE, Trial
from bench.data import load_task
from bench.experiment.tune import Study, plan_studies, rates_of_trials, tune, write_tuned
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from bench.training.job import NonFiniteLoss
from paper_tables.paper.suites import run_specs
from paper_tables.suite.plan import make_plan
from paper_tables.tables.captions import setting_notes
from tests.conftest import invoke, start
from tests.records import make_record

QUICK = """
extends: tiny
data: {max_train: 64, max_validation: 8, max_test: 8}
evaluation: {seeds: [10]}
tasks:
  dolly:
    training: {steps: 12, batch_size: 8, validations: 2, checkpoint_seconds: 0.05}
    init_training: {steps: 12}
"""
METHODS = ("kld", "distillm")


def words(folder: Path, *more: str) -> list[str]:
    given = ["--task", "dolly", "--methods", ",".join(METHODS), "--trials", "2", "--preset", str(folder / "quick.yaml")]
    return ["tune", *given, "--out", str(folder / "results"), "--quiet", *more]


def in_folder(folder: Path) -> Path:
    (folder / "quick.yaml").write_text(QUICK)
    return folder


def records(folder: Path):
    return {record.run_id: record for record in Store(folder / "results" / "tuning").all()}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, cache) -> Path:
    """A folder in which two methods were tuned, by the real command."""
    folder = in_folder(tmp_path_factory.mktemp("tune"))
    result = invoke(*words(folder))
    assert result.exit_code == 0, result.output
    return folder


def preset_in(folder: Path) -> Path:
    return folder / "results" / "tuning" / "quick-tuned.yaml"


def test_the_best_on_validation_is_chosen_and_every_trial_is_told(tuned):
    found, made = yaml_text.read(preset_in(tuned))["tuning"]["dolly"], records(tuned)
    assert found.keys() == set(METHODS)
    assert len(made) == 4
    assert not (tuned / "results" / "runs").exists()
    for method in METHODS:
        entry = found[method]
        rate = resolve(preset=str(tuned / "quick.yaml"), task="dolly", method=method)[0].training.learning_rate
        assert entry["space"] == {LEARNING_RATE: [rate / 2, rate]}
        assert (entry["trials"], entry["seeds"]) == (2, [10])
        for trial in entry["tried"]:
            record = made[trial["runs"][0]]
            assert trial["values"] == {LEARNING_RATE: record.config.training.learning_rate}
            assert trial["scores"] == [record.scores["validation"].primary.mean]
        best = max(entry["tried"], key=lambda trial: trial["scores"])
        assert entry["chosen"] == best["values"]
        assert entry["seconds"] == pytest.approx(sum(made[t["runs"][0]].seconds for t in entry["tried"]), abs=0.1)


def test_what_the_preset_says_of_its_trials_is_checked_against_their_records(tuned, tmp_path):
    found = invoke("verify", str(tuned / "results"), "--json")
    assert found.exit_code == 0, found.output
    checked = json.loads(found.stdout)["checked"]
    assert (checked["trials"], checked["records"]) == (4, 4)
    copy = Path(shutil.copytree(tuned / "results", tmp_path / "results"))
    content = yaml_text.read(preset_in(tuned))
    entry = content["tuning"]["dolly"]["kld"]
    entry["space"]["method.alpha"] = [0.3]  # an option of the method, as `--space` has it; its records have none
    for values in (entry["chosen"], *(trial["values"] for trial in entry["tried"])):
        values["method.alpha"] = 0.3
    (copy / "tuning" / "quick-tuned.yaml").write_text(yaml_text.dump(content))
    of_option = invoke("verify", str(copy))
    assert (of_option.exit_code, "alpha" in of_option.output) == (1, True), of_option.output
    content = yaml_text.read(preset_in(tuned))
    tried = content["tuning"]["dolly"]["kld"]["tried"]
    worst = min(tried, key=lambda one: one["scores"][0])
    run, score = worst["runs"][0], worst["scores"][0]
    worst["scores"] = [score - 1]
    (copy / "tuning" / "quick-tuned.yaml").write_text(yaml_text.dump(content))
    told = invoke("verify", str(copy))
    assert told.exit_code == 1
    assert f"dolly kld, {run}: holds" in told.output.replace("\n", " ")
    shutil.rmtree(copy / "tuning" / "runs" / run)
    assert "not checked: trials of" in invoke("verify", str(copy)).output


def test_trials_see_no_test_set(tuned):
    splits = load_task("dolly").splits
    wanted = {example.id for example in splits["validation"]}
    assert not wanted & {
        example.id for name, examples in splits.items() if name != "validation" for example in examples
    }
    store = Store(tuned / "results" / "tuning")
    for record in store.all():
        for scores in (record.scores, record.teacher_scores, record.init_scores):
            assert scores.keys() == {"validation"}
        rows = list(store.predictions(record))
        assert len(rows) == 8
        assert {row["id"] for row in rows} <= wanted


def test_the_same_command_makes_nothing_again(tuned):
    before = {path: path.stat().st_mtime_ns for path in (tuned / "results" / "tuning" / "runs").glob("*/*.json")}
    told = preset_in(tuned).read_text()
    assert invoke(*words(tuned)).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert preset_in(tuned).read_text() == told


def test_runs_take_what_was_chosen_and_say_so(tuned):
    path, found = str(preset_in(tuned)), yaml_text.read(preset_in(tuned))["tuning"]["dolly"]
    keys = []
    for method in METHODS:
        config, _ = resolve(preset=path, task="dolly", method=method)
        assert config.training.learning_rate == found[method]["chosen"][LEARNING_RATE]
        assert (config.preset, config.score_on) == ("quick-tuned", "test")
        assert config.tuning is not None
        assert config.tuning.at_the_edge == (LEARNING_RATE,)
        assert resolve_again(config.canonical())[0] == config
        keys.append(comparison_fields({"config": config.identity()}))
    assert keys[0] == keys[1]
    untuned, _ = resolve(preset=path, task="dolly", method="gkd")
    assert untuned.tuning is None
    assert comparison_fields({"config": untuned.identity()}) != keys[0]


@pytest.mark.parametrize(("setting", "kept"), [("training.learning_rate=1e-5", False), ("method.alpha=0.3", True)])
def test_a_run_with_another_value_is_not_called_tuned(tuned, setting, kept):
    config, _ = resolve(preset=str(preset_in(tuned)), task="dolly", method="distillm", assignments=[setting])
    assert (config.tuning is not None) == kept


def test_untuned_configurations_are_as_they_were():
    values = resolve(preset="tiny", task="dolly", method="kld")[0].canonical()
    assert not {"tuning", "score_on"} & values.keys()


def test_a_table_names_the_budget_and_the_edge(tuned):
    made = [make_record(m, preset=str(preset_in(tuned)))[0] for m in METHODS]
    notes = setting_notes(made)
    assert any("tuned on dolly: 2 trials a method and task, training seeds 10, on validation" in note for note in notes)
    assert any("edge" in note and "KLD (dolly)" in note and "DistiLLM (dolly)" in note for note in notes)
    assert not any("uned" in note for note in setting_notes([make_record("kld")[0]]))


def test_the_next_command_that_is_named_makes_the_table_of_what_was_tuned(tuned, cache):
    told = invoke(*words(tuned)).stdout  # all is recorded
    named = shlex.split(told.partition("; next: bench ")[2])
    planned = invoke(*named, "--seeds", "10", "--dry-run")
    assert planned.exit_code == 0, planned.output
    runs = [line.split() for line in planned.stdout.splitlines() if line.startswith("bench run")]
    assert [(run[3], run[5]) for run in runs] == [(method, "dolly") for method in METHODS]


def test_a_suite_refuses_methods_that_were_not_tuned(tuned):
    path = str(preset_in(tuned))
    with pytest.raises(BenchError, match=r"--task dolly --methods jsd,rkld,skl,srkl"):
        make_plan(run_specs("table1", path), {}, [], preset=path, seeds=[10])
    specs = [spec for spec in run_specs("table1", path) if spec.task == "dolly"]
    assert make_plan(specs, {}, [], preset=path, seeds=[10], only=["kld"]).runs


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chosen": {LEARNING_RATE: 0.5}}, "the best of what was tried"),
        ({"trials": 3}, "expected as many as trials"),
        ({"space": {"data.seed": [0, 1]}}, "no setting to tune"),
    ],
)
def test_a_file_that_says_other_than_its_trials_is_refused(tuned, tmp_path, change, told):
    content = yaml_text.read(preset_in(tuned))
    content["tuning"]["dolly"]["kld"] |= change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml_text.dump(content | {"extends": "tiny"}))
    with pytest.raises(BenchError, match=told):
        read_preset(str(path))


def test_methods_of_a_task_are_tuned_alike(tuned, tmp_path):
    study = Study("tiny", "dolly", "kld", (10,), None, None, {})
    kld, distillm = (read_preset(str(preset_in(tuned))).tuned("dolly", method) for method in METHODS)
    path = tmp_path / "tiny-tuned.yaml"
    write_tuned(path, study, kld, "kld")
    with pytest.raises(BenchError, match=r"kld on dolly was tuned with 2 trials and training seeds \[10\]"):
        write_tuned(path, study, distillm.model_copy(update={"seeds": [20]}), "distillm")
    assert read_preset(str(path)).tuned("dolly", "distillm") is None
    write_tuned(path, study, distillm, "distillm")
    assert read_preset(str(path)).tuned("dolly", "kld") == kld
    with pytest.raises(BenchError, match="extends tiny, not small"):
        write_tuned(path, Study("small", "dolly", "kld", (10,), None, None, {}), kld, "kld")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--methods", "rkld", "--trials", "1"],
            "kld on dolly was tuned with 2 trials and training seeds [10], and rkld",
        ),
        (["--methods", "rkld", "--seed", "20"], "and rkld with 2 and [20]"),
        (["--trials", "4"], "distillm on dolly was tuned with 2 trials"),
        (["--preset", "small"], "extends"),
    ],
)
def test_a_file_of_another_budget_or_preset_is_refused_before_any_trial(tuned, more, told):
    before = records(tuned).keys()
    result = invoke(*words(tuned, "--to", str(preset_in(tuned)), *more))
    assert (result.exit_code, told in " ".join(result.stderr.split())) == (2, True), result.stderr
    assert records(tuned).keys() == before


@pytest.mark.parametrize(
    ("trials", "factors"), [(1, [1]), (2, [0.5, 1]), (4, [0.25, 0.5, 1, 2]), (5, [0.25, 0.5, 1, 2, 4])]
)
def test_the_grid_lies_around_the_presets_rate(trials, factors):
    for study in plan_studies("paper", ["dolly"], ["kld", "minillm"], rates_of_trials(trials), [10]):
        usual = resolve(preset="paper", task="dolly", method=study.method)[0].training.learning_rate
        assert list(study.space[LEARNING_RATE]) == [usual * factor for factor in factors]


def test_rates_of_another_pair_do_not_get_into_a_file(tuned, tmp_path):
    (tmp_path / "pair.yaml").write_text(
        "models: {kind: causal, teacher: shipped, student: scratch, tokenizer: shipped, finetune_teacher: true,"
        " student_config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,"
        " num_attention_heads: 2}}\n"
    )
    before = records(tuned).keys()
    pair = ("--models", str(tmp_path / "pair.yaml"))
    result = invoke(*words(tuned, "--to", str(preset_in(tuned)), *pair))
    assert result.exit_code == 2
    assert "was tuned with the models tiny-llama, not pair; give another file" in " ".join(result.stderr.split())
    assert records(tuned).keys() == before
    # by itself it goes to another
    told = " ".join(invoke(*words(tuned, *pair, "--dry-run")).output.split())
    assert "dolly kld: training.learning_rate" in told


def test_rates_are_tried_of_every_method(tuned):
    """In place of those of --trials; a trial that is recorded counts."""
    result = invoke(*("tune", "--task", "dolly", "--methods", "kld,gkd", "--rates", "0.25,1,8", "--dry-run"))
    assert result.stdout.splitlines() == [
        "dolly kld: training.learning_rate 0.0015, 0.006, 0.048",
        "dolly gkd: training.learning_rate 0.0015, 0.006, 0.048",
        "6 runs: 3 trials of 2 methods and tasks, training seeds 10",
    ]
    before, to = records(tuned).keys(), tuned / "again-tuned.yaml"
    given = words(tuned, "--to", str(to))
    at = given.index("--trials")
    result = invoke(*given[:at], *given[at + 2 :], "--rates", "0.5,1")
    assert result.exit_code == 0, result.stderr
    assert records(tuned).keys() == before
    assert read_preset(str(to)).tuned("dolly", "kld") == read_preset(str(preset_in(tuned))).tuned("dolly", "kld")


@pytest.mark.parametrize("given", ["1,", "2,1", "1,1", "0,1", "-1", "inf", "nan", "one"])
def test_rates_that_cannot_be_are_refused(given, tmp_path):
    result = invoke("tune", "--rates", given, "--out", str(tmp_path))
    assert (result.exit_code, "such as 0.25,0.5,1,2,4,8" in result.stderr) == (2, True)
    result = invoke("tune", "--rates", "1", "--trials", "1", "--out", str(tmp_path))
    assert (result.exit_code, "not both" in result.stderr) == (2, True)


def test_an_option_is_tried_within_the_same_trials(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("options: {distillm: {alpha: [0.05, 0.1]}}")
    kld, distillm = plan_studies("tiny", ["dolly"], ["kld", "distillm"], rates_of_trials(4), [10], space_file=path)
    assert [len(values) for values in kld.space.values()] == [4]
    assert list(distillm.space["method.alpha"]) == [0.05, 0.1]
    assert len(distillm.space[LEARNING_RATE]) == 2
    assert distillm.run({"method.alpha": 0.05}, 10)[0].method.options["alpha"] == 0.05


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("options: {distillm: {alpha: [0.1, 0.2, 0.3]}}", "4 trials do not divide"),
        ("options: {distillm: {alpha: [0.1, 7]}}", "alpha"),
        ("options: {distillm: {alhpa: [0.1, 0.2]}}", "alhpa"),
        ("options: {distillm: {}}", "one option"),
        ("options: {gkd: {beta: [0.1, 0.2]}}", "gkd is not tuned"),
        ("distillm: {alpha: [0.1]}", "unknown key"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_any_work(tmp_path, space, told):
    path = tmp_path / "space.yaml"
    path.write_text(space)
    with pytest.raises(BenchError, match=told):
        plan_studies("tiny", ["dolly"], ["kld", "distillm"], rates_of_trials(4), [10], space_file=path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--methods", "kld,kld"], "give each once"),
        (["--methods", "kdl"], "unknown method 'kdl'"),
        (["--to", "tiny.yaml"], "no shipped preset's"),
        (["--to", "mine.txt"], "ends in .yaml"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, more, told):
    result = invoke(*words(in_folder(tmp_path)), *more)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_tuned_preset_is_not_tuned_again(tuned):
    with pytest.raises(BenchError, match="it is tuned"):
        plan_studies(str(preset_in(tuned)), ["dolly"], ["kld"], rates_of_trials(2), [10])


def test_a_trial_that_diverges_is_the_worst(tuned):
    made = {r.config.training.learning_rate: r for r in records(tuned).values() if r.config.method.name == "kld"}
    (study,) = plan_studies(str(tuned / "quick.yaml"), ["dolly"], ["kld"], rates_of_trials(2), [10])
    chosen = yaml_text.read(preset_in(tuned))["tuning"]["dolly"]["kld"]["chosen"][LEARNING_RATE]

    def make(config, method):
        rate = config.training.learning_rate
        if rate in diverging:
            raise NonFiniteLoss.__new__(NonFiniteLoss)
        return made[rate]

    diverging = {chosen}
    found = tune(study, make)
    assert found.chosen == {LEARNING_RATE: next(rate for rate in made if rate != chosen)}
    assert found.tried[sorted(made).index(chosen)] == Trial(values={LEARNING_RATE: chosen}, scores=[], runs=[])
    diverging = set(made)
    with pytest.raises(BenchError, match="every trial diverged"):
        tune(study, make)


@pytest.mark.slow
def test_killed_it_goes_on_with_the_trial_under_way(tuned, tmp_path, cache):
    folder = in_folder(tmp_path)
    process = start(*words(folder), cache=cache)
    runs = folder / "results" / "tuning" / "runs"
    deadline = time.monotonic() + 60
    while len(list(runs.glob("*/"))) < 2 and time.monotonic() < deadline:  # the second trial is under way
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    done = {path: path.stat().st_mtime_ns for path in runs.glob("*/record.json")}
    assert 1 <= len(done) < 4
    assert not preset_in(folder).exists()
    result = invoke(*words(folder))
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in done} == done
    ended, whole = (yaml_text.read(preset_in(one))["tuning"] for one in (folder, tuned))
    assert {m: e["tried"] for m, e in ended["dolly"].items()} == {m: e["tried"] for m, e in whole["dolly"].items()}
