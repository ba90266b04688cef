"""Sets that were evaluated before a process was killed: read back whole, or named and made again."""

from __future__ import annotations

import gzip

import pytest

from bench.config.sections import EvaluationConfig
from bench.data import Example
from bench.evaluation.evaluate import EvaluationSet, evaluate
from bench.metrics.registry import find_metrics
from bench.models.sampling import Decoding
from tests.tiny import sequences

DAMAGE = {
    "cut": lambda data: data[:-5],
    "flipped": lambda data: data[:40] + bytes([data[40] ^ 2]) + data[41:],
    "empty": lambda data: b"",
    "rows are missing": lambda data: gzip.compress(gzip.decompress(data).split(b"\n", 1)[1]),
    "no text": lambda data: gzip.compress(b"\xff\n"),
    "other rows": lambda data: gzip.compress(b"1\n" * 6),
    "a folder": None,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_part_is_named_and_made_again(how, make_job, tmp_path):
    model = make_job("llama").student
    asked = sequences(3, 1)
    sets = [EvaluationSet("test", tuple(Example(s.id, "prompt", ("a",)) for s in asked), asked)]
    config, notes, told = EvaluationConfig(seeds=[10, 20]), [], []

    def evaluated():
        told.clear()
        metrics, decoding = find_metrics(("exact_match",)), Decoding(4)
        return evaluate(model, sets, metrics, config, decoding, tmp_path, lambda *a: told.append(a), notes.append)

    rows = evaluated()
    assert (len(rows), bool(told)) == (6, True)
    assert evaluated() == rows
    assert not told, "read back"
    part = tmp_path / "test.jsonl.gz"
    data = part.read_bytes()
    part.unlink()
    if how == "a folder":
        part.mkdir()
    else:
        part.write_bytes(DAMAGE[how](data))
    assert not notes
    assert evaluated() == rows
    assert told, "made again"
    assert len(notes) == 1
    assert str(part) in notes[0]
    assert "damaged" in notes[0]
