"""Files of judgements: earlier ones are read with the same content; what is none is refused, with the wrong field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.judge.protocol import Outcome
from bench.judge.results import read, write
from bench.record.read import Unreadable

FILES = sorted(Path(__file__).with_name("judgements").glob("*.json"))
"""Two judgements of a run by the local server of these tests, made before they were typed."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_earlier_file_is_read_whole_and_written_back_byte_for_byte(path, tmp_path):
    judgement = read(path)
    assert judgement.plain() == json.loads(path.read_text(encoding="utf-8"))
    again = write(tmp_path, judgement, [])
    assert again.name == path.name, "the name hashes what was judged and how"
    assert again.read_bytes() == path.read_bytes()


def test_both_protocols_are_typed():
    pairwise, rating = map(read, FILES)
    assert (pairwise.protocol, rating.protocol) == ("pairwise", "rating")
    assert (pairwise.judge.model, pairwise.judge.max_tokens, pairwise.judge.temperature) == ("m", 64, 0.0)
    for judgement in (pairwise, rating):
        for result in judgement.results.values():
            assert sum(result.outcomes.values()) == result.items
            assert result.score.low < result.score.value < result.score.high
    one = pairwise.results["test"]
    assert one.wins + one.ties + one.losses == one.outcomes[Outcome.SCORED] == 6
    assert one.flagged.by_pattern_against == {"asks for a rating": 1}
    assert one.position_bias.first_minus_second is one.agreement_of_orders.spearman is None
    one = rating.results["test"]
    assert one.wins is one.flagged.by_pattern_against is one.position_bias.first_preferred is None
    assert one.readings.outcomes[Outcome.REFUSED] == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-20], "invalid json"),
        (lambda text: "[]", "not a judgement of bench judge"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema: input should be 1"),
        (lambda text: text.replace('"items": 8', '"items": "many"'), r"results\.\w+\.items: "),
        (lambda text: text.replace('"repeats"', '"repetitions"'), "repeats: field required"),
        (lambda text: text.replace('"unparsable": ', '"odd": '), r"results\.test\.outcomes\.odd"),
    ],
)
def test_what_is_no_judgement_is_refused_with_the_wrong_field(change, said, tmp_path):
    path = tmp_path / "rating-m.json"
    path.write_text(change(FILES[0].read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(Unreadable, match=said):
        read(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(Unreadable, match="No such file"):
        read(tmp_path / "rating-m.json")


def test_a_number_that_changed_on_disk_is_not_read(tmp_path):
    judgement = read(FILES[0])
    path = write(tmp_path, judgement, [])
    assert read(path) == judgement
    path.write_text(path.read_text().replace('"answers": ', '"answers": 1', 1))
    with pytest.raises(Unreadable, match="changed since it was written"):
        read(path)
    assert read(write(tmp_path, judgement, [])) == judgement
