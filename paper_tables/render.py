"""Sheets as CSV, Markdown and LaTeX."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from paper_tables.sheets import Sheet

FORMATS = {"csv": "csv", "latex": "tex", "markdown": "md"}
"""The formats, and the endings of their files."""

_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "†": r"$^{\dagger}$",
}
# the accented Latin letters end here; what lies beyond, pdfLaTeX has no glyph for without further packages
_LAST_LETTER = "\u017f"


def escape_latex(text: str) -> str:
    """Text as pdfLaTeX prints it; what it has no glyph for becomes a question mark."""
    return "".join(_TEX.get(sign, sign if sign <= _LAST_LETTER else "?") for sign in text)


def escape_markdown(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def render(sheet: Sheet, form: str) -> bytes:
    """A sheet in one of the formats; equal sheets give equal bytes."""
    if form == "csv":
        return sheet.frame.to_csv(index=False, lineterminator="\n").encode()
    ending = FORMATS[form]
    return _templates(ending).get_template(f"table.{ending}.jinja").render(sheet=sheet).encode()


@cache
def _templates(ending: str) -> Environment:
    loader = PackageLoader("paper_tables")
    # braces and percent signs mean something to LaTeX
    signs = ("((*", "*))", "(((", ")))") if ending == "tex" else ("{%", "%}", "{{", "}}")
    environment = Environment(
        block_start_string=signs[0],
        block_end_string=signs[1],
        variable_start_string=signs[2],
        variable_end_string=signs[3],
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"tex": escape_latex, "md": escape_markdown}
    return environment
