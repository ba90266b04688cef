"""What `bench run` says when something of the hub cannot be had: what really failed, without a traceback."""

from __future__ import annotations

import shutil

import httpx
import pytest
from huggingface_hub import constants

from bench.data import TASKS, DataError, TaskSpec, load_task
from bench.data.task import HubSource
from bench.system.hub import what_failed
from tests.conftest import invoke
from tests.hub.conftest import offline
from tests.hub.server import Hub

SAMSUM, DOLLY = "knkarthick/samsum", "MiniLLM/dolly"


def told(task: str | TaskSpec, hub: bool | str = True) -> str:
    with pytest.raises(DataError) as caught:
        load_task(task, hub=hub)
    message = str(caught.value)
    assert "A local folder would do instead: --data-dir DIR" in message
    return message


def blames_no_network(message: str) -> bool:
    return not any(word in message for word in ("reach", "network", "connect", "internet"))


@pytest.mark.parametrize(
    ("task", "hub", "message"),
    [
        ("samsum", True, f"the data set {SAMSUM} is gated: accept its terms at {{url}}/datasets/{SAMSUM}, then log in"),
        ("dolly", True, "the data set MiniLLM/uinst is gated: accept its terms"),
        (
            "dolly",
            "MiniLLM/doly",
            f"MiniLLM/doly is not on the hub ({{url}}/datasets/MiniLLM/doly); did you mean '{DOLLY}'?",
        ),
        ("samsum", "knkarthick/samsam", f"did you mean '{SAMSUM}'?"),
        ("dolly", f"{DOLLY}@v9", f"the data set {DOLLY}@v9 has no revision 'v9'"),
        ("samsum", f"{SAMSUM}@v9", f"the data set {SAMSUM}@v9 has no revision 'v9'"),
        (
            "iwslt",
            "IWSLT/iwslt2017@main",
            "the data set IWSLT/iwslt2017@main has no file iwslt2017-en-de/train/*.parquet",
        ),
        (
            *("samsum", "Salesforce/wikitext"),
            "has several configurations: wikitext-2-v1, wikitext-103-v1; choose one with hub.config in the task file",
        ),
        ("samsum", "IWSLT/iwslt2017", "Dataset scripts are no longer supported"),
    ],
)
def test_data_that_cannot_be_had(fresh_hub: Hub, task, hub, message):
    fresh_hub.gated |= {SAMSUM, "MiniLLM/uinst"} if hub is True else set()
    found = told(task, hub)
    assert message.format(url=fresh_hub.url) in found
    assert blames_no_network(found)


@pytest.mark.parametrize("task", ["samsum", "iwslt"])
def test_a_hub_that_cannot_be_reached(fresh_hub: Hub, monkeypatch, task):
    fresh_hub.stop()
    assert f"was not downloaded before (or not all of it), and {fresh_hub.url} cannot be reached now" in told(task)
    offline(monkeypatch)
    assert "was not downloaded before (or not all of it), and HF_HUB_OFFLINE=1 forbids it now" in told(task)


def test_half_a_download_of_data(fresh_hub: Hub):
    fresh_hub.cut.add("0000.parquet")
    found = told("iwslt")
    assert "was downloaded in part only: the connection broke off; the same command goes on from there" in found
    fresh_hub.cut.clear()
    assert load_task("iwslt", hub=True).splits["train"]


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadError("[Errno 104] Connection reset by peer"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
    ],
)
def test_a_connection_that_breaks_off_is_told_however_it_is_seen(error):
    assert "the connection broke off" in str(what_failed("data set", "someone/shards", error, []))
    unreachable = httpx.ConnectError("[Errno 111] Connection refused")
    assert "cannot be reached" in str(what_failed("data set", "someone/shards", unreachable, []))


def test_of_two_shards_one_is_never_taken_for_both(fresh_hub: Hub, monkeypatch, tmp_path):
    records = {split: f'{{"dialogue": "A: {split}", "summary": "B"}}\n' for split in ("train", "validation", "test")}
    shards = {"train-0.jsonl": records["train"], "train-1.jsonl": records["train"].replace("A:", "C:")}
    commit = fresh_hub.publish(
        "datasets", "someone/shards", shards | {f"{name}.jsonl": text for name, text in records.items()}
    )
    files = {"train": "train-*.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    task = TASKS["samsum"].model_copy(update={"hub": HubSource(id="someone/shards", files=files)})
    fresh_hub.cut.add("train-1.jsonl")
    assert "was downloaded in part only: the connection broke off" in told(task)
    fresh_hub.stop()
    assert f"was downloaded in part only, and {fresh_hub.url} cannot be reached now; the same command" in told(task)
    assert "was not downloaded before (or not all of it)" in told(task, f"someone/shards@{commit}")
    offline(monkeypatch)
    assert "was not downloaded before (or not all of it), and HF_HUB_OFFLINE=1 forbids it now" in told(task)
    offline(monkeypatch, on=False)
    fresh_hub.cut.clear()
    fresh_hub.start()
    assert len(load_task(task, hub=True).splits["train"]) == 2
    fresh_hub.stop()
    assert len(load_task(task, hub=True).splits["train"]) == 2
    elsewhere = tmp_path / "elsewhere"  # as other programs leave their downloads
    shutil.copytree(constants.HF_HUB_CACHE, elsewhere, symlinks=True, ignore=shutil.ignore_patterns("trees"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(elsewhere))
    assert "may be on this machine in part only: no list of its files was kept that says what train-*" in told(task)


@pytest.mark.parametrize("off", [False, True])
def test_half_a_download_by_datasets_and_then_no_hub(fresh_hub: Hub, monkeypatch, off):
    fresh_hub.cut.add("train.csv")
    assert "was downloaded in part only" in told("samsum")
    offline(monkeypatch, on=off)
    fresh_hub.stop()
    reason = "HF_HUB_OFFLINE=1 forbids it now" if off else f"{fresh_hub.url} cannot be reached now"
    assert f"was not downloaded before (or not all of it), and {reason}" in told("samsum")


def test_the_command_says_it_without_a_traceback(fresh_hub: Hub, cache, tmp_path):
    teacher, student = "openai-community/gpt2-xl@v1", "openai-community/gpt2"
    given = [
        "run",
        "--task",
        "samsum",
        "--method",
        "srkl",
        "--teacher",
        teacher,
        "--student",
        student,
        "--out",
        str(tmp_path),
    ]
    given += ["--set", "models.kind=causal", "--set", "data.hub=true"]
    fresh_hub.requests.clear()
    dry = invoke(*given, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "name: gpt2-xl-to-gpt2" in dry.stdout
    assert fresh_hub.requests == []
    result = invoke(*given)
    assert result.exit_code == 2
    assert f"the tokenizer '{teacher}' is no local folder, and has no revision 'v1'; " in result.stderr
    assert "Traceback" not in result.output


def test_advice_about_a_model_that_is_scored_does_not_lead_to_another(hub: Hub, cache, tmp_path):
    result = invoke("evaluate", "MiniLLM/KD-gpt2-12M", "--task", "dolly", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "did you mean 'MiniLLM/" in result.stderr
    assert "A local folder would do in its place: of a run, --set models.teacher=FOLDER" in result.stderr
