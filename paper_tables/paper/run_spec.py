"""A run spec: everything about a run but its preset and training seed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from bench.config.presets import read_preset
from bench.config.registry import methods
from bench.config.resolve import resolve
from bench.config.sections import Config
from distillm.interface import Init
from paper_tables.paper.methods import OUTPUT_SOURCES


@dataclass(frozen=True)
class RunSpec:
    """What a cell of a table shows the runs of. `options` are `--set KEY=VALUE` beyond the method's and the preset's.

    Two equal specs are the same runs, whichever tables they stand in. A task of the user's has its `task_file`, and two
    models that were given directly are the `pair`, teacher first.
    """

    method: str
    task: str
    output_source: str
    init_student: Init
    models: str
    options: tuple[str, ...] = ()
    task_file: str | None = None
    pair: tuple[str, str] | None = None

    def config(self, preset: str, seed: int | None = None) -> Config:
        """The configuration of its run; without a seed, at the preset's own.

        Raises:
            BenchError: an option that no configuration takes.
        """
        config, _ = resolve(
            preset=preset,
            task=self.task_file or self.task,
            method=self.method,
            models=None if self.pair else self.models,
            teacher=self.pair[0] if self.pair else None,
            student=self.pair[1] if self.pair else None,
            sgo=self.output_source,
            init=self.init_student,
            seed=seed,
            assignments=self.options,
        )
        return config

    def command(self, preset: str, seed: int, settings: tuple[str, ...] = ()) -> str:
        """The command that makes its run, with more `--set KEY=VALUE`; what is the default anyway is left out."""
        words = ["bench", "run", "--method", self.method, "--task", self.task_file or self.task, "--preset", preset]
        if self.output_source != methods()[self.method].source:
            words += ["--sgo", self.output_source]
        if self.init_student != default_init(preset, self.method):
            words += ["--init", self.init_student]
        if self.pair:
            words += ["--teacher", self.pair[0], "--student", self.pair[1]]
        elif self.models != default_models(preset, self.task):
            words += ["--models", self.models]
        words += ["--seed", str(seed)]
        return shlex.join([*words, *(part for option in (*self.options, *settings) for part in ("--set", option))])


def default_init(preset: str, method: str) -> Init:
    """The init student that `bench run` takes for a method under a preset."""
    return read_preset(preset).init(methods()[method])


def default_models(preset: str, task: str) -> str:
    """The model pair that `bench run` takes for a task under a preset."""
    return read_preset(preset).models(task)


def default_run(
    preset: str, method: str, task: str = "dolly", output_source: str | None = None, *options: str
) -> RunSpec:
    """The run of a method where nothing else is said: its own output source, the preset's init student and models."""
    return RunSpec(
        method,
        task,
        output_source or OUTPUT_SOURCES[method],
        default_init(preset, method),
        default_models(preset, task),
        options,
    )
