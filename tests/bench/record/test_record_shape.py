"""The records that tests make by hand have the shape of those that runs write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.record.schema import check_shape

from bench.record.store import Store
from tests.conftest import record_of, short
from tests.records import make_record

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
    check_shape(real)
    assert shape(made) == shape(real)
    assert rows[0].keys() == Store(tmp_path).predictions(real)[0].keys()
    assert real["environment"]["other_load"] >= 0
