"""What the wheel holds beside code: every data file of the packages is declared, and the marks of typed packages."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = PROJECT["tool"]["setuptools"]["package-data"]
PACKAGES = ("distillm", "baselines", "bench", "paper_tables")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_data_file_goes_into_the_wheel(package):
    folder = ROOT / package
    packaged = {path for pattern in [*DECLARED.get(package, []), *DECLARED["*"]] for path in folder.glob(pattern)}
    there = {p for p in folder.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert sorted(p.relative_to(ROOT).as_posix() for p in there - packaged) == []
    assert folder / "py.typed" in packaged


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PROJECT["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
