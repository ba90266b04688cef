"""Whole runs from the hub: every shipped pair on its tasks with methods of every kind; offline; plain text by id."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from bench.config.resolve import resolve
from bench.data import load_task
from bench.experiment import checks, context
from bench.experiment.identity import model_fingerprint
from bench.models import loading
from bench.record.record import RunRecord
from bench.system.artifacts import ArtifactCache
from bench.system.hub import COMMITS
from tests.conftest import invoke, record_of, start
from tests.hub.conftest import forget, offline
from tests.hub.contents import hub_pairs
from tests.hub.datasets_of import CONFIGURED, PARQUET
from tests.hub.models_of import ADAPTER, BASE
from tests.hub.server import Hub, commit_of

FEW_STEPS = {
    "data.max_train": 6,
    "data.max_validation": 2,
    "data.max_test": 2,
    "data.max_prompt_length": 128,
    "data.max_response_length": 5,
    "evaluation.seeds": "[10]",
    "sgo.capacity": 2,
    "sgo.rollouts": 2,
    "sgo.inner_epochs": 1,
    "plain_text.batch_size": 2,
    "precision": "fp32",
    **{
        f"{stage}.{key}": value
        for stage, steps in (("teacher_training", 1), ("init_training", 1), ("training", 3))
        for key, value in {"epochs": "null", "steps": steps, "batch_size": 2, "validations": 1}.items()
    },
}
METHODS = ("srkl", "distillm", "gkd", "minillm", "seqkd")


def arguments(tmp: Path, method: str, task: str, pair: str, **changes: object) -> list[str]:
    keys = FEW_STEPS | {name.replace("__", "."): value for name, value in changes.items()}
    given = [
        "run",
        "--preset",
        "paper",
        "--method",
        method,
        "--task",
        task,
        "--models",
        pair,
        "--out",
        str(tmp / "out"),
    ]
    return [*given, "--device", "cpu", *(part for key, value in keys.items() for part in ("--set", f"{key}={value}"))]


def task_of(models: dict[str, str]) -> str:
    """The paper's task for a pair: instructions for causal ones, summaries for T5, translation for mT5."""
    if models["kind"] == "causal":
        return "dolly"
    return "iwslt" if "mt5" in models["teacher"] else "samsum"


def made(record: RunRecord, pair: str) -> None:
    """What must be true of any of these runs."""
    models = hub_pairs()[pair]
    assert record.training.steps == 3
    figures = [
        value for row in record.curve for name, value in row.items() if name.endswith("loss") and value is not None
    ]
    assert figures
    assert all(map(math.isfinite, figures))
    assert record.comparison_fields["models"] == {
        side: f"{models[side]}@{commit_of('models', models[side], 'main')}" for side in ("teacher", "student")
    }


@pytest.fixture
def cached_loads(monkeypatch):
    """Data and tokenizers loaded once for all runs of this process; they are the same each time."""
    for module in (context, checks):
        monkeypatch.setattr(module, "load_tokenizer", _load_tokenizer)
    monkeypatch.setattr(
        context, "examples_of", lambda task, data, progress: _examples(task.name, data.model_dump_json())
    )


@functools.cache
def _load_tokenizer(name: str):
    return loading.load_tokenizer(name)


@functools.cache
def _examples(task: str, data: str):
    from bench.config.sections import DataConfig
    from bench.experiment.examples import examples_of

    return examples_of(task, DataConfig.model_validate_json(data))


@pytest.mark.parametrize(
    ("method", "task", "pair", "precision", "source"),
    [
        ("distillm", "dolly", "gpt2-xl-to-gpt2", "fp32", ("MiniLLM/dolly", "main")),
        ("minillm", "samsum", "t5-xl-to-t5-small", "bf16", ("knkarthick/samsum", "main")),
        ("seqkd", "iwslt", "t5-xl-to-t5-small", "fp32", ("IWSLT/iwslt2017", PARQUET)),
        pytest.param(
            *("distillm2", "samsum", "t5-xl-to-t5-small", "bf16", ("knkarthick/samsum", "main")),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("seqkd", "samsum", "t5-xl-to-t5-small", "bf16", ("knkarthick/samsum", "main")), marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_from_the_hub(hub: Hub, cache, tmp_path, method, task, pair, precision, source):
    record = record_of(*arguments(tmp_path, method, task, pair, precision=precision))
    made(record, pair)
    name, branch = source
    assert record.data.source.startswith(f"hub {name}@{commit_of('datasets', name, branch)}")


# a published teacher changes what is loaded, not how methods go on with it
MATRIX = [
    (pair, task, method)
    for pair in sorted(hub_pairs())
    for task in ("dolly", "iwslt", "samsum")
    for method in (("distillm",) if "published" in pair else METHODS)
]


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "task", "method"), MATRIX)
def test_every_pair_runs_on_every_task_with_methods_of_every_kind(
    hub: Hub, cache, tmp_path, cached_loads, pair, task, method
):
    made(record_of(*arguments(tmp_path, method, task, pair)), pair)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("pair", "method"),
    [
        ("openllama2-7b-to-openllama2-3b", "distillm"),
        ("openllama2-7b-to-openllama2-3b", "minillm"),
        ("mt5-xl-to-mt5-small", "distillm"),
    ],
)
def test_whole_runs_in_bf16(hub: Hub, cache, tmp_path, cached_loads, pair, method, checkpointing):
    """The preset's own precision, with adapters and without."""
    given = {f"{stage}__gradient_checkpointing": checkpointing for stage in ("teacher_training", "training")}
    record = record_of(*arguments(tmp_path, method, task_of(hub_pairs()[pair]), pair, precision="bf16", **given))
    made(record, pair)
    config = record.config
    assert (config.precision, config.training.gradient_checkpointing) == ("bf16", checkpointing)
    assert (config.models.lora is not None) == pair.startswith("openllama2")


def test_after_a_first_run_the_hub_is_not_needed(fresh_hub: Hub, cache, tmp_path, monkeypatch):
    given = arguments(tmp_path, "srkl", "samsum", "t5-xl-to-t5-small")
    first = record_of(*given)
    forget()
    offline(monkeypatch)
    assert record_of(*given).run_id == first.run_id
    forget()
    offline(monkeypatch, on=False)
    fresh_hub.stop()
    again = record_of(*given, "--fresh")
    assert (again.run_id, again.scores, again.data) == (first.run_id, first.scores, first.data)


def test_released_models_are_scored_by_their_ids(hub: Hub, cache, tmp_path):
    """By the documented command: beside each other, with the commit of each, decoded as the authors do."""
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    (documented,) = (line.split()[1:] for line in page.splitlines() if line.startswith("bench evaluate MiniLLM/"))
    names = [word for word in documented if "/" in word]
    settings = {key: value for key, value in FEW_STEPS.items() if key.startswith(("data", "evaluation", "precision"))}
    result = invoke(
        *(*documented, "--device", "cpu", "--json", "--out", str(tmp_path)),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    )
    assert result.exit_code == 0, result.output
    assert documented[-1] in " ".join(invoke("evaluate", "--help").stdout.split())
    records = [RunRecord.model_validate(one) for one in json.loads(result.stdout)]
    for record, name in zip(records, names, strict=True):
        assert record.evaluated == name.removeprefix("MiniLLM/")
        assert record.models.teacher == f"{name}@{commit_of('models', name, 'main')}"
        assert set(record.scores) == {"test", "SelfInst", "Vicuna", "S-NI", "UnNI"}
        assert record.training.steps == 0
        assert record.config.fidelity.no_repeat_ngram
        assert record.comparison_fields["config"]["fidelity"]["no_repeat_ngram"]


@pytest.mark.slow
def test_the_variables_do_what_these_tests_set_up(fresh_hub: Hub, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, read by a process of its own."""
    given = [*arguments(tmp_path, "srkl", "iwslt", "t5-xl-to-t5-small"), "--json"]
    ids = []
    for more, variables in ((), {}), (("--fresh",), {"HF_HUB_OFFLINE": "1"}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            output, errors = start(*given, *more, cache=tmp_path / "cache").communicate(timeout=120)
        assert output, errors
        ids.append(json.loads(output)["run_id"])
        fresh_hub.stop()
    assert ids[0] == ids[1]


def test_plain_text_of_the_hub_is_read_as_far_as_it_is_needed(fresh_hub: Hub, cache, tmp_path, cached_loads):
    corpus = "Skylion007/openwebtext"
    given = arguments(
        tmp_path,
        "imitkd",
        "samsum",
        "t5-xl-to-t5-small",
        plain_text__hub=f"{corpus}@{PARQUET}",
        plain_text__batch_size=4,
    )
    record = record_of(*given)
    commit = commit_of("datasets", corpus, PARQUET)
    assert record.config.plain_text.weight == 1.0
    assert record.comparison_fields["plain_text"] == f"{corpus}@{commit}"
    assert f"plain text: the first 12 texts of {corpus}@{commit} that are long enough" in record.data.notes
    assert all(row["plain_text_loss"] > 0 for row in record.curve if "plain_text_loss" in row)
    assert not [line for line in fresh_hub.requests if "0001.parquet" in line and line.startswith("GET")]
    fresh_hub.stop()
    assert record_of(*given).run_id == record.run_id
    without = invoke(*given[:-2], "--set", "plain_text.hub=MiniLLM/openwebtext")
    assert without.exit_code == 2
    assert "MiniLLM/openwebtext was not downloaded before" in without.stderr


def test_many_texts_of_the_hub_are_encoded_once_and_the_same(hub: Hub, tmp_path, cached_loads, monkeypatch):
    cache = ArtifactCache(tmp_path, lambda note: None)

    def prepared(*assignments: str) -> context.RunContext:
        given = FEW_STEPS | {"plain_text.hub": f"Skylion007/openwebtext@{PARQUET}", "plain_text.batch_size": 4}
        config, method = resolve(
            preset="paper",
            task="samsum",
            method="imitkd",
            models="t5-xl-to-t5-small",
            device="cpu",
            assignments=(*(f"{key}={value}" for key, value in given.items()), *assignments),
        )
        return context.prepare(config, method, cache)

    few = prepared()
    monkeypatch.setattr(context, "_KEPT_FROM", 12)
    first = prepared()
    shutil.rmtree(tmp_path / "plain-text")  # the texts themselves are read no more
    again = prepared()
    assert not (tmp_path / "plain-text").exists()
    for one in (first, again):
        assert list(one.auxiliary_loss.sequences) == list(few.auxiliary_loss.sequences)
        assert (one.run_id, one.notes) == (few.run_id, few.notes)
    shorter = prepared("plain_text.max_length=16")
    assert max(len(one.prompt) + len(one.response) for one in shorter.auxiliary_loss.sequences) == 16


def test_plain_text_of_a_data_set_with_configurations(fresh_hub: Hub, cache, tmp_path, cached_loads):
    corpus = "Salesforce/wikitext"
    given = arguments(
        tmp_path, "imitkd", "samsum", "t5-xl-to-t5-small", plain_text__hub=corpus, plain_text__batch_size=4
    )
    for more, words in (
        ((), f"has several configurations: {', '.join(CONFIGURED)}; choose one with --set plain_text.hub_config=NAME"),
        (("--set", "plain_text.hub_config=wikitext-2"), f"has no configuration 'wikitext-2', but {CONFIGURED[0]}, "),
        (("--set", "plain_text.hub=null", "--set", f"plain_text.hub_config={CONFIGURED[0]}"), "of no data set: name"),
    ):
        refused = invoke(*given, *more)
        assert refused.exit_code == 2
        assert words in " ".join(refused.stderr.split())
    records = [record_of(*given, "--set", f"plain_text.hub_config={name}") for name in CONFIGURED]
    commit = commit_of("datasets", corpus, "main")
    for record, name in zip(records, CONFIGURED, strict=True):
        assert record.comparison_fields["plain_text"] == f"{corpus}@{commit} ({name})"
    assert records[0].run_id != records[1].run_id
    first, second = ([row["plain_text_loss"] for row in r.curve if "plain_text_loss" in row] for r in records)
    assert first != second, "other texts were read"


def test_two_branches_of_one_repository_are_told_apart_in_a_record(fresh_hub: Hub, cache, tmp_path):
    branches = {side: fresh_hub.publish("models", BASE, {"README.md": side}, side) for side in ("teacher", "student")}
    sides = {f"models__{side}": f"{BASE}@{side}" for side in branches}
    record = record_of(*arguments(tmp_path, "kld", "dolly", "gpt2-xl-to-gpt2", **sides))
    for side, commit in branches.items():
        assert record.comparison_fields["models"][side] == f"{BASE}@{commit}"
        fresh_hub.publish("models", BASE, {"README.md": "moved"}, side)
    forget()
    file = tmp_path / "out/runs" / record.run_id / "record.json"
    again = record_of("run", "--config", str(file), "--out", str(tmp_path / "out"), "--fresh")
    assert (again.run_id, again.comparison_fields) == (record.run_id, record.comparison_fields)


def test_a_record_is_made_again_from_the_commits_that_it_has(fresh_hub: Hub, cache, tmp_path):
    """Teacher (an adapter), its base, which is the student, data, and plain text: all their branches move."""
    corpus, data = f"Skylion007/openwebtext@{PARQUET}", "knkarthick/samsum"
    given = arguments(
        *(tmp_path, "imitkd", "samsum", "gpt2-xl-to-gpt2"),
        models__teacher=ADAPTER,
        models__finetune_teacher="false",
        plain_text__hub=corpus,
        plain_text__batch_size=4,
    )
    record = record_of(*given)
    again = [
        "run",
        "--config",
        str(tmp_path / "out/runs" / record.run_id / "record.json"),
        "--out",
        str(tmp_path / "out"),
    ]
    settings = json.loads((fresh_hub.folder("models", ADAPTER, "main")[0] / "adapter_config.json").read_text())
    fresh_hub.publish("models", ADAPTER, {"adapter_config.json": json.dumps(settings | {"lora_alpha": 40})})
    moved = fresh_hub.publish("models", BASE, {"README.md": "new"})
    fresh_hub.publish("datasets", data, {"train.csv": "id,dialogue,summary\n" + "t,A: No.,He says no.\n" * 20})
    fresh_hub.publish("datasets", "Skylion007/openwebtext", {"README.md": "new"}, PARQUET)
    for fresh in ((), ("--fresh",)):
        forget()
        made_again = record_of(*again, *fresh)
        assert (made_again.run_id, made_again.scores, made_again.data) == (record.run_id, record.scores, record.data)
    forget()
    now = record_of(*again, "--set", f"models.student={BASE}@main", "--set", "plain_text.weight=0")
    assert now.comparison_fields["models"]["student"] == f"{BASE}@{moved}"
    assert now.comparison_fields["models"]["teacher"] == record.comparison_fields["models"]["teacher"]
    held = set(re.findall(r"[0-9a-f]{40}", f"{record.comparison_fields} {record.data.source}"))
    assert not held & set(COMMITS.values()), "what a record has holds for its own run alone"
    assert COMMITS[f"{BASE}@main"] == moved, "what was seen otherwise stays"
    assert model_fingerprint(ADAPTER) not in record.comparison_fields["models"].values()
    assert load_task("samsum", hub=True).source != record.data.source
    missing = tmp_path / "elsewhere.json"
    commit = commit_of("datasets", data, "main")
    text = Path(again[2]).read_text().replace(commit, "e" * 40)
    missing.write_text(re.sub(r',\n "checksum".*', "\n}\n", text, flags=re.S))
    refused = invoke("run", "--config", str(missing), "--out", str(tmp_path / "out"))
    assert f"the data set {data} has no revision '{'e' * 40}'" in " ".join(refused.stderr.split()), refused.output
