"""Every file that a run leaves on disk, damaged: the same numbers afterwards, or an error that names the file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bench.record.store import Store
from tests.records import make_record
from tests.torture.conftest import ROUNDS
from tests.torture.processes import Moment, bench, moments
from tests.torture.test_arguments import ended, wrong_with
from tests.torture.test_kills import command, made

DAMAGES = ("flipped", "cut", "emptied", "deleted", "a folder")
STATES = {
    "an artifact's training": "os.rename /cache/init-student/*.partial/work/.step.*part",
    "an artifact all but finished": "os.rename /cache/init-student/*.partial",
    "training": "os.rename /out/runs/*/work/.step.*part",
    "evaluation": "open /out/runs/*/.predictions.jsonl.gz.*part",
}
"""Where the run is killed: at the last moment of such a name."""


def damage(path: Path, how: str, draws: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped" and data:
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how in ("deleted", "a folder"):
        path.unlink()
        if how == "a folder":
            path.mkdir()
            (path / "file").write_text("something")


def damaged(folder: Path, work: Path, draws: random.Random) -> Iterator[tuple[Path, str]]:
    """Copies of a folder, each with one file damaged: every file in two ways."""
    names = [
        path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"
    ]
    for name in names:
        for how in draws.sample(DAMAGES, min(len(DAMAGES), 2 * ROUNDS)):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(folder, work)
            damage(work / name, how, draws)
            yield name, how


@pytest.mark.parametrize("state", [*STATES, "finished"])
def test_the_command_that_goes_on_after_damage(state, tmp_path, draws):
    work = tmp_path / "work"
    out, cache = work / "out", work / "cache"
    again = command(out, "distillm")
    whole = bench(*again, cache=cache, before=Moment(work))
    assert whole.code == 0, str(whole)
    expected, passed = made(out, whole.stdout, whole=state != "finished"), moments(cache)
    if state != "finished":
        shutil.rmtree(work)
        at = max(number for number, name in enumerate(passed, start=1) if fnmatch(name, STATES[state]))
        assert bench(*again, cache=cache, before=Moment(work, at)).code == -9
    shutil.rmtree(work / "logs")
    work.rename(tmp_path / "state")
    wrong = []
    for name, how in damaged(tmp_path / "state", work, draws):
        process = bench(*again, cache=cache)
        named = name.name in process.stderr or f"{name.parent}: Is a directory" in process.stderr
        if process.code == 2 and "Traceback" not in process.stderr and named:
            continue
        if process.code != 0 or "Traceback" in process.stderr:
            wrong.append(f"{name} {how}: {process}")
        elif made(out, process.stdout, whole=state != "finished") != expected:
            wrong.append(f"{name} {how}: other numbers")
    assert not wrong, "\n\n".join(wrong)


READING = [
    ["show", "dolly-kld"],
    ["list", "runs"],
    ["compare", "dolly-kld", "dolly-sft"],
    ["export"],
    ["tables", "main"],
]
READING += [["pack", "--to", "packed"], ["claims", "near-kd-time"], ["report"], ["suite", "table1", "--dry-run"]]
READING += [["judge", "dolly-kld", "--dry-run"], ["figures", "6"]]


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_command_that_reads_damaged_records(words, tmp_path, draws, monkeypatch):
    """It leaves them out with a warning, or refuses by name; what it shows is what it shows without the damage."""
    monkeypatch.chdir(tmp_path)
    for method in ("kld", "sft", "rkld"):
        Store(tmp_path / "results").write(*make_record(method))
    shutil.copytree(tmp_path / "results", tmp_path / "damaged")
    sound, wrong = ended([*words, "--out", "damaged"]), []
    for name, how in damaged(tmp_path / "results", tmp_path / "damaged", draws):
        result = ended([*words, "--out", "damaged"])
        if found := wrong_with(result):
            wrong.append(f"{name} {how}: {found}")
        elif (name.name, how) == ("record.json", "deleted"):
            continue  # then there is no run
        elif result.exit_code == 0 and result.stdout != sound.stdout and "warning" not in result.stderr:
            wrong.append(f"{name} {how}: other output, without a warning")
    assert not wrong, "\n".join(wrong)
