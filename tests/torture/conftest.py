"""What is drawn, and how much of it: the variables TORTURE_SEED (0 unless set) and TORTURE_ROUNDS (1)."""

from __future__ import annotations

import os
import random

import pytest

SEED = int(os.environ.get("TORTURE_SEED", "0"))
ROUNDS = int(os.environ.get("TORTURE_ROUNDS", "1"))


@pytest.fixture
def draws(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test's own: the same at each run of the suite with the same TORTURE_SEED."""
    return random.Random(f"{SEED} {request.node.nodeid.partition('::')[2]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder is `torture`."""
    for item in items:
        if "tests/torture/" in item.path.as_posix():
            item.add_marker(pytest.mark.torture)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say with a failure what repeats it."""
    if report.failed:
        report.sections.append(("repeat", f"TORTURE_SEED={SEED} TORTURE_ROUNDS={ROUNDS} pytest '{report.nodeid}'"))
