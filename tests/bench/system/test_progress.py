"""What a run shows: a live table on a terminal, lines elsewhere, nothing when quiet."""

import io
import re

import pytest
from rich.console import Console

from bench.system import progress as display
from bench.system.progress import Reporter

NAMES = ["data", "training", "evaluation"]


def reporter(*, terminal: bool = False, quiet: bool = False) -> tuple[Reporter, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    return Reporter(console, quiet=quiet, title="srkl on dolly"), shown


def run_stages(report: Reporter, fail: str | None = None) -> None:
    with report.session(NAMES):
        for name in NAMES:
            with report.stage(name):
                if name == fail:
                    raise RuntimeError("it broke")
                report.progress(1, 4, "loss 2.500")
                report.progress(4, 4, "loss 1.250")
                report.note(f"seen in {name}")


def last_table(text: str) -> dict[str, str]:
    """Mark of each stage in the table printed last."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    table = plain[plain.rindex("srkl on dolly") :]
    return dict(re.findall(rf"([·▸✓✗])\s+({'|'.join(NAMES)})", table)[i][::-1] for i in range(len(NAMES)))


def test_plain_output_is_lines():
    report, shown = reporter()
    run_stages(report)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "srkl on dolly"
    assert "\x1b" not in shown.getvalue()
    for name in NAMES:
        assert f"note: seen in {name}" in lines
        assert any(re.fullmatch(rf"{name}: done in \d+\.\d s", line) for line in lines)
    assert len(lines) == 1 + 2 * len(NAMES)


def test_plain_progress_comes_at_intervals(monkeypatch):
    monkeypatch.setattr(display, "PLAIN_SECONDS", -1.0)
    report, shown = reporter()
    run_stages(report)
    assert re.search(r"training: 4/4, .*/s.*, loss 1\.250", shown.getvalue())


def test_text_in_brackets_is_shown_as_it_is():
    report, shown = reporter()
    with report.session(NAMES):
        report.note("path [bold]/[x] is odd")
    assert "note: path [bold]/[x] is odd" in shown.getvalue()


def test_quiet_shows_nothing_and_keeps_the_notes():
    for terminal in (False, True):
        report, shown = reporter(terminal=terminal, quiet=True)
        run_stages(report)
        assert shown.getvalue() == ""
        assert report.notes == [f"seen in {name}" for name in NAMES]


def test_a_terminal_ends_with_all_stages_done_and_the_notes():
    report, shown = reporter(terminal=True)
    run_stages(report)
    text = shown.getvalue()
    assert last_table(text) == dict.fromkeys(NAMES, "✓")
    end = text[text.rindex("srkl on dolly") :]
    assert all(f"note: seen in {name}" in end for name in NAMES)
    assert "loss 1.250" in end


@pytest.mark.parametrize("terminal", [False, True])
def test_a_failed_stage_is_marked(terminal):
    report, shown = reporter(terminal=terminal)
    with pytest.raises(RuntimeError, match="it broke"):
        run_stages(report, fail="training")
    assert [stage.state for stage in report.stages] == ["done", "failed", "waiting"]
    assert "training: done" not in shown.getvalue()
    if terminal:
        assert last_table(shown.getvalue()) == {"data": "✓", "training": "✗", "evaluation": "·"}


def test_a_note_after_the_table_is_still_shown():
    report, shown = reporter(terminal=True)
    run_stages(report)
    report.note("afterwards")
    assert "note: afterwards" in shown.getvalue()


def test_the_rate_of_a_resumed_stage_is_its_own(monkeypatch):
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    report, _ = reporter()
    with report.session(NAMES), report.stage("training"):
        now = 110.0
        report.progress(91, 100)  # the first 90 were done by an earlier process
        stage = report.stages[1]
        assert stage.rate == pytest.approx(0.1)
        assert stage.left == pytest.approx(90)
        now = 120.0
        report.progress(100, 100)
        assert stage.left == 0


def test_a_stage_of_several_pieces_takes_as_long_as_all_of_them_and_rates_are_each_pieces_own(monkeypatch):
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    report, shown = reporter()
    with report.session(NAMES), report.stage("training"):
        now = 110.0
        report.progress(10, 10)  # say, of the init student's fine-tuning
        report.progress(1, 50)  # and of its evaluation
        now = 112.0
        report.progress(5, 50)
        assert report.stages[1].rate == pytest.approx(2.5)
    assert "training: done in 12.0 s" in shown.getvalue()
