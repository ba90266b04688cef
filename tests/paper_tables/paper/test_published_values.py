"""What counts as published: values with source and confidence, nothing from memory, reproductions kept apart."""

from __future__ import annotations

import re

import pytest

from paper_tables.paper.ablations import find_table
from paper_tables.paper.published_values import (
    FOLDER,
    in_conflict,
    of_cell,
    published,
    reproductions,
    source_tags,
    sources,
)
from paper_tables.paper.tables import TABLE_NAMES
from paper_tables.tables.published_view import published_view
from tests.conftest import shared

GPT2 = "gpt2-xl-to-gpt2"
VALUES = [value for name in TABLE_NAMES for value in published(name)]
REPRODUCTIONS = [value for name in TABLE_NAMES for value in reproductions(name)]


def test_only_values_of_high_or_medium_confidence_are_published():
    assert VALUES
    assert {value.confidence for value in VALUES} == {"H", "M"}
    assert all(value.source for value in VALUES)


def test_every_value_is_a_number_and_its_source_is_explained():
    for value in (*VALUES, *REPRODUCTIONS):
        assert 0 < value.number < 100
        assert not value.sd or float(value.sd) > 0
    assert set(source_tags([*VALUES, *REPRODUCTIONS])) == set(sources())


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_published_values_belong_to_rows_and_columns_of_their_table(name):
    one = find_table(name, "paper")
    columns = {column.name for column in one.columns} | {"time", "gpt4-dolly", "gpt4-selfinst"}
    assert {value.row for value in published(name)} <= {row.name for row in one.rows}
    assert {value.column for value in published(name)} <= columns
    assert {value.column for value in reproductions(name)} <= columns


def test_what_is_not_known_is_absent():
    assert not published("3")
    assert not published("5")
    assert {value.row for value in published("1")} == {"kld", "skl", "srkl"}
    skews = {(value.row, value.column) for value in published("1") if value.row != "kld"}
    assert skews == {(row, column) for row in ("skl", "srkl") for column in ("sinst", "uinst")}
    assert {(value.row, value.column) for value in published("2")} == {
        ("skl-on-policy", "dolly"),
        ("skl-adaptive", "dolly"),
    }
    assert "imitkd" not in {value.row for value in published("4")}
    assert [v.column for v in published("main") if v.row == "distillm" and v.models == GPT2] == ["dolly"]


def test_the_conflict_of_table_4_is_the_only_one_and_shows_both_values():
    def conflicts(name):
        return [v for v in published(name) if in_conflict(of_cell(published(name), v.models, v.row, v.column))]

    found = [(name, value) for name in TABLE_NAMES for value in conflicts(name)]
    assert [(name, v.row, v.column, v.text, v.source) for name, v in found] == [
        ("4", "distillm", "on-policy", "26.12", "D2"),
        ("4", "distillm", "on-policy", "26.37", "N2"),
    ]
    assert all("conflict" in v.note for _, v in found)


def test_only_cells_in_conflict_are_flagged():
    frames = [published_view(find_table(name, "paper")).frame for name in TABLE_NAMES]
    flagged = [row for frame in frames for row in frame.to_dict("records") if row["conflict"]]
    assert [(row["table"], row["row"], row["column"], row["value"]) for row in flagged] == [
        ("4", "distillm", "on-policy", "26.12"),
        ("4", "distillm", "on-policy", "26.37"),
    ]
    twice = of_cell(published("4"), GPT2, "distillm", "off-policy") * 2
    assert not in_conflict(twice)


def test_third_party_reproductions_stand_apart():
    assert {"ABKD", "WASD", "POCL", "CARE", "MMKD"} <= set(source_tags(REPRODUCTIONS))
    assert all(not value.confidence for value in REPRODUCTIONS)
    assert not {"ABKD", "WASD", "POCL", "MMKD", "CSD"} & set(source_tags(VALUES))
    # the task-specific values are another paper's, and DistiLLM's own rows in CARE are reproductions
    assert [value.text for value in reproductions("3")] == ["52.1", "35.5"]
    assert {v.text for v in of_cell(REPRODUCTIONS, GPT2, "distillm", "dolly")} == {"24.86", "25.10", "25.32"}


def test_every_number_stands_in_the_compilation_outside_what_is_from_memory():
    text = shared("reference", "paper.md").read_text(encoding="utf-8")
    known, _, memory = text.partition("## 10.")
    assert "From memory" in memory
    written = set(re.findall(r"\d+\.\d+", known))
    for value in (*VALUES, *REPRODUCTIONS):
        if value.column == "time" and value.source == "ABKD":
            first, second = re.findall(r"\d+\.\d+", value.note)[:2]  # computed from two numbers that stand there
            assert {first, second} <= written
            assert value.number == pytest.approx(float(first) / float(second), abs=0.005)
        else:
            assert value.text in written, value
            assert not value.sd or value.sd in written, value


def test_the_files_are_plain():
    for path in FOLDER.iterdir():
        data = path.read_bytes()
        assert b"\r" not in data
        assert data.endswith(b"\n")
