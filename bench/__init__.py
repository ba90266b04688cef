"""The harness: configuration, data, the one training loop, evaluation, records, and the command `bench`."""

from importlib.metadata import version

__version__ = version("distillm-bench")
