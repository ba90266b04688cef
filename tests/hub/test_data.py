"""Data sets by hub id: which records make which split, in the paper's prompts, and the commit they are of."""

from __future__ import annotations

import pytest

from bench.data import TASKS, load_task
from bench.data.task import HubSource
from tests.hub.contents import CONTENTS, named_by_the_package
from tests.hub.datasets_of import DEVELOPMENT, PARQUET, RAW, TEST, instruction
from tests.hub.server import Hub, commit_of


def test_the_hub_has_all_that_shipped_pairs_and_tasks_name():
    assert named_by_the_package() <= CONTENTS.keys()


def test_dolly_is_read_in_minillms_split_with_the_four_other_sets(fresh_hub: Hub):
    data = load_task("dolly", hub=True)
    sizes = {split: len(examples) for split, examples in data.splits.items()}
    assert sizes == {
        "train": RAW - DEVELOPMENT,
        "validation": DEVELOPMENT,
        "test": TEST,
        "selfinst": 8,
        "vicuna": 8,
        "sinst": 8,
        "uinst": 10_000,
    }
    assert [data.label(split) for split in ("selfinst", "vicuna", "sinst", "uinst")] == [
        "SelfInst",
        "Vicuna",
        "S-NI",
        "UnNI",
    ]
    for split, number, row in (
        ("validation", 0, instruction(0, "raw")),
        ("train", 0, instruction(DEVELOPMENT, "raw")),
        ("train", 1, instruction(DEVELOPMENT + 1, "raw")),
        ("test", 1, instruction(1, "valid", several=True)),
        ("sinst", 4, instruction(4, "sinst 11_", several=True)),
        ("uinst", 9999, instruction(9999, "uinst 11_", several=True)),
    ):
        example = data.splits[split][number]
        assert example.prompt == row["prompt"]
        output = row["output"]
        assert example.references == (tuple(output) if isinstance(output, list) else (output,))
    for name in ("MiniLLM/dolly", "MiniLLM/self-inst", "MiniLLM/Vicuna", "MiniLLM/sinst", "MiniLLM/uinst"):
        assert f"{name}@{commit_of('datasets', name, 'main')}" in data.source
    assert not [line for line in fresh_hub.requests if "/resolve/" in line and "0_2" in line], "only what is read"


def test_iwslt_comes_from_the_converted_branch(hub: Hub):
    data = load_task("iwslt", hub=True)
    assert data.source == f"hub IWSLT/iwslt2017@{commit_of('datasets', 'IWSLT/iwslt2017', PARQUET)}"
    first = data.splits["validation"][0]
    assert (first.prompt, first.references) == (
        "translate English to German: I see 0 cats in validation.",
        ("Ich sehe 0 Katzen in validation.",),
    )
    assert {split: len(examples) for split, examples in data.splits.items()} == {
        "train": 40,
        "validation": 12,
        "test": 12,
    }


def test_samsum_is_read_as_datasets_finds_it(hub: Hub):
    data = load_task("samsum", hub=True)
    assert data.source == f"hub knkarthick/samsum@{commit_of('datasets', 'knkarthick/samsum', 'main')}"
    assert data.splits["test"][3].references == ("Ann has 3 apples.",)
    assert data.splits["test"][3].prompt == 'summarize: Ann: I have 3 apples in test.\nBen: "Nice", I say.'


@pytest.mark.parametrize(
    ("task", "file", "text", "reference"),
    [
        ("dolly", "valid.jsonl", '{"instruction": "New?", "input": "", "output": "Yes."}\n', "Yes."),
        ("samsum", "test.csv", "id,dialogue,summary\n1,Hello.,A greeting.\n", "A greeting."),
    ],
)
def test_a_revision_is_read_as_it_was(fresh_hub: Hub, task, file, text, reference):
    spec = TASKS[task].model_copy(update={"evaluation_only": ()})
    name = spec.hub_sources[0].id
    first = commit_of("datasets", name, "main")
    old = load_task(spec, hub=True)
    fresh_hub.publish("datasets", name, {file: text})
    new = load_task(spec, hub=True)
    assert [example.references for example in new.splits["test"]] == [(reference,)]
    pinned = load_task(spec, hub=f"{name}@{first}")
    assert pinned.fingerprint() == old.fingerprint() != new.fingerprint()
    assert pinned.source == f"hub {name}@{first}"


def test_the_revision_may_stand_in_the_id():
    assert HubSource(id="a/b@v1").model_dump(include={"id", "revision"}) == {"id": "a/b", "revision": "v1"}
    with pytest.raises(ValueError, match="stands twice"):
        HubSource(id="a/b@v1", revision="v2")
    with pytest.raises(ValueError, match="validation and test missing"):
        HubSource(id="a/b", files={"train": "a.jsonl"})


def test_a_task_file_from_before_keeps_its_identity():
    """Fields that were added later are no part of it where they are not used."""
    spec = TASKS["samsum"]
    assert "files" not in spec.model_dump()["hub"]
    assert all(
        "hub" not in one
        for one in TASKS["dolly"].model_copy(update={"evaluation_only": ()}).model_dump()["evaluation_only"]
    )
