"""Processes that are killed at moments of every phase: the same command again ends in the same numbers."""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from pathlib import Path

import pytest

from bench.record.record import RunRecord
from bench.record.store import Store
from tests.conftest import invoke, short, start
from tests.judge_server import judge_server
from tests.judged_runs import write_run
from tests.torture.conftest import ROUNDS
from tests.torture.processes import Moment, bench, moments

# a few steps, with a checkpoint at each, a buffer in use and a best model that changes
OPTIONS = short(
    training__steps=8,
    training__checkpoint_seconds=1e-9,
    init_training__steps=4,
    init_training__checkpoint_seconds=1e-9,
    data__max_train=32,
    data__max_response_length=16,
    sgo__capacity=16,
    sgo__initial_phi=0.8,
    sgo__rollouts=16,
    evaluation__seeds="[10,20]",
)
SAME = ("run_id", "scores", "init_scores", "teacher_scores", "validations", "curve", "comparison_key")
ENDINGS = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143, 130), signal.SIGINT: (130,)}
METHODS = {
    "sft": [],
    "srkl": ["--sgo", "mixed"],
    "distillm": [],
    "imitkd": ["--init", "sft"],
    "gkd": ["--init", "pretrained"],
    "minillm": [],
    "seqkd": [],
}


def command(out: Path, method: str) -> list[str]:
    return ["run", "--method", method, "--task", "iwslt", "--out", str(out), "--json", *METHODS[method], *OPTIONS]


def made(out: Path, stdout: str, *, whole: bool = True) -> dict[str, object]:
    """All that must not depend on kills: the record's numbers; of the `whole` the texts and the student, too."""
    record = RunRecord.model_validate_json(stdout)
    folder = out / "runs" / record.run_id
    files = [folder / "predictions.jsonl.gz", folder / "student" / "model.safetensors"]
    return {key: getattr(record, key) for key in SAME} | {path.name: path.read_bytes() for path in files if whole}


class Killed:
    """A run below `folder` that is killed again and again; told of what came before if it ever ends in anything else.

    Every end, early or late, must be that of a run nobody disturbs.
    """

    def __init__(self, folder: Path, method: str) -> None:
        self.folder, self.out, self.cache = folder, folder / "out", folder / "cache"
        self.command = command(self.out, method)
        self.told: list[str] = []
        self.kills = 0
        self.left: list[Path] = []  # unfinished files beside a finished run
        self.expected = self.finish()
        self.moments = moments(self.cache)
        self.begin_again()

    def begin_again(self) -> None:
        shutil.rmtree(self.out)
        shutil.rmtree(self.cache)

    def finish(self) -> dict[str, object]:
        ended = bench(*self.command, cache=self.cache, before=Moment(self.folder))
        assert ended.code == 0, f"{self.told[-5:]}\n{ended}"
        self.left += [path for folder in (self.out, self.cache) for path in folder.rglob("*") if _unfinished(path)]
        return made(self.out, ended.stdout)

    def check_end(self) -> None:
        assert self.finish() == self.expected, self.told
        assert not self.left, self.told

    def kill(self, at: int | str, by: signal.Signals) -> None:
        ended = bench(*self.command, cache=self.cache, before=Moment(self.folder, at, by))
        self.told.append(f"{by.name} at {at}: exit code {ended.code}")
        assert ended.code in (0, *ENDINGS[by]), f"{self.told[-5:]}\n{ended}"
        assert "Traceback" not in ended.stderr, f"{self.told[-5:]}\n{ended}"
        self.kills += ended.code != 0
        if ended.code == 0:
            assert self.finish() == self.expected, self.told
            self.begin_again()


def _unfinished(path: Path) -> bool:
    return path.suffix in (".part", ".partial") or path.name in ("work", "failure.json")


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_random_moments(method, tmp_path, draws):
    run = Killed(tmp_path, method)
    for _ in range(3 * ROUNDS):
        run.kill(draws.randint(1, len(run.moments) // 3), draws.choice(list(ENDINGS)))
    assert run.kills > 0, run.told
    run.check_end()


def test_killed_once_at_every_kind_of_moment(tmp_path):
    """Of the method that makes most kinds of files."""
    run = Killed(tmp_path, "seqkd")
    kinds = list(dict.fromkeys(run.moments))
    for at, by in zip(kinds, itertools.cycle(ENDINGS)):
        run.kill(at, by)
    assert run.kills > len(kinds) // 2, run.told
    run.check_end()


@pytest.mark.parametrize("method", ["distillm", "minillm"])
def test_killed_by_the_clock(method, tmp_path, draws):
    """Between two files, too: in a forward pass, in a kernel."""
    run = Killed(tmp_path, method)
    for _ in range(3 * ROUNDS):
        seconds = draws.uniform(0.3, 1.5)
        bench(*run.command, cache=run.cache, kill_after=seconds)
        run.told.append(f"after {seconds:.2f} s")
    run.check_end()


def test_a_judge_killed_again_and_again_gives_the_same_judgement(tmp_path, draws):
    out, cache = tmp_path / "out", tmp_path / "cache"
    write_run(out, "sft")

    def judged() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.glob("runs/*/judged/rating*")}

    with judge_server() as server:
        command = ["judge", "dolly-sft", "--out", str(out), "--base-url", server.url, "--model", "m", "--sets", "test"]
        whole = bench(*command, cache=cache, before=Moment(tmp_path))
        assert whole.code == 0, str(whole)
        expected, count = judged(), len(moments(cache))
        for folder in (cache, *out.glob("runs/*/judged")):
            shutil.rmtree(folder)
        told = []
        for _ in range(5 * ROUNDS):
            moment = Moment(tmp_path, draws.randint(1, count // 2), draws.choice(list(ENDINGS)))
            ended = bench(*command, cache=cache, before=moment)
            told.append(f"{moment.signal.name} at {moment.at}: exit code {ended.code}")
            assert ended.code in (0, *ENDINGS[moment.signal]), f"{told}\n{ended}"
            assert "Traceback" not in ended.stderr, f"{told}\n{ended}"
        last = bench(*command, cache=cache)
        assert last.code == 0, f"{told}\n{last}"
    assert judged() == expected, told
    assert not list(tmp_path.rglob("*.part")), told


def test_a_suite_killed_again_and_again_makes_the_same_runs(tmp_path, draws):
    """Its runs are processes of their own, which outlive a suite that is killed: the next one waits for them."""
    options = ["table2", "--seeds", "10,20", "--only", "distillm-skl", *OPTIONS]
    plan = invoke("suite", *options, "--dry-run", "--out", str(tmp_path / "none"))
    assert plan.exit_code == 0, plan.output
    for name in ("whole", "killed"):
        for _ in range(0 if name == "whole" else 2 * ROUNDS):
            process = start("suite", *options, "--out", str(tmp_path / name), cache=tmp_path / f"{name}-cache")
            time.sleep(draws.uniform(4, 14))
            process.send_signal(draws.choice(list(ENDINGS)))
            process.communicate(timeout=60)
        process = start("suite", *options, "--out", str(tmp_path / name), cache=tmp_path / f"{name}-cache")
        assert process.wait(120) == 0, process.communicate()
    whole, killed = ({r.run_id: r for r in Store(tmp_path / name).all()} for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for run_id, record in whole.items():
        assert [getattr(record, key) for key in SAME] == [getattr(killed[run_id], key) for key in SAME]
