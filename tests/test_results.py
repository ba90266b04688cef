"""What is published in results/ follows from the records beside it, to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from bench.store import Store
from paper_tables.claims import judge
from paper_tables.figures.catalogue import FROM_RUNS, file_of
from paper_tables.figures.drawn import NothingToDraw
from paper_tables.make import make_tables
from paper_tables.render import FORMATS
from paper_tables.select import Library
from paper_tables.verdicts import as_markdown

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "paper-tiny"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The published records alone, in a folder of their own."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(PUBLISHED / "runs", folder / "runs")
    shutil.copytree(PUBLISHED / "measurements", folder / "measurements")
    return folder


def refuse(message: str) -> None:
    raise AssertionError(message)


def test_every_record_can_be_read_and_was_made_from_a_commit():
    records = list(Store(PUBLISHED, refuse).all())
    assert len(records) == 168
    for record in records:
        assert record["environment"]["git"]["commit"]
        assert record["environment"]["git"]["changed"] is False
    assert {record["config"]["seed"] for record in records} == {10, 20, 30}


def test_tables_follow_from_the_records(out):
    list(make_tables(Store(out, refuse), (), forms=tuple(FORMATS), preset="tiny", warn=refuse))
    made = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    published = {path.name: path.read_bytes() for path in (PUBLISHED / "tables").iterdir()}
    assert made.keys() == published.keys()
    assert [name for name in made if made[name] != published[name]] == []


def test_verdicts_follow_from_the_records(out):
    judged = list(judge(Library(Store(out, refuse), "tiny"), out))
    assert as_markdown(judged, "tiny") + "\n" == (PUBLISHED / "claims.md").read_text(encoding="utf-8")


def test_what_figures_show_follows_from_the_records(out):
    library = Library(Store(out, refuse), "tiny")
    for name, draw in FROM_RUNS.items():
        path = PUBLISHED / "figures" / f"{file_of(name, 'tiny')}.csv"
        try:
            drawn = draw(library)
        except NothingToDraw:
            assert not path.exists()
        else:
            plt.close(drawn.figure)
            made = drawn.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
            assert made == path.read_text(encoding="utf-8"), name
