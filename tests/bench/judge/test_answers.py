"""The lock between processes that keeps a question from being asked twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from bench.judge.answers import AnswerCache, locked
from bench.judge.messages import Answer, Judge, Message
from bench.system.errors import BenchError

HOLD = """
import filelock, sys, time
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_other_tasks_run_while_a_lock_is_waited_for(tmp_path):
    order: list[str] = []

    async def holder(entered: asyncio.Event) -> None:
        async with locked(tmp_path / "a.lock"):
            entered.set()
            await asyncio.sleep(0.3)  # these go on only if the waiting task lets them
            order.append("first done")

    async def waiter(entered: asyncio.Event) -> None:
        await entered.wait()
        async with locked(tmp_path / "a.lock", poll_interval=0.01, on_wait=lambda: order.append("waiting")):
            order.append("second in")

    async def both() -> None:
        entered = asyncio.Event()
        await asyncio.wait_for(asyncio.gather(holder(entered), waiter(entered)), 30)

    asyncio.run(both())
    assert order == ["waiting", "first done", "second in"]


def test_a_killed_process_frees_its_lock_and_a_task_that_is_cancelled_takes_none(tmp_path):
    path = tmp_path / "locks" / "abc.lock"
    path.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    told: list[None] = []

    async def claim() -> None:
        async with locked(path, poll_interval=0.01, on_wait=lambda: told.append(None)):
            pass

    async def claims() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(claim(), 0.3)
        assert len(told) == 1
        process.kill()
        await asyncio.wait_for(claim(), 30)
        await asyncio.wait_for(claim(), 30)

    try:
        assert process.stdout.readline() == "held\n"
        asyncio.run(claims())
    finally:
        process.kill()
        process.communicate()


def test_a_lock_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "judge-answers").write_text("in the way", encoding="utf-8")

    async def claim() -> None:
        async with AnswerCache(tmp_path, print).claim("abcdef"):
            pass

    with pytest.raises(BenchError, match=r"cannot write .*abc\.lock"):
        asyncio.run(claim())


@pytest.mark.parametrize("how", ["changed", "cut", "empty", "deep", "another shape", "a folder"])
def test_a_damaged_answer_is_named_and_written_again(how, tmp_path):
    notes: list[str] = []
    request = Judge("m", "http://localhost/v1").request([Message(role="user", content="q")], 0, 0)
    answer = Answer(content="8 9", finish_reason="stop", model="m", received="2026-01-01", requests=1, faults={})
    AnswerCache(tmp_path, notes.append).put(request, answer)
    cache = AnswerCache(tmp_path, notes.append)
    path = cache.path(request.key)
    text = path.read_text()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    else:
        damaged = {
            "changed": text.replace("8 9", "9 9"),
            "cut": text[:-9],
            "empty": "",
            "deep": "[" * 100_000,
            "another shape": '{"answer": [1]}',
        }
        path.write_text(damaged[how])
    assert cache.get(request.key) is None
    assert len(notes) == 1
    assert f"{path} is damaged" in notes[0]
    cache.put(request, answer)
    assert AnswerCache(tmp_path, notes.append).get(request.key) == answer
    assert len(notes) == 1
