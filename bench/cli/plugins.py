"""Sub-commands of installed packages: a command group that finds them by entry point and loads one when it is used."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

from bench.system.errors import BenchError
from bench.system.extensions import loaded

ENTRY_POINTS = "distillm_bench.commands"


class CommandGroup(click.Group):
    """A group whose own commands stand beside those that packages declare; its own come first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all sub-commands."""
        return sorted({*super().list_commands(ctx), *_declared()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A sub-command by name; a declared one is imported here."""
        own = super().get_command(ctx, cmd_name)
        point = _declared().get(cmd_name)
        if own is not None or point is None:
            return own
        where, command = loaded(point)
        if not isinstance(command, click.Command):
            raise BenchError(f"{where}: expected a click command, got {type(command).__name__}")
        return command


def _declared() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
