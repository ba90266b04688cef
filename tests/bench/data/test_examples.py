"""The synthetic data and the real data sets through `load_task`; formats and errors are in test_load.py."""

from itertools import combinations
from pathlib import Path

import pytest

from bench.data import SPLITS, TASKS, DataError, TaskData, load_task

REAL = Path(__file__).parents[4] / "shared" / "data"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"real data sets not found in {REAL}")


def sizes(data: TaskData) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


# of the data that the shipped models were trained on, and that recorded runs were made from
FINGERPRINTS = {
    "dolly": "dcbc84e91ffae71d9953d7ee42d7fa57d04c12b1c57e8aa2f6454e7b7c59f563",
    "samsum": "c51b19576f8f0da73440675dc9417a79880d49de1118397327953823e23e7a9b",
    "iwslt": "8c49aba68902b6de772b41cf85947ccb802b0973e08c0909a44aef19c6997b1c",
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_synthetic_data_is_deterministic_disjoint_and_complete(name: str) -> None:
    data = load_task(name)
    assert data.source == "synthetic (seed 0)"
    assert tuple(data.splits) == (*SPLITS, *TASKS[name].evaluation_sets)
    assert data.fingerprint() == load_task(name).fingerprint() == FINGERPRINTS[name]
    assert data.fingerprint() != load_task(name, seed=1).fingerprint()
    assert all(data.overlap[f"{a}+{b}"] == 0 for a, b in combinations(SPLITS, 2))
    assert not any("skipped" in note or "made unique" in note for note in data.notes)


# --- the real data -------------------------------------------------------------------------------------------------


@real_data
def test_real_samsum() -> None:
    # counted on stripped dialogues; on exact ones the overlaps are the same and the repeats in train are 476
    data = load_task("samsum", data_dir=REAL)
    assert sizes(data) == {"train": 14_731, "validation": 818, "test": 819}
    assert "train: 1 record without dialogue skipped (id 13828807)" in data.notes
    assert data.overlap == {"train+validation": 47, "train+test": 42, "validation+test": 4}
    assert "train: 478 of 14731 records repeat the prompt of an earlier one" in data.notes


@real_data
def test_real_dolly_with_its_evaluation_sets() -> None:
    data = load_task("dolly", data_dir=REAL)
    assert sizes(data) == {
        "train": 11_435, "validation": 1_000, "test": 500, "selfinst": 242, "vicuna": 80, "sinst": 1_694, "uinst": 1_050
    }  # fmt: skip
    assert data.labels == {"selfinst": "SelfInst", "vicuna": "Vicuna", "sinst": "S-NI", "uinst": "uinst-short"}
    shared = (data.overlap["train+validation"], data.overlap["train+test"], data.overlap["validation+test"])
    assert shared == (25, 8, 1)
    assert max(len(example.references) for example in data.splits["sinst"]) > 1
    assert sizes(load_task("dolly", data_dir=REAL / "dolly")) == {"train": 11_435, "validation": 1_000, "test": 500}


@real_data
def test_real_iwslt_has_no_training_set_but_takes_one() -> None:
    with pytest.raises(DataError, match=r"no train file for iwslt.*--set data\.train_file=PATH"):
        load_task("iwslt", data_dir=REAL)
    train_file = REAL / "multi30k_en_de" / "train.jsonl.gz"
    data = load_task("iwslt", data_dir=REAL, train_file=train_file)
    assert sizes(data) == {"train": 29_000, "validation": 888, "test": 8_079}
    assert data.overlap["validation+test"] == 3


@real_data
def test_real_tatoeba_and_multi30k() -> None:
    tatoeba = load_task("iwslt", data_dir=REAL / "tatoeba_en_de")
    assert sizes(tatoeba) == {"train": 167_860, "validation": 868, "test": 830}
    assert set(tatoeba.overlap.values()) == {0}
    folder = REAL / "multi30k_en_de"
    with pytest.raises(DataError, match=r"4 files for test: test_2016_flickr"):
        load_task("iwslt", data_dir=folder)
    multi30k = load_task("iwslt", data_dir=folder, test_file=folder / "test_2016_flickr.jsonl.gz")
    assert multi30k.overlap == {"train+validation": 1, "train+test": 0, "validation+test": 0}
