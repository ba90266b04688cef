"""Every file that a run leaves on disk, damaged: the same numbers afterwards, or an error that names the file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.record.store import Store
from tests.conftest import invoke
from tests.records import make_record
from tests.torture.conftest import ROUNDS
from tests.torture.processes import Moment, bench, moments
from tests.torture.test_kills import command, made

DAMAGES = ("flipped", "cut", "emptied", "deleted", "a folder")
STATES = {
    "an artifact's training": "os.rename /cache/init-student/#.partial/work/.step.#.part",
    "an artifact all but finished": "os.rename /cache/init-student/#.partial",
    "training": "os.rename /out/runs/{}/work/.step.#.part",
    "evaluation": "open /out/runs/{}/.predictions.jsonl.gz.#.part",
}
"""Where the run is killed: the last moment of this name; the rest is what it has to go on from."""


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
    expected, passed = made(out, whole.stdout), moments(cache)
    if state != "finished":
        names = [path.name for path in out.glob("runs/*")]
        wanted = STATES[state].replace("{}", "iwslt-distillm-adaptive-off-policy-s#-#")
        assert names, wanted
        shutil.rmtree(work)
        at = len(passed) - passed[::-1].index(wanted)
        assert bench(*again, cache=cache, before=Moment(work, at)).code == -9
    shutil.rmtree(work / "logs")
    work.rename(tmp_path / "state")
    wrong = []
    for name, how in damaged(tmp_path / "state", work, draws):
        ended = bench(*again, cache=cache)
        if ended.code == 2 and "Traceback" not in ended.stderr and name.name in ended.stderr:
            continue
        if ended.code != 0 or "Traceback" in ended.stderr:
            wrong.append(f"{name} {how}: {ended}")
        elif made(out, ended.stdout) != expected:
            wrong.append(f"{name} {how}: other numbers")
    assert not wrong, "\n\n".join(wrong)
