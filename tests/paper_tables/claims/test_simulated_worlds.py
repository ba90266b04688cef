"""Worlds with known truth as recorded runs, through the real command: a sample of `tests.simulate_statistics`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.records import rouge_rows, write_record
from tests.simulate_statistics import Truth, drawn

METHODS = ("srkl", "kld", "rkld", "jsd")
SETS = ("sinst", "uinst")
SEEDS = (10, 20, 30, 40, 50)
CLAIM = "srkl-beats-unskewed"  # SRKL above the three others, on both sets


def told(folder, command, truth: Truth, number: int) -> dict:
    """What `bench claims` says of the claim in one world, whose arms are drawn anew for each set."""
    worlds = {name: drawn(truth, np.random.default_rng([number, place])) for place, name in enumerate(SETS)}
    for place, method in enumerate(METHODS):
        for at, seed in enumerate(SEEDS):
            scores = {name: arms[place].values[at][None].repeat(2, 0) for name, arms in worlds.items()}
            write_record(folder, method, seed=seed, rows=rouge_rows(scores), init="sft")
    result = command("claims", CLAIM, "--json", "--out", folder)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    return found


@pytest.mark.slow
def test_the_command_finds_what_is_true_and_is_seldom_wrong(tmp_path, command):
    even = (1.0,) * len(METHODS)
    verdicts: dict[float, list[str]] = {}
    covered = []
    for gap, worlds in ((0.0, 10), (4.0, 3), (-4.0, 3)):
        truth = Truth(seeds=len(SEEDS), gap=gap, uneven=even)
        for number in range(worlds):
            found = told(tmp_path / f"{gap}-{number}", command, truth, number)
            verdicts.setdefault(gap, []).append(found["verdict"])
            assert [len(one["runs"]) for one in found["comparisons"]] == [2 * len(SEEDS)] * 6
            covered += [one["low"] <= truth.lead <= one["high"] for one in found["comparisons"]]
    assert "reproduced" not in verdicts[0.0]
    assert verdicts[0.0].count("not reproduced") <= 2, "5 % of many worlds"
    assert verdicts[4.0] == ["reproduced"] * 3
    assert verdicts[-4.0] == ["not reproduced"] * 3
    assert len(covered) == 6 * 16
    assert np.mean(covered) >= 0.9, "95 % of many"
