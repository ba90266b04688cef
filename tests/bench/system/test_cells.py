"""Texts in CSV and Markdown: shown as they are, never run."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from bench.system.cells import as_csv, escape_markdown


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "-", "=HYPERLINK('x')", "--x"])
def test_a_text_that_a_spreadsheet_would_run_is_shown(text):
    (row,) = pd.read_csv(io.BytesIO(as_csv(pd.DataFrame({"a": [text], "n": [1]})))).to_dict("records")
    assert row == {"a": f"'{text}", "n": 1}


def test_a_carriage_return_ends_no_row():
    text = as_csv(pd.DataFrame({"a": ["x\r=1,2", "\r=1", "x\r\ny"]})).decode()
    assert text == 'a\n"x\n=1,2"\n"\'\n=1"\n"x\ny"\n'


def test_numbers_and_other_texts_stay_as_they_are():
    frame = pd.DataFrame(
        {"a": ["-1.5", "+4.42", "-1e-5", "−1.5", "a=b"], "b": [-1.5, 2, None, 3, -4], "c": range(-2, 3)}
    )
    assert as_csv(frame) == frame.to_csv(index=False, lineterminator="\n").encode()
    assert as_csv(pd.DataFrame({"=x": [1.23456789]}), "%.3g") == b"'=x\n1.23\n"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>x</script> <img src=x>", r"\<script>x\</script> \<img src=x>"),
        ("a < b, 1 <2, x > y", "a < b, 1 <2, x > y"),
        ("a|b \\ c", r"a\|b \\ c"),
        ("[x](javascript:y) ![i](z)", r"[x\](javascript:y) ![i\](z)"),
        ("1.0 [0.5, 1.5]", "1.0 [0.5, 1.5]"),
        ("my_own_method *b* _e_ `c`", r"my_own_method \*b\* \_e\_ \`c\`"),
        ("&lt; R&D &#60;", r"\&lt; R&D \&#60;"),
        ("a\n| b\r\n# c", r"a \| b # c"),
    ],
)
def test_markdown(text, escaped):
    assert escape_markdown(text) == escaped
