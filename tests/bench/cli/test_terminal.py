"""What is printed is data: no markup, no escape sequence, no traceback where the output takes no more."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from bench.cli.doctor import Finding
from bench.recommend.halving import Halving
from bench.record.store import Store
from bench.system import terminal
from bench.system.progress import Reporter
from tests.conftest import invoke
from tests.records import make_record, write_record

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "[red]r[/red] [/x] :star: \x1b[31mred\x9b2J\u202e"
SHOWN = "[red]r[/red] [/x] :star: \\x1b[31mred\\x9b2J\\u202e"


@pytest.fixture
def out(tmp_path):
    """Runs whose texts are hostile, beside folders that hold no record."""
    for method, seed in (("distillm", 10), ("kld", 10)):
        record, rows = make_record(method, "dolly", seed)
        metrics = [one.model_copy(update={"label": f"ROUGE-L{HOSTILE}"}) for one in record.metrics]
        data = record.data.model_copy(update={"notes": [HOSTILE], "source": HOSTILE})
        Store(tmp_path).write(record.model_copy(update={"metrics": metrics, "data": data}), rows)
    (tmp_path / "runs" / "a folder" / "record.json").mkdir(parents=True)
    (tmp_path / "runs" / "a pipe").mkdir()
    os.mkfifo(tmp_path / "runs" / "a pipe" / "record.json")
    (tmp_path / "runs" / HOSTILE.replace("/", "|") / "work").mkdir(parents=True)
    return tmp_path


def test_texts_of_records_are_shown_as_they_are(out):
    runs = sorted(path.name for path in (out / "runs").glob("dolly-*"))
    listed = invoke("list", "runs", "--out", str(out))
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:3]] == runs
    assert SHOWN.replace("/", "|") in listed.stdout
    assert listed.stderr.count("skipped") == 2
    shown = invoke("show", runs[0], "--out", str(out))
    assert f"ROUGE-L{SHOWN} on dolly" in shown.stdout
    for result in (listed, shown, invoke("compare", *runs, "--out", str(out))):
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x9b", "\u202e"} & set(result.output)
    as_json = invoke("show", runs[0], "--json", "--out", str(out))
    assert json.loads(as_json.stdout)["data"]["notes"] == [HOSTILE]
    assert not {"\x1b", "\x9b", "\u202e"} & set(as_json.stdout)


def test_live_progress_takes_nothing_for_markup(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    monkeypatch.setenv("TERM", "xterm")
    console = terminal.console(err=True)
    reporter = Reporter(console, title=HOSTILE)
    with reporter.session(["data"]), reporter.stage("data"):
        reporter.note(HOSTILE)
        reporter.progress(1, 2, HOSTILE)
    with console.status(HOSTILE) as status:
        status.update(HOSTILE)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    assert f"note: {SHOWN}" in screen.getvalue()
    assert "\x1b[31mred" not in screen.getvalue()
    assert "\x9b" not in screen.getvalue()


def bench(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.cli", *arguments]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, cwd=ROOT, check=False, **options)


def test_an_output_that_takes_no_more_ends_in_a_word(tmp_path):
    def no_room() -> None:  # the system then refuses writes as a full disk does
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    with (tmp_path / "full").open("w") as full:
        done = bench("list", "methods", stdout=full, preexec_fn=no_room)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "standard output cannot be written: File too large" in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = bench("list", "methods", "--json", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_ascii_only():
    done = bench("list", "methods", stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_a_lost_standard_error_costs_no_work(monkeypatch):
    class Lost(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Lost())
    reporter = Reporter(terminal.console(err=True))
    with reporter.session(["data"]), reporter.stage("data"):
        reporter.note("nobody reads this")
    assert reporter.notes == ["nobody reads this"]


def test_nothing_else_prints():
    """All output goes through `bench.system.terminal`."""
    allowed = {"bench/system/terminal.py", "bench/system/console.py"}
    for package in ("bench", "paper_tables", "baselines", "distillm"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.relative_to(ROOT).as_posix() not in allowed:
                found = [
                    word
                    for word in ("click.echo(", " print(", "rich.print", "Console(", "Progress(console")
                    if word in text
                ]
                assert not found, f"{path}: {found}"


def test_a_command_in_a_text_is_not_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    runs = [write_record(tmp_path, "kld", "samsum", seed=seed) for seed in (10, 20)]
    told = invoke("compare", *(run.run_id for run in runs), "--out", str(tmp_path)).stdout
    assert "bench compare --task TASK METHOD METHOD" in told
    asked = invoke("claims", "--task", "samsum", "--out", str(tmp_path)).stdout.splitlines()
    assert "bench suite table1 --task samsum --models tiny-t5" in asked
    advice = [Finding("optional", "extra energy", "not installed", "for energy: pip install 'distillm-bench[energy]'")]
    monkeypatch.setattr("bench.cli.doctor.examine", lambda *given: advice)
    assert "pip install 'distillm-bench[energy]'" in invoke("doctor").stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "runs"], "interrupted\n"),
        (["recommend", "--task", "dolly"], "interrupted\n"),
        (
            ["recommend", "--task", "dolly", "--minutes", "1"],
            "interrupted; the same command goes on from the last checkpoint\n",
        ),
    ],
)
def test_only_what_keeps_something_promises_to_go_on(words, told, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "all", interrupted)
    monkeypatch.setattr(Halving, "run", interrupted)
    result = invoke(*words, "--out", str(tmp_path))
    assert result.exit_code == 130
    assert result.stderr.endswith(told)
