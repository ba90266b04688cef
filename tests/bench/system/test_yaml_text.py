"""YAML and JSON are read as the values they were written from."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.system import yaml_text
from bench.system.errors import BenchError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES))
def test_what_is_written_is_read(values):
    assert yaml_text.parse(yaml_text.dump(values)) == values


@pytest.mark.parametrize("text", ["1e-3", "5E6", "-1.5e3", "1.e2", ".5e1", "1e3"])
def test_numbers_with_exponents_are_numbers_and_as_texts_stay_texts(text):
    assert yaml_text.parse(f"rate: {text}") == {"rate": float(text)}
    assert yaml_text.parse(yaml_text.dump({"name": text})) == {"name": text}
    assert yaml.safe_load(yaml_text.dump({"name": text, "rate": float(text)})) == {"name": text, "rate": float(text)}


@pytest.mark.parametrize("text", ["e3", "1e", "1e-x", "a1e3", "1e3b"])
def test_other_texts_are_texts(text):
    assert yaml_text.parse(f"name: {text}") == {"name": text}


def test_a_file_gives_values_as_json_knows_them(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("day: 2024-03-01\n5: five\ntrue: {2: two}\n")
    assert yaml_text.read(path) == {"day": "2024-03-01", "5": "five", "true": {"2": "two"}}


def test_a_file_is_parsed_once_and_read_as_it_is_now(tmp_path, monkeypatch):
    path, parsed = tmp_path / "file.yaml", []
    monkeypatch.setattr(yaml_text, "parse", lambda text: parsed.append(text) or yaml.safe_load(text))
    path.write_text("once: {steps: 5}\n")
    first = yaml_text.read(path)
    first["once"]["steps"] = 6  # the reader's own copy
    assert yaml_text.read(path) == {"once": {"steps": 5}}
    path.write_text("once: {steps: 7}\n")
    assert yaml_text.read(path) == {"once": {"steps": 7}}
    assert len(parsed) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1,\nb: 2", "line 2: neither YAML nor JSON"),
        (b"a: \x80", "neither YAML nor JSON"),
        (b"just text", "expected keys with values"),
        (b"? [a]\n: 1", "neither YAML nor JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, content, words):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(BenchError) as caught:
        yaml_text.read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(BenchError, match=rf"^{path}: "):
            yaml_text.read(path)
