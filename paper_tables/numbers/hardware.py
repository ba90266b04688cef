"""What times were measured on, in words; captions of tables and figures say it alike."""

from __future__ import annotations

from bench.system.manifest import Environment


def hardware_in_words(environment: Environment) -> str:
    """Device, processor and CPU threads, such as "cpu (AMD EPYC, 1 thread)"."""
    threads = f"{environment.threads} thread{'' if environment.threads == 1 else 's'}"
    return f"{environment.device_name} ({environment.cpu}, {threads})"
