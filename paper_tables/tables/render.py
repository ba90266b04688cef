"""Rendered tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.system.cells import as_csv, escape_markdown
from paper_tables.tables.rendered import Cell, RenderedTable

TABLE_FORMATS = {"csv": "csv", "latex": "tex", "markdown": "md"}
"""The formats, and the endings of their files."""

_GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta"},
    **{"θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho"},
    **{"σ": "sigma", "τ": "tau", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega"},
    **{"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ω": "Omega"},
}
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
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "²": "$^2$",
    "°": r"$^{\circ}$",
    "µ": r"$\mu$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "•": r"\textbullet{}",
    # in an optional argument, or at the beginning of a line, these are no text
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    **dict.fromkeys("\t\n\r", " "),
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    **{sign: f"$\\{name}$" for sign, name in _GREEK.items()},
}
BREAK = r" \\ "
# the accented Latin letters end here; what lies beyond, pdfLaTeX has no glyph for without further packages
_LAST_LETTER = "\u017f"


def escape_latex(text: str) -> str:
    """Text as pdfLaTeX prints it; what it has no glyph for becomes a question mark."""
    return "".join(_TEX.get(sign, sign if sign <= _LAST_LETTER else "?") for sign in text)


def latex_heading(text: str) -> str:
    """A column's heading, on several lines where it has commas: of what would widen the column for nothing."""
    lines = [escape_latex(part) for part in text.split(", ")]
    return lines[0] if len(lines) == 1 else rf"\shortstack[r]{{{BREAK.join(lines)}}}"


def grouped(table: RenderedTable) -> Iterator[tuple[str, list[list[Cell]]]]:
    """The rows of a table, those together that share the first of two columns of words, without that column.

    It becomes a line above them, since a page has no room for it; a table with one such column is one nameless group.
    """
    if table.text_columns < 2:
        yield "", table.rows
        return
    for name, rows in groupby(table.rows, key=lambda row: row[0].text):
        yield name, [row[1:] for row in rows]


def render(table: RenderedTable, form: str) -> bytes:
    """A table in one of the formats; equal tables give equal bytes."""
    if form == "csv":
        return as_csv(table.frame)
    ending = TABLE_FORMATS[form]
    return _templates(ending).get_template(f"table.{ending}.jinja").render(table=table).encode()


@cache
def _templates(ending: str) -> Environment:
    loader = PackageLoader("paper_tables.tables")
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
    environment.filters |= {
        "tex": escape_latex,
        "heading": latex_heading,
        "grouped": grouped,
        "md": escape_markdown,
    }
    return environment
