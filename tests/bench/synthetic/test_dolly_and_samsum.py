"""The data of Dolly and SAMSum: same everywhere, disjoint splits, right shapes, answers that agree with the world."""

import os
import re
import subprocess
import sys

import pytest

from bench.synthetic import generate, plain_text
from bench.synthetic.dolly import records as dolly
from bench.synthetic.dolly.records import SIZES as DOLLY_SIZES
from bench.synthetic.samsum import records as samsum
from bench.synthetic.samsum.records import MAX_TURNS
from bench.synthetic.samsum.records import SIZES as SAMSUM_SIZES
from bench.synthetic.splits import SHARES, may_hold
from bench.synthetic.world.entities import entities

SMALL_TEACHER = {"teacher_train": 3000}
SIZES = {"dolly": DOLLY_SIZES | SMALL_TEACHER, "samsum": SAMSUM_SIZES | SMALL_TEACHER}
SAME_DATA = """
import hashlib, json
from bench.synthetic import generate, plain_text
sets = ("selfinst", "vicuna", "sinst", "uinst")
data = [generate("dolly", ("train", "validation", "test", *sets), 3)]
data += [generate("samsum", ("train", "validation", "test"), 3), plain_text.generate(20, 3)]
print(hashlib.sha256(json.dumps(data).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def dolly_data():
    return {split: dolly.generate(split, 0, size) for split, size in SIZES["dolly"].items()}


@pytest.fixture(scope="module")
def samsum_data():
    return {split: samsum.generate(split, 0, size) for split, size in SIZES["samsum"].items()}


def _prompt(record):
    return record["dialogue"] if "dialogue" in record else f"{record['instruction']}\n{record['context']}"


def _answer(record):
    return record["summary"] if "dialogue" in record else record["response"]


def _data(request, task):
    return request.getfixturevalue(f"{task}_data")


@pytest.mark.slow
def test_same_data_in_another_process_whatever_the_hash_seed():
    digests = set()
    for hash_seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", SAME_DATA], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_seed_changes_the_prompts_and_splits_do_not_depend_on_each_other(task):
    alone = generate(task, ("test",), 1)["test"]
    assert alone == generate(task, ("train", "test"), 1)["test"]
    assert alone != generate(task, ("test",), 2)["test"]


@pytest.mark.parametrize("module", [dolly, samsum])
@pytest.mark.parametrize("size", [None, 5])
def test_unknown_split_is_an_error(module, size):
    with pytest.raises(KeyError):
        module.generate("dev", size=size)


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_sizes_and_ids(request, task):
    for split, records in _data(request, task).items():
        assert [record["id"] for record in records] == [f"{split}-{n}" for n in range(SIZES[task][split])]


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_no_prompt_is_in_two_splits_or_twice_in_one(request, task):
    prompts = [_prompt(record) for records in _data(request, task).values() for record in records]
    assert len(set(prompts)) == len(prompts)


def test_training_shares_of_any_two_seeds_never_meet_the_test_share():
    assert sorted(bucket for share in SHARES.values() for bucket in share) == list(range(100))
    for module in (dolly, samsum):
        for split in ("train", "test"):
            records = module.generate(split, 9, 50)
            assert all(may_hold(split, _prompt(record)) for record in records)


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_lengths(request, task):
    for records in _data(request, task).values():
        words = [len(_answer(record).split()) for record in records]
        assert max(words) <= 37
        assert 18 <= sum(words) / len(words) <= 30
        assert max(len(_prompt(record).split()) for record in records) <= 80


def test_dialogues_have_four_to_eight_named_turns(samsum_data):
    for records in samsum_data.values():
        for record in records:
            turns = [line.split(": ", 1) for line in record["dialogue"].split("\n")]
            assert 4 <= len(turns) <= MAX_TURNS
            assert all(len(turn) == 2 and turn[1] for turn in turns)
            assert 2 <= len({name for name, _ in turns}) <= 3


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_open_lexicon(request, task):
    text = " ".join(f"{_prompt(record)} {_answer(record)}" for record in _data(request, task)["train"])
    assert len(set(re.findall(r"[a-z]+", text.lower()))) >= 1000


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_references_differ_and_start_with_the_answer(request, task):
    for split, records in _data(request, task).items():
        for record in records:
            assert ("references" in record) == (split not in ("train", "teacher_train"))
            if "references" in record:
                assert record["references"][0] == _answer(record)
                assert len(set(record["references"])) == len(record["references"]) >= 2


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_answers_depend_on_the_prompt(request, task):
    answers = [_answer(record) for record in _data(request, task)["train"]]
    assert len(set(answers)) > 0.97 * len(answers)


def test_no_slot_or_bracket_is_left_and_every_sentence_is_closed(dolly_data, samsum_data):
    for data in (dolly_data, samsum_data):
        for records in data.values():
            for record in records:
                texts = [_prompt(record), _answer(record), *record.get("references", [])]
                assert not any(set(text) & set("[]{}|") or "  " in text for text in texts), texts
                assert _answer(record)[-1] in ".?"
                assert _answer(record)[0].isupper()


def test_summaries_state_the_final_decision(samsum_data):
    changed = 0
    for record in samsum_data["train"]:
        found = re.search(r"let us say (\d+ [ap]m)", record["dialogue"])
        if found:
            changed += 1
            assert found[1] in record["summary"]
    assert changed > 10


def test_every_knowledge_answer_agrees_with_the_world(dolly_data):
    weights = {animal.name: animal.facts["weight"] for animal in entities("animal")}
    records = [r for r in dolly_data["train"] if r["instruction"].startswith("Sort these animals by weight")]
    assert records
    for record in records:
        names = record["instruction"].split(": ")[1].rstrip(".").split(", ")
        assert all(weights[name].split()[0] in record["response"].split() for name in names)


def test_out_of_distribution_wordings_are_not_those_of_training(dolly_data):
    def openings(split):
        return {" ".join(record["instruction"].split()[:2]) for record in dolly_data[split]}

    styles = {split: openings(split) for split in ("train", "selfinst", "vicuna", "sinst", "uinst")}
    assert not styles["sinst"] & styles["train"]
    assert not styles["uinst"] & styles["train"]
    assert not styles["vicuna"] & styles["selfinst"]


def test_plain_text_has_as_many_paragraphs_as_asked():
    paragraphs = plain_text.generate(200, 0)
    assert len(set(paragraphs)) == 200
    assert paragraphs[:50] == plain_text.generate(50, 0)
    assert all(len(paragraph.split()) >= 20 for paragraph in paragraphs)
