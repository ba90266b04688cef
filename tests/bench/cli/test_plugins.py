"""Commands of installed packages stand beside the built-in ones."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import click
import pytest

import bench.cli.plugins
from tests.conftest import invoke


@click.command()
def hello() -> None:
    """Say hello."""
    click.echo("hello")


NO_COMMAND = 5


@pytest.fixture
def declared(monkeypatch):
    def declare(value: str, name: str = "hello") -> None:
        point = EntryPoint(name, value, bench.cli.plugins.ENTRY_POINTS)
        monkeypatch.setattr(bench.cli.plugins, "entry_points", lambda group: [point])

    return declare


def test_a_declared_command_is_listed_and_run(declared):
    declared(f"{__name__}:hello")
    assert "Say hello." in invoke("--help").output
    assert invoke("hello").output == "hello\n"


def test_a_built_in_command_keeps_its_name(declared):
    declared(f"{__name__}:hello", name="doctor")
    assert "Check what is installed" in invoke("doctor", "--help").output


@pytest.mark.parametrize(
    "value", [f"{__name__}:NO_COMMAND", "no.such.module:hello", f"{__name__}:nothing", "leaves_at_once:hello"]
)
def test_a_broken_one_is_named(declared, value, tmp_path, monkeypatch):
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    declared(value)
    result = invoke("hello")
    assert result.exit_code == 2
    assert value in result.stderr
    assert invoke("list", "tasks").exit_code == 0
