"""The sections of pages that are made from records: what they say, and that nothing else of a page changes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.system.errors import BenchError
from paper_tables.published import BEGIN, END, PAGES, main, replaced, sections
from tests.records import write_record


@pytest.fixture
def out(tmp_path):
    for seed in (10, 20):
        for method in ("sft", "kld", "srkl"):
            write_record(tmp_path / "results", method, "dolly", seed=seed)
    return tmp_path / "results"


def test_what_is_told(out):
    made = sections(out)
    assert "holds 6 runs at the preset `tiny`, of 3 of the suite's" in " ".join(made["short"].split())
    assert "(by training seed: 10 (3), 20 (3))" in " ".join(made["short"].split())
    assert made["short"] in made["long"]
    assert "## Open" in made["long"]
    assert sum(line.startswith("| KLD |") for line in made["long"].splitlines()) == 1


def test_only_the_section_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new\nlines") == f"before\n{BEGIN}\nnew\nlines\n{END}\nafter\n"
    assert replaced(replaced(page, "new"), "new") == replaced(page, "new")


@pytest.mark.parametrize("page", ["nothing", f"{BEGIN}\nnever ends\n", f"{END}\n{BEGIN}\n"])
def test_a_page_without_a_section_is_not_touched(page):
    with pytest.raises(BenchError, match="no section to write"):
        replaced(page, "new")


def test_pages_are_written(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# Title\n{BEGIN}\n{END}\n")
    result = CliRunner().invoke(main, ["--out", str(out)])
    assert result.exit_code == 0, result.output
    for name, kind in PAGES.items():
        assert sections(out)[kind] in (tmp_path / name).read_text()
