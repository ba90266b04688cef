"""The targets of `bench perf` beside what records say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.perf.record import read, write
from paper_tables import performance

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "perf"


@pytest.fixture
def results(tmp_path):
    """The shipped whole record, and a later one of two commands."""
    whole = max((read(path) for path in SHIPPED.glob("*.json")), key=lambda record: len(record.parts))
    of_commands = [one for one in whole.comparisons if one.name == "tables of the published runs"]
    many = of_commands[0].model_copy(update={"name": "tables of 2,000 runs"})
    later = {"started": whole.started.replace(year=2099), "parts": ["commands"], "quick": False}
    write(whole, tmp_path)
    write(whole.model_copy(update={**later, "comparisons": [*of_commands, many]}), tmp_path)
    return tmp_path


def test_a_figure_is_of_the_record_with_the_most_parts_that_has_it(results):
    rows = {line.split(" | ")[0]: line for line in performance.section(results).splitlines()}
    assert rows["| tables of the published runs"].endswith("| 1 |  |")
    assert rows["| tables of 2,000 runs"].endswith("| 2 |  |")
    assert rows["| report of 5,000 runs"].endswith("|  | not measured |")
    text = performance.section(results)
    assert "2. `bench perf --only commands` on 2099-" in text
    assert "On a GPU: no record." in text


def test_without_a_record_nothing_is_missed(tmp_path):
    assert performance.missed(tmp_path, "cpu") == []
    assert performance.section(tmp_path).startswith("On a CPU: no record.")
