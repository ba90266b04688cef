"""YAML and JSON are read as the values they were written from."""

import itertools
import os
import socket
from pathlib import Path

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
    path, parsed, load = tmp_path / "file.yaml", [], yaml.load
    monkeypatch.setattr(yaml_text.yaml, "load", lambda text, loader: parsed.append(text) or load(text, loader))
    path.write_text("once: {steps: 5}\n")
    first = yaml_text.read(path)
    first["once"]["steps"] = 6  # the reader's own copy
    assert yaml_text.read(path) == {"once": {"steps": 5}}
    path.write_text("once: {steps: 7}\n")
    assert yaml_text.read(path) == {"once": {"steps": 7}}
    assert len(parsed) == 2


# YAML 1.1 makes 90, 5400, 8, 1000, 3, 1.5 and truth values of these, YAML 1.2 others or texts
@pytest.mark.parametrize(
    "text",
    ["1:30", "1:30:00", "-1:30", "1:30.5", "010", "-010", "08", "1_000", "1.5_0", "0b11", "yes", "No", "ON", "off"],
)
def test_what_two_versions_of_yaml_read_differently_is_refused_unless_quoted(text):
    for written in (text, f"a: {text}", f"a: [1, {{b: {text}}}]", f"{text}: 1"):
        with pytest.raises(BenchError, match=rf"line 1: {text} is .* in YAML 1.1 .*\"{text}\" for the text"):
            yaml_text.parse(written)
    assert yaml_text.parse(f"a: '{text}'") == {"a": text}
    assert yaml_text.parse(yaml_text.dump({text: [text]})) == {text: [text]}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("0x1F", 31), ("0.5", 0.5), ("5.", 5.0), (".5", 0.5), ("TRUE", True), ("~", None)]
    + [(same, same) for same in ("2024-3-1", "2001-12-14t21:59:43.10-05:00", "y", "n", "0o17", "a:1")],
)
def test_what_has_one_meaning_is_read(text, value):
    assert yaml_text.parse(f"[{text}]") == [value]


BOMB = b"\n".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c]" % (b, b, a, a, a, a, a, a, a) for a, b in itertools.pairwise(b"abcdefgh")
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1,\nb: 2", "line 2: neither YAML nor JSON"),
        (b"a: 1\nb: \x80", "line 2: not UTF-8"),
        ("a: 1".encode("utf-16"), "not UTF-8 (byte 0xff, as UTF-16 begins)"),
        (b"just text", "expected keys with values"),
        (b"? [a]\n: 1", "line 1: found unhashable key"),
        (b"a: 1\nb: &x [1, *x]", "line 2: an alias (*NAME) stands inside what it refers to"),
        (b"a: &x\n  b: {c: *x}", "an alias (*NAME) stands inside what it refers to"),
        (b"a: &x {<<: *x}", "an alias (*NAME) stands inside what it refers to"),
        (b"a: &a [1,1,1,1,1,1,1,1,1,1]\n" + BOMB, "it stands for over 100000 values"),
        (b"a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' stands twice"),
        (b'a: "\\ud800"', "half of a surrogate pair"),
        (b"{a: " * 3000, "nested too deeply"),
        (b"a: !!binary aGk=", "neither YAML nor JSON"),
        (b"a: " + b"9" * 5000, "neither YAML nor JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, content, words):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(BenchError) as caught:
        yaml_text.read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_what_is_no_file_is_told_at_once(tmp_path):
    pipe, socket_path = tmp_path / "pipe.yaml", tmp_path / "socket.yaml"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(socket_path))
        kinds = {tmp_path: "a folder", pipe: "a named pipe", socket_path: "a socket", Path("/dev/zero"): "a device"}
        for path, kind in kinds.items():
            with pytest.raises(BenchError, match=rf"^{path}: .*it is {kind}, not a file"):
                yaml_text.read(path)
    with pytest.raises(BenchError, match=r"absent\.yaml: cannot be read: No such file"):
        yaml_text.read(tmp_path / "absent.yaml")
