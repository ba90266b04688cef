"""`bench run --push-to-hub`: what arrives at the hub, and what is told where it does not."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from bench.config.resolve import resolve
from bench.experiment.push import prepare_push
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from tests.conftest import invoke, short
from tests.hub.conftest import offline
from tests.hub.server import TOKEN, Hub

REPOSITORY = "me/my-student"


@pytest.fixture
def words(cache, tmp_path) -> list[str]:
    given = ["run", "--method", "srkl", "--task", "samsum", "--out", str(tmp_path / "results"), "--quiet"]
    return [*given, *short(), "--push-to-hub", REPOSITORY]


def test_student_record_and_card_arrive_and_a_recorded_run_is_pushed_again(
    fresh_hub: Hub, words, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    told = invoke(*words)
    assert told.exit_code == 0, told.output
    assert f"pushed: {fresh_hub.url}/{REPOSITORY}/commit/" in told.stdout
    files = fresh_hub.pushed[REPOSITORY]
    assert {"README.md", "record.json", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert "manifest.json" not in files
    for name, content in files.items():
        (tmp_path / "pushed").mkdir(exist_ok=True)
        (tmp_path / "pushed" / name).write_bytes(content)
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "pushed")
    AutoTokenizer.from_pretrained(tmp_path / "pushed")
    (record,) = Store(tmp_path / "results").all()
    assert json.loads(files["record.json"])["run_id"] == record.run_id
    head, card = files["README.md"].decode().removeprefix("---\n").split("\n---\n", 1)
    about = yaml_text.parse(head)
    assert (about["library_name"], about["pipeline_tag"]) == ("transformers", "text2text-generation")
    (result,) = about["model-index"][0]["results"]
    mean = record.scores["test"].primary.mean
    assert result["metrics"][0] == {"type": "rouge_l", "name": "ROUGE-L", "value": round(mean, 2)}
    assert f"| this model | {mean:.1f}" in card
    assert f"| teacher | {record.teacher_scores['test'].primary.mean:.1f}" in card
    assert "generated to test methods" in card
    assert str(tmp_path) not in card
    fresh_hub.pushed[REPOSITORY] = {"pytorch_model.bin": b"of an earlier push", "notes.txt": b"kept"}
    assert invoke(*words).exit_code == 0
    assert fresh_hub.pushed[REPOSITORY] == files | {"notes.txt": b"kept"}


def test_an_upload_that_fails_is_told_and_the_run_stays_recorded(fresh_hub: Hub, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(fresh_hub, "upload_mode", "lfs")
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    assert "is recorded, but not pushed to me/my-student; the same command tries again" in " ".join(
        result.stderr.split()
    )
    assert len(list(Store(tmp_path / "results").all())) == 1


def test_adapters_to_a_model_in_a_folder_are_not_pushed(fresh_hub: Hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    lora = ("models.lora.targets=[q_proj, v_proj]",)
    config, _ = resolve(preset="tiny", task="iwslt", method="srkl", assignments=lora)
    with pytest.raises(BenchError, match=r"\(shipped\): add --set models.lora.save=merged"):
        prepare_push(REPOSITORY, config.models)
    assert not fresh_hub.pushed
    prepare_push(REPOSITORY, config.models.model_copy(update={"student": "openai-community/gpt2"}))
    assert fresh_hub.pushed == {REPOSITORY: {}}


@pytest.mark.parametrize(
    ("token", "repository", "told"),
    [
        ("", REPOSITORY, "nobody is logged in: hf auth login"),
        ("hf_wrong", REPOSITORY, "the repository cannot be made"),
        (TOKEN, "my-student", "expected OWNER/NAME"),
        (TOKEN, "a/b/c", "expected OWNER/NAME"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_any_work(
    fresh_hub: Hub, words, tmp_path, monkeypatch, token, repository, told
):
    monkeypatch.setenv("HF_TOKEN", token)
    result = invoke(*words[:-1], repository)
    assert (result.exit_code, told in " ".join(result.stderr.split())) == (2, True), result.output
    assert not (tmp_path / "results").exists()


def test_without_a_network_it_is_told_before_any_work(fresh_hub: Hub, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fresh_hub.stop()
    result = invoke(*words)
    assert (result.exit_code, "cannot be made: ConnectError" in " ".join(result.stderr.split())) == (2, True)
    offline(monkeypatch)
    result = invoke(*words)
    assert (result.exit_code, "HF_HUB_OFFLINE=1 forbids it" in result.stderr) == (2, True)
    assert not (tmp_path / "results").exists()
