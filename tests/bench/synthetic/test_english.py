"""The generated English data: same everywhere, disjoint splits, right shapes and right English."""

import hashlib
import json
import os
import re
import subprocess
import sys
from random import Random

import pytest

from bench.synthetic import dolly, plain_text, samsum
from bench.synthetic.lexicon import (
    capitalise,
    gerund,
    listing,
    participle,
    past,
    plural,
    realise,
    third_person,
    with_article,
)
from bench.synthetic.splits import SHARES, owner
from bench.synthetic.world import entities

SMALL_TEACHER = {"teacher_train": 3000}
DIGEST_CODE = """
import hashlib, json
from bench.synthetic import dolly, plain_text, samsum
data = [dolly.generate(3), samsum.generate(3), plain_text.generate(20, 3)]
print(hashlib.sha256(json.dumps(data).encode()).hexdigest())
"""


def _all(module):
    return {**module.generate(), **module.generate(splits=("teacher_train",), sizes=SMALL_TEACHER)}


@pytest.fixture(scope="module")
def dolly_data():
    return _all(dolly)


@pytest.fixture(scope="module")
def samsum_data():
    return _all(samsum)


def _prompt(record):
    return record["dialogue"] if "dialogue" in record else f"{record['instruction']}\n{record['context']}"


def _answer(record):
    return record["summary"] if "dialogue" in record else record["response"]


def _data(request, task):
    return request.getfixturevalue(f"{task}_data")


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_same_data_in_another_process_whatever_the_hash_seed(hash_seed):
    data = [dolly.generate(3), samsum.generate(3), plain_text.generate(20, 3)]
    here = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST_CODE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


@pytest.mark.parametrize("module", [dolly, samsum])
def test_seed_changes_the_prompts_and_splits_do_not_depend_on_each_other(module):
    alone = module.generate(1, splits=("test",))["test"]
    assert alone == module.generate(1)["test"]
    assert alone != module.generate(2, splits=("test",))["test"]


@pytest.mark.parametrize("module", [dolly, samsum])
def test_unknown_split_is_an_error(module):
    with pytest.raises(KeyError):
        module.generate(splits=("dev",))


@pytest.mark.parametrize(("task", "module"), [("dolly", dolly), ("samsum", samsum)])
def test_sizes_and_ids(request, task, module):
    data = _data(request, task)
    for split, records in data.items():
        assert len(records) == {**module.SIZES, **SMALL_TEACHER}[split]
        assert len({record["id"] for record in records}) == len(records)


@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_no_prompt_is_in_two_splits_or_twice_in_one(request, task):
    prompts = [_prompt(record) for records in _data(request, task).values() for record in records]
    assert len(set(prompts)) == len(prompts)


def test_training_shares_of_any_two_seeds_never_meet_the_test_share():
    assert sorted(bucket for share in SHARES.values() for bucket in share) == list(range(100))
    for module in (dolly, samsum):
        for split in ("train", "test"):
            records = module.generate(9, splits=(split,), sizes={split: 50})[split]
            assert {owner(_prompt(record)) for record in records} == {split}


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
            assert 4 <= len(turns) <= samsum.MAX_TURNS
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


@pytest.mark.parametrize(
    ("inflect", "word", "form"),
    [
        (with_article, "apple", "an apple"),
        (with_article, "hour", "an hour"),
        (with_article, "useful comb", "a useful comb"),
        (with_article, "uniform", "a uniform"),
        (with_article, "honest umbrella", "an honest umbrella"),
        (with_article, "unusual bell", "an unusual bell"),
        (with_article, "ugly drum", "an ugly drum"),
        (plural, "cherry", "cherries"),
        (plural, "monkey", "monkeys"),
        (plural, "mouse", "mice"),
        (plural, "fisherman", "fishermen"),
        (plural, "fox", "foxes"),
        (plural, "wolf", "wolves"),
        (plural, "dairy product", "dairy products"),
        (third_person, "are made of oak", "is made of oak"),
        (third_person, "have a weight", "has a weight"),
        (third_person, "catch herring", "catches herring"),
        (third_person, "carry bags", "carries bags"),
        (third_person, "play sonatas", "plays sonatas"),
        (past, "steal", "stole"),
        (past, "repair", "repaired"),
        (past, "drop", "dropped"),
        (past, "carry", "carried"),
        (past, "pump up the wheel", "pumped up the wheel"),
        (past, "sew on a patch", "sewed on a patch"),
        (participle, "break", "broken"),
        (participle, "hide", "hidden"),
        (participle, "wrap", "wrapped"),
        (gerund, "sit down", "sitting down"),
        (gerund, "tie knots", "tying knots"),
        (gerund, "race down slopes", "racing down slopes"),
        (gerund, "boil water", "boiling water"),
    ],
)
def test_morphology(inflect, word, form):
    assert inflect(word) == form


def test_templates():
    forms = {realise(Random(seed), "[a|b[c|d]] {x}", {"x": "[1|2]"}) for seed in range(40)}
    assert forms == {"a [1|2]", "bc [1|2]", "bd [1|2]"}
    with pytest.raises(ValueError, match="unbalanced"):
        realise(Random(0), "[a|b")
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert capitalise("ok. see you") == "Ok. See you"
