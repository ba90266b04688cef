"""Imported once by the process that all others are forked from: what a run needs, and the data it reads.

Nothing is trained here: a fork of a process that has run a backward pass cannot run one.
"""

import accelerate  # noqa: F401
import sacrebleu.metrics  # noqa: F401
import transformers.models.marian.modeling_marian  # noqa: F401

import bench.cli.run
import bench.experiment.run
import bench.judge.session
import bench.models.loading
import bench.system.console  # noqa: F401
from bench.data import load_task

for task in ("dolly", "iwslt"):
    load_task(task)
