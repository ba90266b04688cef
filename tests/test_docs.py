"""What the documentation says holds: links lead somewhere, commands parse, tables and examples agree with the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
import yaml

import bench
from bench.cli.main import main
from bench.config.fidelity import Fidelity
from bench.config.registry import find_method, methods
from distillm import SOURCES
from paper_tables.paper.claim_specs import claim_specs
from tests.conftest import invoke
from tests.test_architecture import ROOMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]
WORKFLOW = ROOT / ".github" / "workflows" / "checks.yml"
LONGEST_README = 150


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str = r"\w*") -> list[str]:
    """Contents of the fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """What a link may name after `#`, by GitHub's rule: lower case, punctuation dropped, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_internal_links_resolve(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def test_the_index_names_every_page():
    listed = re.findall(r"^\| \[[^\]]+\]\((\S+)\)", text_of("docs/README.md"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md")


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= LONGEST_README


def commands(text: str) -> Iterator[list[str]]:
    """Words of the `bench` commands in code blocks, fenced or indented, as a shell takes lines apart."""
    code = "\n".join([*blocks(text, r"(?:sh|bash|shell|console)?"), *re.findall(r"^ {4}\S.*$", text, re.MULTILINE)])
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip().removeprefix("$ ").startswith("bench "):
            yield from commands_in(line)


def commands_in(line: str) -> Iterator[list[str]]:
    """The `bench` commands of one line; comments, pipes and redirections are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for end, words in itertools.groupby(lexer, lambda word: set(word) <= set(";&|<>")):
        found = [] if end else list(words)
        if "bench" in found:
            yield found[found.index("bench") + 1 :]


COMMANDS = [(name, words) for path, name in zip(PAGES, IDS, strict=True) for words in commands(path.read_text("utf-8"))]
COMMANDS += [
    (WORKFLOW.name, words)
    for job in yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    for step in job["steps"]
    for line in step.get("run", "").splitlines()
    if line.startswith("bench ")
    for words in commands_in(line)
]


def test_commands_are_found():
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/commands.md", WORKFLOW.name}
    line = "$ bench run --dry-run > run.yaml; bench list tasks | less  # all && done"
    assert list(commands(f"```sh\n{line}\n```\n")) == [["run", "--dry-run"], ["list", "tasks"]]


@pytest.mark.parametrize(
    "words", [w for _, w in COMMANDS if w[0] in ("show", "compare") and "results/paper-tiny" in w], ids=" ".join
)
def test_examples_on_the_published_runs_work(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = invoke(*words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: bench {' '.join(w)}" for page, w in COMMANDS])
def test_commands_parse(page, words):
    """Sub-command, options and the number of arguments are those of the real command; nothing runs."""
    root = click.Context(main, info_name="bench")
    if words[0].startswith("-"):
        names = {name for parameter in main.get_params(root) for name in parameter.opts}
        assert set(words) <= names
        return
    name, *arguments = words
    command = main.get_command(root, name)
    assert command is not None, f"{page}: there is no `bench {name}`"
    if "--help" not in arguments:  # which would print and exit
        command.make_context(name, arguments, parent=root)


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the table whose heading row begins with a cell."""
    rows, inside = [], False
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        inside = bool(cells) and (inside or cells[0] == heading)
        if inside:
            rows.append(cells)
    return rows[2:]


def test_the_table_of_methods_is_the_registry():
    rows = {row[0].strip("`"): row for row in table("docs/methods.md", "method")}
    known = methods()
    assert rows.keys() == known.keys()
    for name, (_, objective, source, paper, init) in rows.items():
        method = known[name]
        assert (source, init) == (f"`{method.source}`", f"`{method.init}`"), name
        arxiv = re.search(r"\d{4}\.\d{5}", paper)
        assert arxiv is None or arxiv[0] in method.paper, name
        if name != "minillm":
            assert re.findall(r"`(\w+)` (\S+?)(?:,|$)", objective) == options_of(name), name


def options_of(name: str) -> list[tuple[str, str]]:
    fields = dataclasses.fields(methods()[name].objective)
    return [(field.name, f"{field.default}") for field in fields if field.init]


def test_the_options_of_minillm_are_named_with_their_defaults():
    told = text_of("docs/methods.md").partition("`minillm` has ten options")[2].partition("Each paper")[0]
    options = options_of("minillm")
    assert len(options) == 10
    words = " ".join(told.split())
    for option, default in options:
        assert f"`{option}`" in words if default == "True" else f"`{option}` {default}" in words, option


def test_the_table_of_output_sources_is_the_rules():
    rows = {row[0].strip("`"): row for row in table("docs/methods.md", "output source")}
    assert rows.keys() == SOURCES.keys()
    phi = {"never": "0", "always": "1", "constant": "constant", "adaptive": "adaptive"}
    for name, (_, shown, _, options) in rows.items():
        assert shown == phi[SOURCES[name].phi], name
        assert set(re.findall(r"`(\w+)`", options)) == SOURCES[name].reads, name


def test_the_table_of_fidelity_switches_is_the_configuration():
    assert [row[0].strip("`") for row in table("docs/methods.md", "switch")] == list(Fidelity.model_fields)


def test_the_rooms_are_those_of_the_architecture_test():
    picture = next(block for block in blocks(text_of("docs/architecture.md")) if block.startswith("paper_tables"))
    drawn: dict[str, list[set[str]]] = {}
    for line in picture.splitlines():
        names = re.match(r"(?:  )?((?:\w+, )*\w+)", line)
        assert names, line
        if line.startswith("  "):
            drawn[list(drawn)[-1]].append(set(names[1].split(", ")))
        else:
            drawn[names[1]] = []
    assert drawn == {
        **{package: [set(floor) for floor in reversed(floors)] for package, floors in ROOMS.items()},
        "baselines": [],
        "distillm": [],
    }


def test_the_method_of_ones_own(tmp_path):
    (code,) = (block for block in blocks(text_of("docs/methods.md"), "python") if "METHOD" in block)
    file = tmp_path / "my_method.py"
    file.write_text(code, encoding="utf-8")
    result = invoke("run", "--method", f"{file}:METHOD", "--set", "method.weight=0.25", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["config"]["method"]["weight"] == 0.25
    method, _ = find_method(f"{file}:METHOD")
    logits = torch.randn(5, 7)
    loss = method.objective()(logits, logits, torch.zeros(5, dtype=torch.long), [])
    torch.testing.assert_close(loss, torch.zeros(5))


@pytest.mark.parametrize(
    ("page", "word"),
    [("docs/methods.md", ".mean()"), ("docs/methods.md", "token_losses"), ("docs/statistics.md", "found")],
)
def test_examples_without_records_run(page, word):
    (code,) = (block for block in blocks(text_of(page), "python") if word in block)
    exec(code, {})


def test_the_signature_of_run_is_as_told():
    (told,) = (block for block in blocks(text_of("docs/python.md"), "text") if "bench.run(" in block)
    (function,) = ast.parse(f"def {told.strip().removeprefix('bench.')}: ...").body
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    shown = dict(zip((a.arg for a in arguments.args), arguments.defaults, strict=True))
    shown |= dict(zip((a.arg for a in arguments.kwonlyargs), arguments.kw_defaults, strict=True))
    real = inspect.signature(bench.run).parameters
    assert {name: ast.literal_eval(value) for name, value in shown.items()} == {n: p.default for n, p in real.items()}
    assert {a.arg for a in arguments.kwonlyargs} == {n for n, p in real.items() if p.kind is p.KEYWORD_ONLY}


READING = [block for block in blocks(text_of("docs/python.md"), "python") if "bench.run(" not in block]


def test_examples_on_the_published_records_run(tmp_path, monkeypatch):
    """In the order of the page, from a folder with the published runs; the last reads what `bench export` writes."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert invoke("export", "--out", "results/paper-tiny", "--to", "exported").exit_code == 0
    assert len(READING) == 3
    for code in READING:
        exec(code, {})
    assert (tmp_path / "loss.png").stat().st_size > 0


def test_the_results_page_counts_what_the_verdicts_count():
    told, *_ = text_of("results/paper-tiny/claims.md").splitlines()[2].partition(" They hold for")
    assert told.startswith(f"{len(claim_specs())} claims: ")
    assert told in " ".join(text_of("docs/results.md").split())


def test_the_results_page_has_the_cells_of_the_main_table():
    cells = {row[0]: row for row in table("results/paper-tiny/tables/main-tiny-measured.md", "")}
    shown = table("docs/results.md", "")[: len(cells)]
    for label, dolly, *_, time in shown:
        assert (dolly, time) == (cells[label][1], cells[label][6]), label
