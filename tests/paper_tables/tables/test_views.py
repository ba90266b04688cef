"""The three views of a table, for readers and as tidy rows."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess

import pandas as pd
import pytest
import yaml

from bench.record.store import Store
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS
from paper_tables.paper.published_values import published, reproductions
from paper_tables.paper.tables import TABLE_NAMES
from paper_tables.tables.make import fill_table
from paper_tables.tables.render import TABLE_FORMATS, escape_latex, render
from paper_tables.tables.rendered import Cell, RenderedTable
from tests.paper_tables.conftest import write_table_1
from tests.records import rewrite, write_record


def views(out, name="1"):
    return fill_table(RunIndex(Store(out), "tiny"), name).views


def texts(view) -> dict[str, list[str]]:
    return {
        " ".join(cell.text for cell in row[: view.text_columns]): [c.text for c in row[view.text_columns :]]
        for row in view.rows
    }


def test_as_measured(out):
    view = views(out)[0]
    assert view.headings == ["", "Dolly", "SelfInst", "Vicuna", "S-NI", "UnNI", "n"]
    rows = texts(view)
    assert list(rows) == ["teacher", "init student", "KLD", "RKLD", "JSD", "SKL", "SRKL"]
    assert rows["SRKL"] == [""] * 6
    assert rows["KLD"][-1] == "3"
    assert re.fullmatch(r"\d\d\.\d\d ± \d\.\d\d( †)?", rows["KLD"][0])
    bold = {row[0].text for row in view.rows for cell in row if cell.bold}
    assert bold == {"SKL"}
    assert view.rule_after == 2


def test_what_runs_and_their_tuning_took_is_said(tmp_path):
    trial = {"values": {"training.learning_rate": 0.01}, "scores": [1.0], "runs": ["a"]}
    tuned = {
        **{"trials": 1, "seeds": [5], "space": {"training.learning_rate": [0.01]}, "chosen": trial["values"]},
        **{"models": "tiny-llama", "metric": "ROUGE-L", "tried": [trial], "seconds": 123.4, "made": "2026-01-02"},
        **{"commits": ["c"], "settings": "s"},
    }
    preset = tmp_path / "tiny-tuned.yaml"
    preset.write_text(yaml.safe_dump({"extends": "tiny", "tuning": {"dolly": {"kld": tuned}}}))
    for seed, seconds in ((10, 20.0), (20, 30.0), (30, 90.0)):
        write_record(tmp_path, "kld", seed=seed, preset=str(preset), seconds=seconds, other_load=1.0)
    index = RunIndex(Store(tmp_path), str(preset))
    spent = "Tuning, seconds that all trials of a method took, which a run's leave out: KLD 123."
    main, losses = (fill_table(index, name).views[0].notes for name in ("main", "1"))
    assert spent in main
    assert spent in losses
    took = "Seconds of training of a run, the median, {}: KLD {}."
    assert took.format("whatever else ran then, so not to be compared", 30) in main
    write_record(tmp_path, "kld", seed=20, preset=str(preset), seconds=25.0, other_load=0.0)
    alone = fill_table(RunIndex(Store(tmp_path), str(preset)), "main").views[0].notes
    assert took.format("of exclusively timed runs", 25) in alone
    plain = RunIndex(Store(write_table_1(tmp_path / "plain")), "tiny")
    assert not [note for note in fill_table(plain, "main").views[0].notes if note.startswith("Tuning")]


def test_the_caption_says_what_a_reader_needs(out):
    text = " ".join(views(out)[0].notes)
    for words in (
        "n of the training seeds 10, 20, 30",
        "ROUGE-L",
        "Student's t of differences within training seeds",
        "residuals are pooled",
        "Tukey",
        "80 % power, median over a column's methods): Dolly",
        "tiny-llama (teacher 1,234,567 parameters, student 123,456)",
        "synthetic (seed 0): 2000 training",
        "temperature 1",
        "seeds 10, 20",
        "cpu (A CPU & Co, 2 threads)",
        "torch 2.13.0",
    ):
        assert words in text
    assert "n is 1" not in text


def test_what_a_method_costs_beside_its_training_time(tmp_path):
    kld = write_record(tmp_path, "kld", seconds=20.0)
    seqkd = write_record(tmp_path, "seqkd", seconds=30.0)
    distillm = write_record(tmp_path, "distillm", seconds=40.0)
    rewrite(tmp_path, kld, time__before={"init student": 2.0})
    before = {"init student": 0.0, "teacher responses": 13.0}
    rewrite(tmp_path, seqkd, time__before=before, training__tokens_trained=52_400)
    rewrite(tmp_path, distillm, time__before={}, training__tokens_generated=7_600)  # of a version that did not say
    view = views(tmp_path, "main")[0]
    assert view.headings[-5:] == ["time / KLD", "before / KLD", "k tokens trained", "k tokens generated", "n"]
    rows = texts(view)
    assert rows["KLD"][-5:] == ["1.00", "0.10", "1", "0", "1"]
    assert rows["SeqKD"][-5:] == ["1.50", "0.65", "52", "0", "1"]
    assert rows["DistiLLM"][-5:] == ["2.00", "", "1", "8", "1"]
    frame = view.frame[(view.frame["row"] == "seqkd")].set_index("column")
    assert frame.loc["before", "mean"] == pytest.approx(0.65)
    assert frame.loc["tokens-trained", "mean"] == 52_400


def test_full_precision_in_csv(out):
    frame = views(out)[0].frame
    for record in Store(out).all():
        row = frame[(frame["row"] == record.config.method.name) & (frame["column"] == "uinst")]
        assert record.run_id in row["runs"].item().split()
    kld = frame[(frame["row"] == "kld") & (frame["column"] == "dolly")].iloc[0]
    scores = [r.scores["test"].primary.mean for r in Store(out).all() if r.config.method.name == "kld"]
    assert kld["mean"] == pytest.approx(statistics.fmean(scores), rel=1e-15)
    empty = frame[frame["row"] == "srkl"]
    assert len(empty) == 5
    assert set(empty["n"]) == {0}
    assert empty["mean"].isna().all()


def test_only_the_main_table_has_times(tmp_path):
    write_record(tmp_path, "kld")
    write_record(tmp_path, "srkl", seconds=30.0)
    write_record(tmp_path, "skl", other_load=1.0)
    view = views(tmp_path, "main")[0]
    assert view.headings[-5:-3] == ["time / KLD", "before / KLD"]
    rows = texts(view)
    assert [rows[label][-5] for label in ("KLD", "SRKL", "SKL")] == ["1.00", "1.50", ""]
    frame = view.frame
    assert frame[(frame["row"] == "srkl") & (frame["column"] == "time")]["mean"].item() == 1.5
    assert "time / KLD" not in views(tmp_path)[0].headings


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_as_published_shows_every_known_value_and_leaves_the_rest_empty(out, name):
    view = views(out, name)[1]
    shown = " ".join(cell.text for row in view.rows for cell in row)
    assert all(str(value) in shown for value in published(name))
    assert len(view.frame) == len(published(name))
    if not published(name):
        assert not any(cell.text for row in view.rows for cell in row[view.text_columns :])
        assert "No value of this table is known." in view.notes


def test_the_conflict_is_shown_as_such(tmp_path):
    write_record(tmp_path, "srkl", sgo="adaptive", mean=30.0)
    _, stated, beside = views(tmp_path, "4")
    assert texts(stated)["gpt2-xl-to-gpt2 DistiLLM"][0] == "26.12 (M, D2) or 26.37 (M, N2)"
    assert any("sources disagree" in note for note in stated.notes)
    row = texts(beside)["DistiLLM on-policy"]
    assert row[2] == "26.12 (M, D2) or 26.37 (M, N2)"
    first, second = (float(part) for part in row[3].split(" or "))
    assert first - second == pytest.approx(0.25, abs=0.011)
    tidy = beside.frame[(beside.frame["row"] == "distillm") & (beside.frame["column"] == "on-policy")]
    assert list(tidy["published"]) == ["26.12", "26.37"]
    assert tidy["conflict"].all()


def test_side_by_side(out):
    view = views(out)[2]
    row = texts(view)["KLD Dolly"]
    measured, published_value = float(row[0].split()[0]), 23.52
    assert row[2] == "23.52 ± 0.19 (M)"
    assert float(row[3]) == pytest.approx(measured - published_value, abs=0.011)
    assert row[4] == "23.33–23.80 (4)"
    assert any("Published values and reproductions of KLD from ABKD, CARE, " in note for note in view.notes)
    assert any("ABKD: reproductions by the authors of ABKD" in note for note in view.notes)
    assert texts(view)["RKLD Dolly"][2:4] == ["", ""]
    assert len(reproductions("1")) > 0
    assert any("not those of the paper" in note for note in view.notes)
    frame = view.frame
    cell = frame[(frame["row"] == "kld") & (frame["column"] == "dolly")].iloc[0]
    assert cell["difference"] == pytest.approx(cell["measured"] - 23.52, rel=1e-12)
    assert cell["source"] == "CARE"
    assert frame[frame["row"] == "rkld"]["published"].isna().all()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & c%", r"a\_b \& c\%"),
        ("#1 $ {x}", r"\#1 \$ \{x\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("1 ± 2 †", r"1 $\pm$ 2 $^{\dagger}$"),
        ("−1.50", "$-$1.50"),
        ("a < b | c", r"a \textless{} b \textbar{} c"),
        ("Größe, śmiały", "Größe, śmiały"),
        ("α = 0.1, φ ≤ λ × 2", r"$\alpha$ = 0.1, $\varphi$ $\leq$ $\lambda$ $\times$ 2"),
        ("東", "?"),
        ("[x] *", "{[}x{]} {*}"),
        ("a\n\nb\tc", "a  b c"),
    ],
)
def test_latex_escaping(text, escaped):
    assert escape_latex(text) == escaped


def test_texts_of_users_are_texts_in_every_format():
    """A task, method or preset may be called anything that a file may."""
    evil = "<script>alert(1)</script> a_b & 50% # $x$ {y} ~ ^ \\end{table} [z]"
    table = RenderedTable("x", "v", evil, [evil], [evil], [[Cell(evil)]], pd.DataFrame({"row": ["=1", "-1.5"]}))
    markdown = render(table, "markdown").decode()
    assert markdown.count(r"\<script>alert(1)\</script>") == 4
    assert render(table, "csv") == b"row\n'=1\n-1.5\n"
    latex = render(table, "latex").decode()
    assert latex.count(r"\textbackslash{}end\{table\}") == 4
    caption, note = latex.index(r"\caption{"), latex.index(r"\parbox{\linewidth}")
    assert caption < latex.index(r"\usebox0", latex.index(r"\toprule")) < note
    bare = re.sub(r"\\[&%$#_{}\\]", "", latex[caption:])
    assert not re.search(r"(?<!\d)[#%~^]", bare.replace("^{", ""))


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_captions_in_latex_are_a_line_and_the_conditions_stand_below(out, name):
    for view in views(out, name):
        text = render(view, "latex").decode()
        (caption,) = re.findall(r"\\caption\{(.*)\}\\label", text)
        assert caption == escape_latex(view.title)
        below = text[text.index(r"\bottomrule") :]
        assert escape_latex(" ".join(view.notes)) in below
        assert escape_latex(view.notes[0]) not in text[: text.index(r"\bottomrule")]


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_latex_is_well_formed(out, name):
    for view in views(out, name):
        text = render(view, "latex").decode()
        body = re.sub(r"\\[&%$#_{}\\]", "", text)
        assert body.count("{") == body.count("}")
        assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
        assert "A CPU \\& Co" in text or "A CPU" not in text
        after = text[text.index(r"\toprule") :]
        lines = [line for line in after.splitlines() if line.endswith(r" \\")]
        assert lines
        # the first of two columns of words is a line above its rows
        columns = len(view.headings) - (view.text_columns - 1)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
        groups = re.findall(r"\\multicolumn\{(\d+)\}\{@\{\}l\}", after)
        assert set(groups) <= {str(columns)}
        assert len(groups) == (len(dict.fromkeys(row[0].text for row in view.rows)) if view.text_columns == 2 else 0)


def test_latex_compiles_and_nothing_is_cut_or_unprintable(out, tmp_path):
    """In a plain article with margins of an inch; only a table of more columns than any has to be scaled down."""
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("needs pdflatex with booktabs, longtable, geometry and graphicx")
    write_record(out, "srkl", assignments=("method.alpha=0.5",))
    rendered = [view for name in (*TABLE_NAMES, *ABLATIONS) for view in views(out, name)]
    cells = [Cell("12.34 ± 5.67 †")] * 15
    wide = RenderedTable(
        "wide",
        "as measured",
        "Wide.",
        [],
        ["", *(f"judge, set {i}" for i in range(15))],
        [[Cell("β"), *cells]],
        pd.DataFrame(),
    )
    inputs = []
    for view in [*rendered, wide]:
        text = render(view, "latex").decode()
        assert "?" not in text, "a sign that LaTeX has no glyph for"
        (tmp_path / f"{view.name}.tex").write_text(text, encoding="utf-8")
        inputs.append(f"\\input{{{view.name}}}\\clearpage")
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[margin=1in]{geometry}\\usepackage[T1]{fontenc}"
        "\\usepackage{booktabs,longtable,graphicx}\\begin{document}\\let\\scaled\\resizebox\\let\\resizebox\\undefined\n"
        + "\n".join(inputs[:-1])
        + "\n\\let\\resizebox\\scaled\n"
        + inputs[-1]
        + "\n\\end{document}\n"
    )
    for _ in range(2):  # longtable knows the widths of its columns the second time
        done = subprocess.run(
            [latex, "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(encoding="latin-1")
    assert [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log) if float(points) > 1] == []
    assert "Missing character" not in log


def test_markdown_has_one_column_for_each_heading(out):
    for view in views(out):
        lines = [line for line in render(view, "markdown").decode().splitlines() if line.startswith("|")]
        assert len(lines) == len(view.rows) + 2
        assert {line.count("|") for line in lines} == {len(view.headings) + 1}


def test_csv_is_read_back(out, tmp_path):
    for view in views(out):
        path = tmp_path / "view.csv"
        path.write_bytes(render(view, "csv"))
        assert list(pd.read_csv(path).columns) == list(view.frame.columns)
        assert len(pd.read_csv(path)) == len(view.frame)
    assert set(TABLE_FORMATS) == {"csv", "latex", "markdown"}
