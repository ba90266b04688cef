"""`bench verify` finds every kind of change, names its cell, and repeats a run bit for bit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.record.pack import pack
from bench.record.store import PREDICTIONS, RECORD, Store
from bench.system.files import write_sealed_json
from bench.training.job import NonFiniteLoss
from bench.training.state import TrainerState
from paper_tables.verify import rerun
from tests.conftest import record_of, short
from tests.paper_tables.conftest import declared, write_table_1

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, cache) -> Path:
    """A short run on real synthetic data, packed."""
    folder = tmp_path_factory.mktemp("ran")
    sets = short(evaluation__seeds="[10,20]", data__max_response_length=24, evaluation__metrics="[rouge_l,bleu]")
    record_of("run", "--method", "kld", "--task", "samsum", "--out", str(folder / "whole"), *sets)
    pack(Store(folder / "whole"), folder / "packed")
    return folder


@pytest.fixture(scope="module")
def derived(tmp_path_factory) -> Iterator[Path]:
    """Made-up runs of table 1 with table, verdicts, figure and report."""
    folder = write_table_1(tmp_path_factory.mktemp("derived") / "out")
    with pytest.MonkeyPatch.context() as patch:
        command = declared(patch)
        for words in (["tables", "1"], ["tables", "1", "--seeds", "10,20"], ["figures", "6"], ["report"]):
            assert command(*words, "--out", folder).exit_code == 0
        (folder / "claims.md").write_text(command("claims", "--markdown", "--out", folder).stdout)
        yield folder


@pytest.fixture
def copy(tmp_path) -> Callable[[Path], Path]:
    """A copy of a folder, to be changed."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


def checked(command, *words: object) -> tuple[int, dict]:
    """Exit code, and what `bench verify --json` finds."""
    result = command("verify", *words, "--json")
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("form", ["whole", "packed"])
def test_every_score_of_a_run_follows_from_its_texts(command, ran, form):
    code, found = checked(command, ran / form)
    assert (code, found["wrong"], found["not_checked"]) == (0, [], {})
    # eight examples, two decoding seeds, two metrics
    assert {name: found["checked"][name] for name in ("records", "example scores", "references", "scores")} == {
        "records": 1,
        "example scores": 32,
        "references": 1,
        "scores": 1,
    }


@pytest.mark.parametrize(
    ("field", "change", "columns"),
    [
        ("prediction", lambda text: "The " + text, {"bleu", "scores.test.texts"}),
        ("prediction", lambda text: text + " ", {"scores.test.texts"}),  # one that no metric sees
        ("tokens", lambda number: number + 1, {"scores.test.mean_tokens", "scores.test.texts"}),
        ("id", lambda _: "test-99", {"id", "scores.test.texts"}),
        ("scores", lambda scores: scores | {"rouge_l": 99.0}, {"rouge_l"}),
    ],
)
def test_a_changed_response_is_named(command, ran, copy, field, change, columns):
    store = Store(copy(ran / "packed"))
    record = next(store.all())
    rows = store.predictions(record)
    rows[3][field] = change(rows[3][field])
    store.write(record, rows)
    code, found = checked(command, store.root)
    assert code == 1
    assert columns <= {one["column"] for one in found["wrong"]}
    of_rows = [one for one in found["wrong"] if one["file"].endswith(PREDICTIONS) and one["column"] != "id"]
    assert {one["row"] for one in of_rows} <= {f"test, seed 10, {rows[3]['id']}"}


def plain(store: Store) -> tuple[Path, dict]:
    """The one record of a store, its file and its values."""
    record = next(store.all())
    return store.folder(record.run_id) / RECORD, record.plain()


def set_at(values: dict, key: str, value: object) -> None:
    """Set a dotted key."""
    *path, last = key.split(".")
    for part in path:
        values = values[part]
    values[last] = value


@pytest.mark.parametrize(
    ("key", "value", "column"),
    [
        ("scores.test.metrics.rouge_l.mean", 50.0, "scores.test.metrics.rouge_l.mean"),
        ("scores.test.metrics.bleu.by_decoding_seed", {"10": 1.0, "20": 2.0}, "scores.test.metrics.bleu.by_decoding"),
        ("config.training.learning_rate", 0.5, "run_hash"),
        ("config.seed", 11, "run_id"),
        ("comparison_key", "0" * 64, "comparison_key"),
        ("data.references", {"test": "0" * 64}, "data.references.test"),
    ],
)
def test_a_changed_record_is_named(command, ran, copy, key, value, column):
    file, values = plain(Store(copy(ran / "packed")))
    set_at(values, key, value)
    write_sealed_json(file, values)
    code, found = checked(command, file.parents[2])
    assert code == 1
    assert any(one["column"].startswith(column) and one["file"] == str(file) for one in found["wrong"])


def test_a_record_that_cannot_be_read_is_wrong(command, ran, copy):
    file, _ = plain(Store(copy(ran / "packed")))
    file.write_bytes(file.read_bytes().replace(b'"started": "2', b'"started": "3', 1))
    code, found = checked(command, file.parents[2])
    assert code == 1
    assert "changed since it was written" in found["wrong"][0]["holds"]


def test_runs_packed_without_texts_are_counted_and_not_wrong(command, derived, copy):
    store = Store(copy(derived))
    for record in list(store.all()):
        scores = {row["id"] + row["set"]: row for row in store.predictions(record)}.values()
        store.write(record, [{key: row[key] for key in ("set", "id", "scores")} for row in scores])
    for folder in ("tables", "figures"):
        shutil.rmtree(store.root / folder)
    for file in ("claims.md", "report-tiny.html"):
        (store.root / file).unlink()
    code, found = checked(command, store.root)
    assert (code, found["wrong"]) == (0, [])
    assert found["not_checked"]["scores of runs: no texts kept"] == 12


def test_derived_files_hold(command, derived):
    code, found = checked(command, derived)
    assert (code, found["wrong"]) == (0, [])
    # nine of table 1, six of chosen seeds, the figure's data and caption, verdicts, report
    assert found["checked"]["files"] == 19
    (reason,) = found["not_checked"]
    assert "are not what they were" in reason  # these records name data that nobody has


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("tables/table1-tiny-measured.csv", "kld,", "klx,", ("klx", "kld")),
        ("tables/table1-tiny-measured.tex", "KLD &", "KLX &", ("KLX", "KLD")),
        ("tables/table1-tiny-seeds-10-20-measured.md", "| KLD |", "| KLX |", ("KLX", "KLD")),
        ("claims.md", "| not enough evidence |", "| reproduced |", ("reproduced", "not enough evidence")),
        ("figures/figure6-tiny.csv", "kld,", "klx,", ("klx", "kld")),
        ("figures/figure6-tiny.txt", "Figure 6", "Figure 7", ("Figure 7", "Figure 6")),
        ("report-tiny.html", "<h1", "<h3", ("<h3", "<h1")),
    ],
)
def test_an_edited_cell_is_named(command, derived, copy, file, old, new, named):
    path = copy(derived) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    result = command("verify", path.parents[len(Path(file).parts) - 1])
    assert result.exit_code == 1
    told = next(line for line in result.stdout.splitlines() if line.startswith(f"wrong: {path}"))
    assert all(word in told for word in named)


def test_a_number_of_a_table_is_named_with_its_column_and_what_it_should_be(command, derived, copy):
    path = copy(derived) / "tables" / "table1-tiny-measured.csv"
    head, first, *rest = path.read_text().splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True))
    changed = first.replace(cells["mean"], "99.5", 1)
    path.write_text("\n".join([head, changed, *rest]) + "\n")
    code, found = checked(command, path.parents[1])
    assert code == 1
    (one,) = found["wrong"]
    assert (one["column"], one["holds"], one["should"]) == ("mean", "99.5", cells["mean"])


def test_a_run_made_again_is_equal_to_the_last_bit(command, ran):
    code, found = checked(command, ran / "packed", "--rerun", "1")
    assert (code, found["wrong"], found["not_checked"]) == (0, [], {})
    assert found["checked"]["runs made again"] == 1
    assert found["checked"]["responses made again"] == 1 + 16 * 7  # rows, and the fields of each


@pytest.mark.parametrize(("key", "number"), [("teacher_scores.test.metrics.rouge_l.mean", 77.0), ("curve", 0)])
def test_a_tampered_number_is_found_by_a_run_made_again(command, ran, copy, key, number):
    file, values = plain(Store(copy(ran / "packed")))
    if key == "curve":
        values["curve"][number]["loss"] += 1e-12
    else:
        set_at(values, key, number)
    write_sealed_json(file, values)
    code, found = checked(command, file.parents[2], "--rerun", str(file.parent))
    assert code == 1
    (one,) = found["wrong"]
    assert one["column"].startswith(key)


def test_a_run_that_diverges_when_made_again_is_wrong(command, ran, monkeypatch):
    def diverges(*_):
        raise NonFiniteLoss("student", 3, "loss", {"loss": math.nan}, [], TrainerState(8))

    monkeypatch.setattr(rerun, "run", diverges)
    code, found = checked(command, ran / "packed", "--rerun", "1")
    assert (code, found["not_checked"]) == (1, {})
    (one,) = found["wrong"]
    assert one["holds"] == "it ended"
    assert "loss is not finite at step 3" in one["should"]


def test_a_run_of_another_version_is_not_compared(command, ran, copy):
    file, values = plain(Store(copy(ran / "packed")))
    values["comparison_fields"]["version"] = "0.0.1"
    values["run_id"] = values["run_id"][:-10] + "0" * 10
    values["run_hash"] = "0" * 64
    write_sealed_json(file, values)
    _, found = checked(command, file.parents[2], "--rerun", str(file.parent))
    assert any("here it is another run (other: version)" in reason for reason in found["not_checked"])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["none"], "no records in it"), (["--rerun", "0"], "nothing to make again"), (["--rerun", "x"], "no run 'x'")],
)
def test_bad_input_is_told(command, ran, tmp_path, words, said):
    folder = [] if words == ["none"] else [ran / "packed"]
    result = command("verify", *([tmp_path / "none"] if words == ["none"] else words), *folder)
    assert result.exit_code == 2
    assert said in result.stderr
