"""`bench export`: every record in one tidy file."""

from __future__ import annotations

import io
import json
import sys

import pandas as pd
import pytest

from bench.cli.main import main
from bench.record.export import export_records, tidy
from bench.record.store import Store
from bench.system.errors import BenchError
from tests.conftest import invoke
from tests.records import make_record, write_record

KEY = ["run", "set", "decoding_seed", "metric"]


@pytest.fixture
def out(tmp_path):
    write_record(tmp_path, "kld", "dolly", 10)
    write_record(tmp_path, "skl", "dolly", 20, assignments=("method.alpha=0.3",), other_load=None)
    write_record(tmp_path, "kld", "iwslt", 10)
    return tmp_path


def test_one_row_for_each_run_set_decoding_seed_and_metric(out):
    frame = tidy(Store(out))
    assert len(frame) == 2 * 5 * 2 + 2
    assert not frame.duplicated(KEY).any()
    for record in Store(out).all():
        for name, scores in record.scores.items():
            for seed, value in scores.primary.by_decoding_seed.items():
                row = frame[(frame["run"] == record.run_id) & (frame["set"] == name)]
                assert row[row["decoding_seed"] == seed]["value"].item() == value
    assert set(frame[frame["task"] == "iwslt"]["metric"]) == {"bleu"}
    skl = frame[frame["method"] == "skl"]
    assert set(skl["method_options"]) == {'{"alpha": 0.3}'}
    assert skl["other_load"].isna().all()


def test_each_of_several_metrics_has_its_rows(tmp_path):
    record, rows = make_record("kld", "samsum")
    one = record.scores["test"]
    halved = {seed: value / 2 for seed, value in one.primary.by_decoding_seed.items()}
    both = one.metrics | {"exact_match": one.primary.model_copy(update={"by_decoding_seed": halved})}
    two = record.model_copy(update={"scores": {"test": one.model_copy(update={"metrics": both})}})
    Store(tmp_path).write(two, rows)
    frame = tidy(Store(tmp_path)).set_index(["metric", "decoding_seed"])
    assert not frame.index.has_duplicates
    assert frame.loc["rouge_l"]["value"].to_dict() == one.primary.by_decoding_seed
    assert frame.loc["exact_match"]["value"].to_dict() == halved


def test_options_stand_beside_what_they_are_options_of(out):
    row = tidy(Store(out)).iloc[0]
    assert (row["output_source"], row["init_student"]) == ("dataset", "sft")
    assert json.loads(row["output_source_options"])["capacity"] == 1000
    assert "source" not in json.loads(row["output_source_options"])
    assert row["method_file"] is None


def test_csv_is_read_back_and_the_same_again(out):
    result = invoke("export", "--out", str(out))
    assert result.exit_code == 0, result.output
    path = out / "records.csv"
    assert result.stdout.strip() == str(path)
    first = path.read_bytes()
    there = tidy(Store(out)).fillna(float("nan"))  # CSV knows one kind of nothing
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(first)), there, check_dtype=False)
    invoke("export", "--out", str(out))
    assert path.read_bytes() == first


def test_parquet(out, tmp_path):
    pytest.importorskip("pyarrow")
    (path,) = export_records(Store(out), "parquet", tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(pd.read_parquet(path), tidy(Store(out)), check_dtype=False)


def test_parquet_without_pyarrow_says_what_to_do(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BenchError, match="pip install pyarrow"):
        export_records(Store(out), "parquet", out)


def test_every_column_is_documented(out):
    text = main.commands["export"].help
    assert all(f" {column}" in text.replace("\n", " ").replace(",", " ") for column in tidy(Store(out)).columns)


def test_skipped_records_are_named_on_standard_error(out):
    damaged = next((out / "runs").glob("*/record.json"))
    damaged.write_text("{")
    result = invoke("export", "--out", str(out))
    assert result.exit_code == 0
    assert str(damaged) in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "parket"], ["unknown format 'parket'", "did you mean 'parquet'"]),
        (["--format", ","], ["none given"]),
        (["--out", "nowhere"], ["no records in", "bench run"]),
    ],
)
def test_refused(out, arguments, words):
    result = invoke("export", "--out", str(out), *arguments)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words)


def test_unwritable_output(out, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = invoke("export", "--out", str(out), "--to", str(blocked / "folder"))
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
