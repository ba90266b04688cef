"""The records that tests make by hand have the shape of those that runs write; the shape is published as a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.record.record import RunRecord
from bench.record.store import Store
from tests.conftest import invoke, record_of, short
from tests.records import make_record, write_record

DOCS = Path(__file__).resolve().parents[3] / "docs" / "records.md"

# a made record names a few packages only, has no phases to speak of and two validations
FREE = ("environment.packages.", "time.phases.", "data.overlap.")


def keys(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from keys(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path


def shape(record: Mapping[str, object]) -> set[str]:
    found = {key for key in keys(record) if not key.startswith(FREE) and "by_decoding_seed" not in key}
    return found - {"environment.git", "environment.git.commit", "environment.git.changed", "data.overlap"}


def test_made_and_real_records_have_the_same_fields(cache, tmp_path):
    real = record_of("run", "--method", "kld", "--task", "samsum", "--out", str(tmp_path), *short())
    made, rows = make_record("kld", "samsum")
    assert shape(made.plain()) == shape(real.plain())
    (read,) = Store(tmp_path).all()
    assert read == real
    assert rows[0].keys() == Store(tmp_path).predictions(read)[0].keys()
    assert read.environment.other_load is not None
    assert read.environment.other_load >= 0


def test_how_a_model_decoded_stands_in_files_where_it_is_known():
    """A record without it keeps its bytes."""
    known = make_record()[0].plain()
    assert known["models"]["decoded_by"] == ["plain steps"]
    older = json.loads(json.dumps(known))
    del older["models"]["decoded_by"]
    for plain in (known, older):
        read = RunRecord.model_validate(plain)
        assert json.dumps(read.plain()) == json.dumps(plain)
        assert RunRecord.model_validate(read.plain()) == read
        assert json.loads(read.model_dump_json(by_alias=True)) == plain
    assert RunRecord.model_validate(older).models.decoded_by is None


def test_the_schema_is_printed_and_names_every_field():
    result = invoke("show", "--schema")
    assert result.exit_code == 0, result.output
    schema = json.loads(result.stdout)
    record = make_record()[0]
    assert schema == RunRecord.model_json_schema()
    assert schema["properties"].keys() == record.plain().keys()
    assert set(schema["required"]) == record.plain().keys() - {"schema", "packed", "evaluated"}
    assert schema["additionalProperties"] is False


def test_without_a_run_show_is_refused():
    result = invoke("show")
    assert result.exit_code == 2
    assert "Missing argument 'RUN'" in result.stderr


def test_the_documentation_names_every_field_of_the_record_and_of_predictions():
    text = DOCS.read_text(encoding="utf-8")
    record, rows = make_record()
    table = re.findall(r"^\| (`.+?) \|", text, flags=re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert record.plain().keys() <= named
    (example,) = re.findall(r"```json\n(.*?)\n```", text, flags=re.DOTALL)
    assert json.loads(example).keys() == rows[0].keys()
    assert json.loads(example)["scores"].keys() == rows[0]["scores"].keys()


def test_what_the_documentation_does_in_python_works(tmp_path, monkeypatch, capsys):
    record = write_record(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.split() == [record.run_id, "ROUGE-L", str(record.scores["test"].primary.mean)]
