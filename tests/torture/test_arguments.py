"""Every option and argument of every command, with values that nobody meant: an answer or one message, no traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.record.store import Store
from bench.system.errors import BenchError
from tests.records import make_record

VALUES = {
    "empty": "",
    "blank": " ",
    "absent": "no/such/path",
    "folder": "a-folder",
    "file": "a-file",
    "fifo": "a-fifo",
    "binary": "a-binary",
    "minus": "-1",
    "zero": "0",
    "nan": "nan",
    "1e400": "1e400",
    "huge": "99999999999999999999",
    "long": "x" * 5000,
    "newline": "a\nb",
    "markup": "[red]x[/x]",
    "emoji": ":star:",
    "climbing": "../../x",
    "escape": "\x1b[31mred",
    "lone surrogate": "\udcff",
    "comma": ",",
    "yaml": "{a: [1, 2",
    "alias": "&a [*a]",
}
ENOUGH = {
    "run": ["--dry-run"],
    "suite": ["table1", "--dry-run"],
    "judge": ["dolly-kld", "--dry-run"],
    "show": ["dolly-kld"],
}
ENOUGH |= {"compare": ["dolly-kld", "dolly-sft"], "list": ["runs"], "pack": ["--to", "packed"], "tables": ["1"]}
ENOUGH |= {
    "plan": ["--no-calibrate"],
    "figures": ["6"],
    "make-teachers": ["dolly"],
    "claims": ["near-kd-time"],
    "verify": [],
}
ENOUGH |= {"tune": ["--methods", "kld", "--dry-run"], "recommend": ["--task", "dolly", "--minutes", "1"]}
"""What each command needs beside the value that is tried, to be quick and do no work."""


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of the tree of commands that takes a value."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Argument) or not getattr(parameter, "is_flag", False):
                yield name, parameter


def with_value(name: str, parameter: click.Parameter, value: str) -> list[str]:
    """A command line that gives the value to the parameter."""
    if isinstance(parameter, click.Option):
        return [name, *ENOUGH.get(name, []), parameter.opts[0], value]
    return [name, *[word for word in ENOUGH.get(name, []) if word.startswith("--")], "--", value]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with two records, and one thing of each kind; nothing that is started here does real work."""
    folder = tmp_path / "a" / "place"  # so deep that what climbs two folders stays in this test's own
    folder.mkdir(parents=True)
    for method in ("kld", "sft"):
        Store(folder / "results").write(*make_record(method))
    (folder / "a-folder").mkdir()
    (folder / "a-file").write_text("a line\n")
    (folder / "a-binary").write_bytes(bytes(range(256)))
    os.mkfifo(folder / "a-fifo")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))

    def stopped(*arguments: object, **options: object) -> None:
        raise BenchError("real work would begin here")

    monkeypatch.setattr("bench.experiment.shipped_models.make_models", stopped)
    monkeypatch.setattr("bench.cli.perf._measured", stopped)
    monkeypatch.setattr("bench.recommend.halving.Halving.run", stopped)
    monkeypatch.setattr("bench.experiment.planning.plan.make_plan", stopped)
    return folder


def ended(arguments: list[str], seconds: int = 20) -> Result:
    """A command in this process that may not hang."""

    def hangs(*_: object) -> None:
        raise TimeoutError(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wrong_with(result: Result) -> str:
    """What is wrong with the end of a command; empty if nothing is."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {str(result.exception)[:200]}"
    if result.exit_code not in (0, 2) or "Traceback" in result.output or "Aborted" in result.output:
        return f"exit code {result.exit_code}: {result.output[-300:]}"
    if result.exit_code == 2 and not result.stderr.strip():
        return "no message"
    if "\x1b[31mred" in result.output or "⭐" in result.output:
        return "what was typed is sent to the terminal as markup"
    return ""


@pytest.mark.parametrize(
    ("name", "parameter"), list(parameters()), ids=lambda it: it if isinstance(it, str) else it.opts[0]
)
def test_a_value_nobody_meant(name, parameter, place: Path):
    wrong = []
    for kind, value in VALUES.items():
        found = wrong_with(ended(with_value(name, parameter, value)))
        if found:
            wrong.append(f"{kind}: {found}")
    assert not list(place.parent.glob("x")), "wrote outside"
    assert not wrong, "\n".join(wrong)
