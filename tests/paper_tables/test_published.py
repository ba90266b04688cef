"""The sections of pages that are made from records: what they say, and that nothing else of a page changes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.system.errors import BenchError
from paper_tables import performance
from paper_tables.published import BEGIN, END, PAGES, main, replaced, sections
from paper_tables.report.glance import HIGHEST_LEGEND
from tests.records import write_record


@pytest.fixture
def out(tmp_path):
    for seed in (10, 20):
        for method in ("sft", "kld", "srkl"):
            write_record(tmp_path / "results", method, "dolly", seed=seed)
    return tmp_path / "results"


def test_what_is_told(out):
    made = sections(out)
    short, long = (" ".join(made[name].split()) for name in ("short", "long"))
    assert "holds 6 runs at the preset `tiny`, of 3 of the " in long
    assert "settings of the suite, by training seed: 10, 20 (3 each)." in long
    assert "4 that nobody reports, inferred by us (4 not enough evidence)." in long
    assert "holds 6 runs at the preset `tiny`. 0 of 30 claims hold here. 30 are open. As far " in short
    assert f"0 of 30 claims hold here. 30 are open. {HIGHEST_LEGEND}: | setting | Dolly |" in long
    for text in made.values():
        assert f"{HIGHEST_LEGEND}:\n\n| setting | Dolly |\n|---|---|\n|  | KLD or SRKL or SFT; by" in text
    assert short.index(HIGHEST_LEGEND) > short.index("As far as records tell")
    regime = "As far as records tell, the [criteria](docs/tiny-regime.md) of the paper's regime hold for no task."
    assert regime in short
    assert "| none: inferred by us | 0 | 0 | 0 | 4 |" in made["long"]
    assert "[Criteria](tiny-regime.md) of the paper's regime" in made["long"]
    assert made["long"].split("\n- ")[1].startswith("Dolly (tiny-llama) fails criterion 1: ")
    assert "| SKL scores higher than KLD on S-NI and UnNI (M) | open (" in made["long"]
    assert "- SKL scores higher than KLD on S-NI and UnNI (Table 1, section 3; M): " in made["long"]
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
    (tmp_path / "docs" / "performance.md").write_text(f"# Speed\n{performance.BEGIN}\n{performance.END}\n")
    result = CliRunner().invoke(main, ["--out", str(out)])
    assert result.exit_code == 0, result.output
    for name, kind in PAGES.items():
        assert sections(out)[kind] in (tmp_path / name).read_text()
    assert "On a CPU: no record. Its" in (tmp_path / "docs" / "performance.md").read_text()


def test_runs_of_presets_that_extend_the_published_one_stand_beside_its_own(tmp_path):
    as_long = tmp_path / "tiny-as-long-as-distillm.yaml"
    as_long.write_text(
        "extends: tiny\nsummary: tiny, each method with as many steps as take the time of distillm\n"
        "pairs:\n  tiny-llama: {methods: {kld: {training: {steps: 500}}}}\n"
        "  tiny-t5: {methods: {kld: {training: {steps: 400}}}}\n"
    )
    for preset, mean in (("tiny", 30.0), (str(as_long), 40.0)):
        for seed in (10, 20):
            for method in ("kld", "sft"):
                for task in ("dolly", "samsum"):
                    write_record(tmp_path, method, task, seed, preset=preset, mean=mean + (method == "kld"))
    page = sections(tmp_path)["long"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    dolly, tasks = (row for row in rows if row[0] == "" and "-" not in row[1][:2])
    assert ["setting", "Dolly", "SAMSum with tiny-t5"] in rows
    assert dolly[1:] == ["Dolly", "Dolly, equal time", "time / KLD"]
    assert "SAMSum (ROUGE-L), tiny-t5, equal time" in tasks
    first, second = (row for row in rows if row[0] == "KLD")
    assert [round(float(first[i].strip("*").split()[0]), -1) for i in (1, 2)] == [30, 40]
    of_samsum = second[tasks.index("SAMSum (ROUGE-L), tiny-t5, equal time")]
    assert round(float(of_samsum.strip("*").split()[0]), -1) == 40
    assert "stayed 0" not in page
    write_record(tmp_path, "distillm", "samsum", phi=0.0)
    told = " ".join(sections(tmp_path)["long"].split())
    assert "Table 3: DistiLLM (SAMSum (ROUGE-L), tiny-t5): in its one run φ stayed 0 and no batch was of" in told
    assert "Equal time: tiny, each method with as many steps as take the time of distillm. Training seeds" in page
