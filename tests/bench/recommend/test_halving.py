"""`bench recommend --minutes` on a task of the user's: what goes on, what is chosen, how it is taken up again."""

from __future__ import annotations

import errno
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.config.resolve import resolve
from bench.data import load_task
from bench.experiment.run import Outcome, run
from bench.experiment.workshop import Workshop
from bench.recommend.halving import SLACK, Halving, Rung, Trial, rungs_of
from bench.recommend.page import _nothing_to_teach, _open
from bench.record.store import Store
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from bench.system.files import cannot_write
from bench.system.progress import Reporter
from bench.training.job import NonFiniteLoss
from tests.conftest import invoke, start
from tests.paper_tables.conftest import declared
from tests.records import altered, make_record

TASK = """
name: chats
metrics: [rouge_l]
prompt_columns: [chat]
response_column: summary
templates: {t5: "Summarize: {chat}"}
"""
QUICK = """
extends: tiny
models: tiny-t5
evaluation: {seeds: [10]}
data: {max_response_length: 12}
teacher_training: {steps: 8, batch_size: 8, warmup_steps: 2, validations: 1}
init_training: {steps: 4, batch_size: 8, warmup_steps: 2}
training: {steps: 12, batch_size: 8, validations: 4, checkpoint_seconds: 0.05, warmup_steps: 2}
"""
METHODS = ("sft", "kld", "rkld", "gkd", "distillm")


def words(folder: Path, *more: str) -> list[str]:
    given = ["--task", str(folder / "chats.yaml"), "--data-dir", str(folder / "data")]
    given += ["--preset", str(folder / "quick.yaml"), "--out", str(folder / "results")]
    methods = [word for name in METHODS for word in ("--method", name)]
    return ["recommend", *given, *methods, "--minutes", "5", *more]


def in_folder(folder: Path) -> Path:
    """A task of the user's with its data, and a preset whose runs take seconds."""
    (folder / "data").mkdir()
    (folder / "chats.yaml").write_text(TASK)
    (folder / "quick.yaml").write_text(QUICK)
    examples = load_task("samsum").splits
    chosen = {"train": examples["train"][:48], "validation": examples["validation"][:8]}
    chosen["test"] = [*examples["train"][:4], *examples["test"][:4]]  # half of the test prompts are trained on
    for split, found in chosen.items():
        rows = [{"chat": one.prompt, "summary": one.references[0]} for one in found]
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def pages(folder: Path) -> list[Path]:
    return list((folder / "results" / "recommend").glob("*/choice.md"))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, cache):
    """A folder in which a suite was made, and what the command says of it."""
    folder = in_folder(tmp_path_factory.mktemp("halving"))
    result = invoke(*words(folder), "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_the_best_on_validation_go_on_and_the_best_of_all_is_chosen(chosen):
    _, found = chosen
    first, second, last = found["rungs"]
    assert [(rung["step"], len(rung["scores"])) for rung in found["rungs"]] == [(3, 5), (6, 4), (12, 2)]
    assert first["scores"].keys() == set(METHODS)
    for rung, following in ((first, second), (second, last)):
        kept = sorted(rung["scores"], key=rung["scores"].get, reverse=True)[: len(following["scores"])]
        assert rung["kept"] == kept
        assert following["scores"].keys() == set(kept)
    assert found["method"] == max(last["scores"], key=last["scores"].get)
    assert (found["untried"], found["failed"]) == ([], {})


def test_the_finished_runs_are_those_that_bench_run_makes(chosen, tmp_path):
    folder, found = chosen
    store = Store(folder / "results")
    assert {record.run_id for record in store.all()} == set(found["runs"].values())
    record = store.finished(found["runs"][found["method"]])
    config, method = resolve(
        preset=str(folder / "quick.yaml"),
        task=str(folder / "chats.yaml"),
        data_dir=str(folder / "data"),
        method=found["method"],
    )
    workshop = Workshop(
        ArtifactCache(tmp_path / "cache", lambda note: None), Reporter(Console(stderr=True), quiet=True)
    )
    plain = run(config, method, Store(tmp_path), workshop).record
    assert (plain.run_id, plain.scores, plain.validations) == (record.run_id, record.scores, record.validations)
    assert record.training.resumes > 0  # so that its time is not taken for one run alone


def test_the_page_explains_the_choice_and_loads_the_student(chosen):
    folder, found = chosen
    text = Path(found["page"]).read_text()
    assert pages(folder) == [Path(found["page"])]
    assert f"**{found['method']}** had the best ROUGE-L" in text
    assert all(f"| {method} |" in text for method in METHODS)
    assert "One training seed a method" in text
    assert "- Noted of the runs: 4 distinct prompts of test also in train\n" in text
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    names: dict[str, object] = {}
    exec(code, names)
    assert names["model"].num_parameters() > 0
    assert names["tokenizer"]("a chat")["input_ids"]


def test_a_student_above_its_teacher_is_told():
    high, low = (make_record("kld", "samsum", mean=mean)[0].plain()["scores"] for mean in (40.0, 20.0))
    kld = altered(make_record("kld", "samsum")[0], teacher_scores=high, init_scores=low, scores=high)
    assert list(_nothing_to_teach({"kld": kld})) == []
    (told,) = _nothing_to_teach({"kld": altered(kld, teacher_scores=low, init_scores=high)})
    assert told.startswith("On test, the init student (")
    (told,) = _nothing_to_teach({"kld": kld, "sft": kld})
    assert told.startswith("On test, sft (")
    assert "there is nothing to distil" in told


def test_the_same_command_makes_nothing_again(chosen):
    folder, found = chosen
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "runs").glob("*/*.json")}
    again = invoke(*words(folder), "--json")
    assert json.loads(again.stdout) == found
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_recorded_runs_are_found_by_the_task_file(chosen):
    folder, found = chosen
    words = ["--task", str(folder / "chats.yaml"), "--preset", str(folder / "quick.yaml")]
    asked = invoke("recommend", *words, "--out", str(folder / "results"), "--json")
    assert {one["method"] for one in json.loads(asked.stdout)["methods"]} == found["runs"].keys()


def test_tables_and_claims_take_the_users_task(chosen, monkeypatch):
    folder, found = chosen
    command = declared(monkeypatch)
    given = ["--task", folder / "chats.yaml", "--preset", folder / "quick.yaml", "--out", folder / "results"]
    shown = command("tables", "main", *given)
    assert shown.exit_code == 0, shown.output
    assert "main: 2 of 13 cells from 2 runs" in shown.stdout
    assert f"--task {folder / 'chats.yaml'}" in shown.stdout  # what makes the others
    judged = json.loads(command("claims", *given, "--json").stdout)
    assert {run for one in judged for c in one["comparisons"] for run in c["runs"]} <= set(found["runs"].values())


def test_time_that_is_up_is_told(cache, tmp_path):
    folder = in_folder(tmp_path)
    result = invoke(*words(folder, "--minutes", "0.001", "--set", "init_training.steps=7"))
    assert (result.exit_code, pages(folder)) == (1, [])
    assert "the same command goes on from the last checkpoint" in result.stderr


def test_a_student_without_student_outputs_is_told():
    for phi, told in ((0.0, True), (0.5, False)):
        record = make_record("distillm", "samsum", phi=phi)[0]
        rungs = [Rung(40, {"distillm": trial(3.0)}, ("distillm",))]
        lines = list(_open(halving(60), rungs, {"distillm": Outcome(record, Path("none"), False)}))
        assert any(line.startswith("distillm: in its one run φ stayed 0") for line in lines) is told


@pytest.mark.parametrize(
    ("methods", "total", "validations", "plan"),
    [
        (17, 180, 8, [(22, 17), (45, 9), (90, 5), (180, 2)]),
        (17, 1000, 20, [(100, 17), (150, 10), (250, 6), (500, 4), (1000, 2)]),
        (5, 12, 4, [(3, 5), (6, 4), (12, 2)]),
        (2, 12, 4, [(12, 2)]),
        (1, 12, 4, [(12, 1)]),
        (9, 2, 1, [(2, 9)]),
    ],
)
def test_rungs(methods, total, validations, plan):
    assert rungs_of(methods, total, validations) == plan


def halving(minutes: float, **fields) -> Halving:
    contenders = {name: resolve(preset="tiny", task="samsum", method=name) for name in METHODS}
    console = Console(stderr=True)
    return Halving(
        contenders, Store(Path("none")), Path("none"), minutes, time.monotonic(), console, quiet=True, **fields
    )


def trial(score: float, step_seconds: float = 1.0) -> Trial:
    return Trial("run", 10, 40, score, step_seconds, 0.0, 0.0, 1.0, None, Path("none"))


def test_as_many_go_on_as_there_is_time_for():
    trials = {"sft": trial(3.0), "kld": trial(2.0), "gkd": trial(1.0, 100.0), "rkld": trial(0.5)}
    plan = [(10, 4), (20, 2), (40, 2)]
    assert halving(60)._kept(trials, plan) == ("sft", "kld")
    short = halving(SLACK * 35 / 60)
    assert halving(SLACK * 45 / 60)._kept(trials, plan) == ("sft", "kld")  # one of which may train whole
    assert short._kept(trials, plan) == ("sft",)
    assert short.cut == [10]
    with pytest.raises(
        BenchError, match=r"training sft whole takes about 0\.6 minutes more\. Give --minutes 1 or more"
    ):
        halving(0.1)._kept(trials, plan)
    trials = {"sft": trial(3.0, 2.4)}  # 1.1 minutes after 1.4: as many again are not enough
    late = halving(2)
    late.began -= 84
    with pytest.raises(
        BenchError, match=r"--minutes 2 is too little: .* about 1\.3 minutes more\. Give --minutes 3 or"
    ):
        late._kept(trials, plan)
    halving(3)._kept(trials, plan)


def test_a_method_that_breaks_down_is_left_out_and_those_without_time_are_named(monkeypatch):
    suite, tried, takes = halving(60), [], [0.0]

    def one(self, title, config, method, until):
        tried.append(config.method.name)
        self.began -= takes[0]
        if config.method.name == "gkd":
            raise NonFiniteLoss.__new__(NonFiniteLoss, "the loss is nan")
        return replace(trial(float(len(tried))), step=until)

    monkeypatch.setattr(Halving, "_tried", one)
    monkeypatch.setattr(Halving, "_plan", lambda self: [(10, 5), (40, 2)])
    monkeypatch.setattr(Halving, "_finished", lambda self, name, trial: name)
    rungs, outcomes = suite.run()
    assert "gkd" in suite.failed
    assert tried[:5] != list(METHODS)  # drawn, not as they were given
    assert set(tried[:5]) == set(METHODS)
    assert list(outcomes) == list(rungs[-1].kept)
    for seconds, minutes, untried in ((10.0, 1.0, 3), (25.0, 2.5, 2)):  # no time to train the best, half is over
        takes[0] = seconds
        suite = halving(minutes)
        suite.run()
        assert len(suite.untried) == untried


def test_a_full_disk_is_no_fault_of_the_method_under_way(monkeypatch):
    def one(self, title, config, method, until):
        raise cannot_write(Path("cache"), OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(Halving, "_tried", one)
    monkeypatch.setattr(Halving, "_plan", lambda self: [(10, 5), (40, 2)])
    suite = halving(60)
    with pytest.raises(BenchError, match="No space left"):
        suite.run()
    assert not suite.failed


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_as_if_nothing_had_been(chosen, tmp_path):
    _, found = chosen
    folder, cache = in_folder(tmp_path), tmp_path / "cache"
    process = start(*words(folder), cache=cache)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("rung/*/"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert pages(folder) == []
    done = {path: path.stat().st_mtime_ns for path in cache.glob("rung/*/trial.json")}
    assert len(done) >= 2
    process = start(*words(folder), "--json", cache=cache)
    told, _ = process.communicate(timeout=60)
    again = json.loads(told)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for rung, other in zip(again["rungs"], found["rungs"], strict=True):
        assert (rung["scores"], rung["kept"]) == (other["scores"], other["kept"])
    assert not list((folder / "results" / "recommend").glob("*/chats-*"))
