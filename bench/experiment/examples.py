"""The examples that a configuration stands for."""

from __future__ import annotations

from pathlib import Path

from bench.config.resolve import PLAIN_TEXT_FOLDERS
from bench.config.sections import Config, DataConfig
from bench.data import TaskData, TaskSpec, find_task, load_task
from bench.data.readers import Progress
from bench.system.errors import BenchError


def require_real(data: DataConfig, task: str) -> None:
    """Refuse synthetic data where the configuration wants none.

    Raises:
        BenchError: neither a folder nor the hub is given; says what to add.
    """
    if not data.is_real and not data.synthetic:
        raise BenchError(
            f"{task}: this preset is for real data, and none is given: add --data-dir FOLDER (files train, validation "
            f"and test, or a folder of them for each task, such as FOLDER/{task}), or --set data.hub=true; a try on "
            "synthetic data: --set data.synthetic=true"
        )


def check_pretraining_text(config: Config) -> None:
    """Refuse a pretraining of the student without text.

    Raises:
        BenchError: real data, and no plain text beside it.
    """
    given, data = config.student_pretraining, config.data
    if given is not None and given.file is None and (data.is_real or not data.synthetic):
        names = " or ".join(f"{data.dir or 'DATA_DIR'}/{name}" for name in PLAIN_TEXT_FOLDERS)
        raise BenchError(
            f"student_pretraining: there is no plain text to pretrain the student on: no folder {names}; give a file "
            "or folder with --set student_pretraining.file=PATH (.txt, a paragraph a line, or records with a column "
            "'text'), or take the student as it is: --set student_pretraining=null"
        )


def examples_of(task: TaskSpec | str, data: DataConfig, progress: Progress | None = None) -> TaskData:
    """Load a task, or the task of a name or file, as a configuration's section `data` says.

    Raises:
        BenchError: there is no such task, or the data is missing or malformed.
    """
    spec = find_task(task) if isinstance(task, str) else task
    require_real(data, spec.name)
    sizes = {"train": data.max_train, "validation": data.max_validation}
    tests = ("test", *spec.evaluation_sets)
    return load_task(
        spec,
        data_dir=Path(data.dir) if data.dir else None,
        hub=data.hub,
        train_file=Path(data.train_file) if data.train_file else None,
        test_file=Path(data.test_file) if data.test_file else None,
        template=data.template,
        drop_overlap=data.drop_overlap,
        limits=sizes | dict.fromkeys(tests, data.max_test),
        seed=data.seed,
        progress=progress,
    )
