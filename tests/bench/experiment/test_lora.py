"""Runs that train LoRA adapters, from configuration to record, on data of a few lines and models made here."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bench.config.resolve import resolve
from bench.experiment.checks import examine
from bench.experiment.pair import frozen
from bench.experiment.run import STUDENT, Outcome
from bench.experiment.run import run as run_of
from bench.experiment.workshop import Workshop
from bench.models.language_model import Common, LanguageModel
from bench.models.loading import load_tokenizer, parameter_count
from bench.models.lora import SETTINGS, WEIGHTS
from bench.record.store import PREDICTIONS, Store
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from bench.system.progress import Reporter
from tests import tiny

SHORT = {"steps": 4, "batch_size": 4, "learning_rate": 0.05, "warmup_steps": 0, "validations": 1, "select_by": "loss"}
ALPHA_LORA = {"rank": 2, "alpha": 8}
FAMILY = {"samsum": "gpt2", "iwslt": "t5"}  # what the pair of a task is here


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder) -> Path:
    """Data of a few lines, and two pretrained models of two families."""
    root, rng = tmp_path_factory.mktemp("world"), random.Random(0)
    words = ["cat", "dog", "sat", "mat", "road", "land", "north", "long", "short", "text"]
    for task, (given, wanted) in {"samsum": ("dialogue", "summary"), "iwslt": ("en", "de")}.items():
        (root / task).mkdir()
        for split, size in (("train", 16), ("validation", 4), ("test", 4)):
            rows = [
                {"id": f"{split}-{i}", given: " ".join(rng.choices(words, k=4)), wanted: rng.choice("abcd")}
                for i in range(size)
            ]
            (root / task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizers = tiny.tokenizers_in(tokenizer_folder)
    for family in FAMILY.values():
        for side in ("teacher", "student"):
            longer = {"n_positions": 256} if family == "gpt2" else {}
            tokenizer = tokenizers[tiny.kind_of(family)]
            model = LanguageModel.from_scratch(tiny.ARCHITECTURES[family] | longer, tokenizer, tiny.CPU, side)
            model.save(root / f"{family}-{side}")
    return root


@pytest.fixture(scope="module")
def assigned(world):
    """A function from a method, a task and options (`a__b` stands for `a.b`) to a configuration and a method."""

    def make(method="kld", task="samsum", **changes):
        family = FAMILY[task]
        settings = {
            "models.teacher": str(world / f"{family}-teacher"),
            "models.student": str(world / f"{family}-student"),
            "models.tokenizer": "teacher",
            "models.lora": ALPHA_LORA,
            "data.dir": str(world / task),
            "data.max_response_length": 6,
            "teacher_training": SHORT,
            "init_training": SHORT,
            "training": SHORT,
            "evaluation.seeds": [10],
        } | {name.replace("__", "."): value for name, value in changes.items() if name != "init"}
        return resolve(
            preset="tiny",
            task=task,
            models="tiny-llama" if family == "gpt2" else "tiny-t5",
            method=method,
            init=changes.get("init"),
            device="cpu",
            assignments=[f"{key}={json.dumps(value)}" for key, value in settings.items()],
        )

    return make


@pytest.fixture(scope="module")
def run(world, assigned):
    """A function that makes a run; all share a cache."""

    def made(*arguments, out="out", **changes) -> Outcome:
        reporter = Reporter(Console(stderr=True), quiet=True)
        workshop = Workshop(ArtifactCache(world / "cache", reporter.note), reporter)
        config, method = assigned(*arguments, **changes)
        return run_of(config, method, Store(world / out), workshop)

    return made


def adapters(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


@pytest.mark.parametrize(
    ("method", "task", "layers"),
    [
        ("distillm", "samsum", {"c_attn"}),
        ("minillm", "samsum", {"c_attn"}),
        ("seqkd", "samsum", {"c_attn"}),
        ("distillm", "iwslt", {"q", "v"}),
        pytest.param("minillm", "iwslt", {"q", "v"}, marks=pytest.mark.slow),
        pytest.param("gkd", "iwslt", {"q", "v"}, marks=pytest.mark.slow),
    ],
)
def test_adapters_of_teacher_and_student_are_trained(method, task, layers, run, world):
    outcome = run(method, task, sgo__rollouts=8) if method == "minillm" else run(method, task)
    models, student = outcome.record.models, outcome.folder / STUDENT
    base = world / f"{FAMILY[task]}-student"
    trained = adapters(student)
    assert {name.split(".")[-3] for name in trained} == layers
    assert models.trained_parameters == sum(weight.numel() for weight in trained.values())
    assert models.student_parameters == parameter_count(str(base), "causal" if task == "samsum" else "seq2seq") + (
        models.trained_parameters
    )
    settings = json.loads((student / SETTINGS).read_text())
    assert (settings["base_model_name_or_path"], settings["r"], settings["lora_alpha"]) == (str(base), 2, 8)
    assert settings["lora_dropout"] == 0.1
    assert str(world / f"{FAMILY[task]}-teacher") in {_base(p.parent) for p in world.glob(f"cache/teacher/*/{WEIGHTS}")}


def test_adapters_go_on_from_those_of_the_init_student_or_begin_by_the_seed(run, world):
    frozen = {"training__learning_rate": 1e-30}  # what training begins from stays as it was
    kept = run("kld", init="sft", **frozen)
    (init,) = [p.parent for p in (world / "cache" / "init-student").rglob(WEIGHTS) if "gpt2" in _base(p.parent)]
    for name, weight in adapters(kept.folder / STUDENT).items():
        assert torch.allclose(weight, adapters(init)[name])
        assert weight.any()
    new = [run("kld", init="pretrained", seed=seed, **frozen).folder / STUDENT for seed in (10, 11)]
    first, second = map(adapters, new)
    for name in first:
        if "lora_B" in name:
            assert not (first[name].abs() > 1e-20).any()
        else:
            assert not torch.allclose(first[name], second[name])
            assert not torch.allclose(first[name], adapters(init)[name])


def _base(folder: Path) -> str:
    return str(json.loads((folder / SETTINGS).read_text())["base_model_name_or_path"])


def test_the_merged_student_is_a_plain_model_with_the_adapters_numbers(run, world):
    adapter = run("distillm")
    merged = run("distillm", models__lora={**ALPHA_LORA, "save": "merged"})
    assert adapter.record.run_id != merged.record.run_id
    assert (adapter.folder / PREDICTIONS).read_bytes() == (merged.folder / PREDICTIONS).read_bytes()
    assert adapter.record.curve == merged.record.curve
    assert not list((merged.folder / STUDENT).glob("adapter*"))
    tokenizer = tiny.tokenizers_in(world / "gpt2-student")["causal"]
    one, other = (
        LanguageModel.load(str(outcome.folder / STUDENT), tokenizer, tiny.CPU) for outcome in (adapter, merged)
    )
    assert torch.allclose(one.score(tiny.sequences(2, 3)), other.score(tiny.sequences(2, 3)), atol=1e-5)


def test_a_frozen_adapter_keeps_its_precision_in_bf16(run, world):
    """Merged in bfloat16, an update below half a unit in the last place of a weight would vanish."""
    folder = run("distillm").folder / STUDENT
    tokenizer = tiny.tokenizers_in(world / "gpt2-student")["causal"]
    context = SimpleNamespace(
        config=SimpleNamespace(precision="bf16"), tokenizer=tokenizer, device=tiny.CPU, common=Common()
    )
    model = frozen(context, str(folder))
    kept = {name: weight for name, weight in model.network.named_parameters() if "lora_" in name}
    assert kept
    assert {weight.dtype for weight in kept.values()} == {torch.float32}
    assert {w.dtype for name, w in model.network.named_parameters() if name not in kept} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_an_adapter_serves_as_teacher_and_as_student(run, assigned, world):
    folder = str(run("distillm").folder / STUDENT)
    teacher = run("kld", models__teacher=folder, models__finetune_teacher=False)
    assert f"the teacher {folder} is used as it is: it was not trained here" in teacher.record.data.notes
    assert teacher.record.models.teacher_parameters == parameter_count(str(world / "gpt2-student"), "causal")
    student = run("kld", models__student=folder, models__lora=None)
    assert student.record.models.trained_parameters == student.record.models.student_parameters
    assert not (student.folder / STUDENT / WEIGHTS).exists()
    with pytest.raises(BenchError, match=r"models.student=.* is an adapter already.*--set models.lora=null"):
        examine(assigned("kld", models__student=folder)[0])


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (
            {"targets": ["q_proj"]},
            r"models.lora.targets: no layer of .*gpt2-teacher is named 'q_proj'; its layers: c_attn",
        ),
        ({"targets": ["wte"]}, "cannot sit in the embeddings or the output layer"),
    ],
)
def test_targets_are_checked_before_anything_is_done(lora, words, assigned):
    with pytest.raises(BenchError, match=words):
        examine(assigned("kld", models__lora=lora)[0])


def test_an_adapter_without_a_tokenizer_has_its_bases(run, tmp_path):
    folder = run("distillm").folder / STUDENT
    for name in (SETTINGS, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert load_tokenizer(str(tmp_path)).get_vocab() == load_tokenizer(str(folder)).get_vocab()


def test_runs_without_adapters_keep_their_identity(assigned):
    plain = assigned("kld", models__lora=None)[0]
    assert "lora" not in plain.identity()["models"]
    assert assigned("kld")[0].identity()["models"]["lora"]["rank"] == 2
