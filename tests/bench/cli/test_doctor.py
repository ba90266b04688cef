"""The findings of `bench doctor`, and what a record says about its machine."""

import getpass
import json
import platform
import re

import pytest
import torch

from bench.cli.doctor import examine
from bench.data import TASKS
from bench.system.environment import PACKAGES, EnergyMeter, describe, peak_memory, pick_device
from bench.system.errors import BenchError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """No network, and no cache but the test's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def finding(findings: list[dict], check: str) -> dict:
    (found,) = (one for one in findings if one["check"] == check)
    return found


def test_findings_are_complete_and_whatever_is_not_well_has_advice(tmp_path):
    findings = examine(tmp_path / "out", None)
    assert all(one.keys() == {"state", "check", "found", "advice"} for one in findings)
    assert {one["state"] for one in findings} <= {"ok", "optional", "problem"}
    assert all(one["advice"] for one in findings if one["state"] != "ok")
    checks = [one["check"] for one in findings]
    assert {"Python", *PACKAGES, "CPU", "memory", "records", "cache", "embedded data"} <= set(checks)
    assert {f"shipped models {task}" for task in TASKS} <= set(checks)
    assert len(set(checks)) == len(checks)
    hub = finding(findings, "Hugging Face hub")
    assert (hub["state"], "HF_HUB_OFFLINE=1" in hub["found"]) == ("optional", True)
    assert not (tmp_path / "out").exists(), "the doctor changes nothing"
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    findings = examine(tmp_path / "file" / "out", None)
    for check, advice in (("records", "--out"), ("cache", "BENCH_CACHE")):
        found = finding(findings, check)
        assert (found["state"], "cannot be written" in found["found"]) == ("problem", True)
        assert advice in found["advice"]
    fine = examine(tmp_path / "a" / "b", None)
    assert finding(fine, "records")["state"] in ("ok", "problem")
    assert "GiB free" in finding(fine, "records")["found"]


def test_data_in_a_folder_is_found(tmp_path):
    samsum = tmp_path / "data" / "samsum"
    samsum.mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        rows = [{"id": f"{split}{i}", "dialogue": f"{split} {i}: hi", "summary": "A greeting."} for i in range(count)]
        (samsum / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = examine(tmp_path / "out", tmp_path / "data")
    found = finding(findings, f"samsum in {tmp_path / 'data'}")
    assert (found["state"], found["found"]) == ("ok", "train 3, validation 2, test 1")
    missing = finding(findings, f"dolly in {tmp_path / 'data'}")
    assert missing["state"] == "optional"
    assert "dolly" in missing["advice"]


# --- environment ----------------------------------------------------------------------------------------------------


def test_devices_that_are_there():
    assert pick_device("cpu") == CPU
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there():
    with pytest.raises(BenchError, match=r"--device cuda: no such device here.*found: .*cpu") as caught:
        pick_device("cuda")
    assert ("built without CUDA" in str(caught.value)) == (torch.version.cuda is None)


def test_the_description_is_plain_and_names_neither_host_nor_user():
    described = describe(CPU)
    text = json.dumps(described, allow_nan=False)
    assert json.loads(text) == described
    words = set(re.findall(r"[\w.-]+", text))
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert described["device"] == "cpu"
    assert described["cpu"] not in ("", "unknown")
    assert described["cpu_cores"] >= 1
    assert 0.1 < described["memory_gib"] < 1e5
    assert described["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    git = described["git"]
    assert git is None or re.fullmatch(r"[0-9a-f]{40}", git["commit"])


def test_memory_and_energy_without_an_accelerator():
    memory = peak_memory(CPU)
    assert memory["device_bytes"] is None
    assert memory["process_bytes"] is None or memory["process_bytes"] > 50 * 2**20  # PyTorch alone is more
    assert EnergyMeter(CPU).joules() is None
