"""What is said before a run: parameters as published, memory as measured, and settings that make a stage fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from baselines.sft import CrossEntropy
from bench.config.presets import read_pair, shipped
from bench.config.resolve import resolve
from bench.experiment.planning import calibration, memory
from bench.experiment.planning.calibration import calibrate
from bench.experiment.planning.fit import fits, remedy
from bench.experiment.planning.memory import Pass, generation, step
from bench.experiment.planning.plan import GIB, PRETRAINING, buffers_of, make_plan
from bench.experiment.planning.shapes import Shape, published, published_shape, shape_of
from bench.experiment.planning.stand_ins import Setting
from bench.experiment.run import _what_fits
from bench.models.architectures import new_architecture
from bench.models.loading import load_network, parameter_count
from tests.conftest import invoke
from tests.families import make_family

GPT2 = {"model_type": "gpt2", "n_embd": 256, "n_layer": 8, "n_head": 4, "vocab_size": 16000}
T5 = {
    "model_type": "t5",
    "d_model": 256,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 6,
    "num_heads": 4,
    "vocab_size": 16000,
}

MEASURE = """
import ctypes, gc, json, logging, sys
from dataclasses import replace
from pathlib import Path
import psutil
logging.disable(logging.WARNING)
from baselines.kld import KLD
from baselines.sft import CrossEntropy
from bench.config.sections import LoraConfig
from bench.experiment.planning.memory import step, validation
from bench.experiment.planning.shapes import Shape
from bench.experiment.planning.stand_ins import Setting, job
from bench.models.architectures import new_architecture
from bench.training.auxiliary_loss import AuxiliaryLoss, LanguageModelling
from bench.training.trainer import Trainer
from distillm import OutputSource, SourceOptions, TokenSequence
given = json.loads(sys.argv[1])
kind = "seq2seq" if given["shape"]["model_type"] == "t5" else "causal"
shape = Shape("a model", "here", new_architecture(given["shape"], kind, None), kind, False)
objective = {"sft": CrossEntropy, "kld": KLD}[given["objective"]]()
parts = given["micro_batches"]
lora = LoraConfig().model_dump_json() if given["lora"] else ""
setting = Setting("cpu", False, given["sequences"], 96, 64, given["checkpointing"], parts > 1, lora)
weights = 4 * shape.parameters
trained = 4 * shape.adapter_parameters(LoraConfig()) if lora else weights
moments = 0.5 if given["optimizer"] == "adamw-8bit" else 2
planned = weights + trained * (moments + bool(lora)) + weights * objective.needs_teacher
peak, text = step(shape, shape, objective, setting).peak, None
if given["text"]:
    loss, length = LanguageModelling(kl_share=0.5), given["text"]
    beside = replace(setting, prompt=1, response=length - 1, accumulating=True)
    peak = max(peak, step(shape, shape, loss, beside).peak)
    texts = [TokenSequence(f"text {i}", (0,), (1,) * (length - 1)) for i in range(setting.sequences)]
    text = AuxiliaryLoss(loss, 1.0, texts, setting.sequences)
rows = given["validation"]
wide = replace(setting, sequences=rows, accumulating=False)
planned += max(peak, validation(shape, wide).peak)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
base = psutil.Process().memory_info().rss
Path("/proc/self/clear_refs").write_text("5")
made = job(shape, shape, objective, setting, "cpu")
validated = [replace(made.train[0], id=f"validation {i}") for i in range(rows)]
steps = {"batch_size": parts * setting.sequences, "micro_batch_size": setting.sequences, "steps": 3}
steps["optimizer"] = given["optimizer"]
source = OutputSource(given["source"], SourceOptions(), total_steps=3, batch_size=steps["batch_size"])
made = replace(
    made, auxiliary_loss=text, train=list(made.train) * parts, work=Path(sys.argv[2]),
    config=made.config.model_copy(update=steps),
    validation=replace(made.validation, sequences=validated, batch_size=rows), output_source=source,
)
Trainer(made).fit()
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([planned, peak - base]))
"""


def measured(
    folder,
    shape,
    objective="kld",
    *,
    sequences=8,
    micro_batches=1,
    checkpointing=False,
    source="dataset",
    lora=False,
    text=0,
    optimizer="adamw",
    validation=1,
):
    """Bytes of a training as planned, and as it takes in a process of its own."""
    given = {name: value for name, value in locals().items() if name != "folder"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(given), str(folder)],
        capture_output=True,
        text=True,
        check=True,
        # memory that was given back is not kept for later
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


MEASURED = {
    "gpt2": (GPT2, {"sequences": 4}),
    "gpt2 sft": (GPT2, {"objective": "sft"}),
    "gpt2 micro-batches": (GPT2, {"micro_batches": 3, "sequences": 4}),
    "gpt2 checkpointing": (GPT2, {"checkpointing": True, "micro_batches": 2, "sequences": 4}),
    "gpt2 on-policy": (GPT2, {"source": "on-policy"}),
    "gpt2 adapters": (GPT2, {"lora": True}),
    "gpt2 plain text": (GPT2, {"sequences": 4, "text": 320}),
    "gpt2 8-bit": (GPT2, {"sequences": 4, "optimizer": "adamw-8bit"}),
    # few sequences in training, more in validation
    "gpt2 validation": (GPT2, {"checkpointing": True, "sequences": 1, "validation": 64, "objective": "sft"}),
    "t5": (T5, {}),
    "t5 checkpointing": (T5, {"checkpointing": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "how"), MEASURED.values(), ids=MEASURED)
def test_memory_is_as_measured(shape, how, tmp_path):
    planned, taken = measured(tmp_path, shape, **how)
    assert planned == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("name", [name for name in published() if "like" not in published()[name]])
def test_parameters_are_as_published(name):
    assert published_shape(name).parameters == published()[name]["parameters"]


def test_every_pair_of_the_hub_can_be_planned_without_it():
    pairs = [read_pair(name).settings["models"] for name in shipped("pairs")]
    named = {models[side] for models in pairs for side in ("teacher", "student")}
    assert {name for name in named if "/" in name} <= set(published())


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_an_output_layer_of_its_own_is_counted(family, untied, tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    network = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, vocab_size=300, **sizes))
    if untied:
        network.lm_head.weight = torch.nn.Parameter(torch.randn(300, 16))
    network.save_pretrained(tmp_path)
    loaded = sum(p.numel() for p in load_network(str(tmp_path), "seq2seq").parameters())
    assert parameter_count(str(tmp_path), "seq2seq") == loaded
    assert loaded == sum(p.numel() for p in network.parameters())


def test_a_student_from_scratch_has_the_vocabulary_of_its_tokenizer():
    given = ("models.student=scratch", "models.student_config.model_type=gpt2")
    config, _ = resolve(
        preset="paper", task="dolly", method="kld", models="gpt2-xl-to-gpt2", assignments=(*given, "data.hub=true")
    )
    assert shape_of(config, "student").config.vocab_size == 50257


def test_adapters_are_planned_beside_what_is_frozen():
    config, _ = resolve(
        preset="paper",
        task="dolly",
        method="sft",
        models="openllama2-7b-to-openllama2-3b",
        assignments=("data.max_response_length=8",),
    )
    student = published_shape(config.models.student)
    plan = make_plan(config, "cuda")
    adapters = 26 * 2 * 2 * 16 * 3200  # layers, queries and values, A and B, rank, width
    assert student.adapter_parameters(config.models.lora) == adapters
    training = next(stage for stage in plan.stages if stage.name == "training")
    assert training.weights == 2 * student.parameters + 4 * adapters  # frozen in bf16
    assert (training.gradients, training.optimiser) == (4 * adapters, 8 * adapters)


def xl_config(*assignments):
    config, _ = resolve(
        preset="paper", task="dolly", method="distillm", models="gpt2-xl-to-gpt2", assignments=assignments
    )
    return config


@pytest.fixture(scope="module")
def xl():
    return make_plan(xl_config("teacher_training.micro_batch_size=null"), "cuda")


def test_a_plan_of_a_run_on_a_gpu_adds_up(xl):
    assert [stage.name for stage in xl.stages] == [
        "teacher",
        "teacher scores",
        "init student",
        "training",
        "evaluation",
    ]
    for stage in xl.stages:
        step = stage.gradients + stage.activations + stage.output_layer + stage.buffers * (stage.gradients > 0)
        held = stage.weights + stage.optimiser + stage.teacher
        assert stage.peak == pytest.approx(held + max(step, stage.generation))  # no captured pass keeps gradients
    training = {stage.name: stage for stage in xl.stages}["training"]
    assert training.weights == 4 * 124_439_808
    assert training.optimiser == 8 * 124_439_808
    assert training.teacher == 2 * 1_557_611_200
    # a matrix product has two operations a weight and token, and the way back twice as many
    sequences, tokens = 20 * (11_435 // 32) * 32, 71 + 56
    assert training.flops > sequences * tokens * (6 * 124e6 + 2 * 1557e6) * 0.8
    assert xl.seconds is None


def test_a_step_of_pairs_trains_on_twice_the_batch():
    def planned(*more):
        config, _ = resolve(task="dolly", method="distillm2", assignments=("training.batch_size=8", *more))
        return make_plan(config, "cpu").stages[-2]

    whole, half = planned(), planned("training.micro_batch_size=8")
    assert (whole.name, whole.micro_batch, half.micro_batch) == ("training", 16, 8)
    assert whole.activations > 1.5 * half.activations
    assert whole.peak == planned("training.micro_batch_size=16").peak


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_buffers_of_captured_steps_are_planned(family):
    """On a GPU, for families that have them: fixed buffers and a copy of the weights, which stay beside steps."""
    shape = Shape("a model", "here", make_family(family).config, "causal", False)
    pass_on = {device: generation(shape, None, Setting(device, True, 5, 20, 12), 5) for device in ("cpu", "cuda")}
    assert pass_on["cuda"].flops == pytest.approx(pass_on["cpu"].flops, rel=0.15)
    assert pass_on["cpu"].stays == 0
    if family == "bloom":
        assert pass_on["cuda"].stays == 0
    else:
        buffers = 8 * 128 * 2 * 2 * 32 * 2  # rows x tokens x layers x (keys and values) x width in bfloat16
        weights = 2 * (2 * 12 * 32 * 32 + 97 * 32)
        assert pass_on["cuda"].stays == pytest.approx(buffers + weights, rel=0.1)
        assert pass_on["cuda"].peak > pass_on["cpu"].peak


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_generation_of_a_deep_network_is_planned_from_few_of_its_layers(device, monkeypatch):
    """Of two layers logits take most, of many keys and values: the peak is no straight line, its three parts are."""
    sizes = {"n_embd": 64, "n_head": 2, "n_layer": 24, "vocab_size": 16000}
    shape = Shape("a model", "here", new_architecture(GPT2 | sizes, "causal", None), "causal", False)
    setting = Setting(device, device == "cuda", 8, 100, 28)
    planned = generation(shape, None, setting, 8)
    monkeypatch.setattr(memory, "_SHALLOW", 24)
    whole = generation(shape, None, setting, 8)
    assert planned.peak == pytest.approx(whole.peak, rel=0.01)


def training_of(method, *assignments):
    given = ("data.max_prompt_length=100", "data.max_response_length=28", "teacher_training.micro_batch_size=8")
    config, _ = resolve(
        preset="paper", task="dolly", method=method, models="gpt2-medium-to-gpt2", assignments=(*given, *assignments)
    )
    return next(stage for stage in make_plan(config, "cuda").stages if stage.name == "training")


def test_kinds_of_decoding_have_buffers_of_their_own_and_share_the_copy_of_the_weights():
    rows, scored = 32, 64  # of a batch of training and of a validation
    keys = 128 * 2 * 2 * 12 * 768  # tokens x (keys and values) in bfloat16 x layers x width, of the student
    of_teacher = 128 * 2 * 2 * 24 * 1024
    copy = 2 * (12 * 12 * 768**2 + 50257 * 768)
    alike = training_of("distillm")
    assert alike.buffers == pytest.approx(copy + scored * keys, rel=0.01)
    cooler = training_of("distillm", "evaluation.temperature=0.5")
    assert cooler.buffers == pytest.approx(copy + (scored + rows) * keys, rel=0.01)
    assert cooler.peak - alike.peak == pytest.approx(rows * keys, rel=0.02)
    assert training_of("distillm", "evaluation.top_p=0.9").buffers == cooler.buffers
    mixed = training_of("minillm")
    assert mixed.buffers == pytest.approx(copy + (scored + rows) * keys + rows * of_teacher, rel=0.01)
    assert mixed.generation > mixed.buffers


@pytest.mark.parametrize(
    ("scored", "rolled_out", "stay"),
    [
        (1.0, 1.0, 2.5),
        (2.0, 3.0, 3.5),  # the one that was used for longest goes
        (3.0, 2.0, 3.5),
        (3.8, 2.0, 2.5),  # freed after each validation
        (1.0, 6.0, 6.5),  # the last one is there, whatever it takes
    ],
)
def test_buffers_of_kinds_are_bounded_together(scored, rolled_out, stay):
    """By 4 GiB, with a copy of the weights of 0.5 GiB beside them."""
    first, second = (
        Pass(0, 0, (own + 0.6) * GIB, 0, 0, 0, (own + 0.5) * GIB, 0.5 * GIB) for own in (scored, rolled_out)
    )
    found, most = buffers_of(first, second, alike=False)
    assert found == pytest.approx(stay * GIB)
    assert most >= found
    assert buffers_of(first, None, alike=False)[0] == pytest.approx((scored + 0.5) * GIB * (scored <= 3.5))
    assert buffers_of(None, second, alike=False)[0] == second.stays


def test_a_teacher_that_is_mixed_in_keeps_keys_and_values_of_all_its_layers():
    """The peak of a mixture holds what stays, and the prompts' keys and values while buffers are filled."""
    student, teacher = (published_shape(f"openai-community/{name}") for name in ("gpt2", "gpt2-medium"))
    setting = Setting("cuda", True, 32, 100, 28)
    mixed, alone = (generation(student, other, setting, 32) for other in (teacher, None))
    keys = 32 * 2 * 2 * 24 * 1024  # rows x (keys and values) in bfloat16 x layers x width, of a token
    assert mixed.buffers - alone.buffers == pytest.approx(128 * keys, rel=0.01)
    assert mixed.copies == alone.copies
    assert mixed.peak > mixed.stays + 100 * keys


def test_plain_text_beside_the_batch_is_planned():
    def training(*assignments):
        plan = make_plan(small_config(*assignments), "cuda")
        return next(stage for stage in plan.stages if stage.name == "training"), " ".join(plan.notes)

    def small_config(*assignments):
        given = ("training.steps=10", "training.batch_size=8", "plain_text.batch_size=32", *assignments)
        return resolve(preset="paper", task="dolly", method="kld", models="gpt2-xl-to-gpt2", assignments=given)[0]

    none, untold = training("plain_text.weight=0")
    some, told = training("plain_text.weight=1", "plain_text.max_length=512")
    tokens, inner = 10 * 32 * 511, 85_054_464  # weights of GPT-2 outside its embeddings
    output_layer = 50257 * 768
    assert some.flops - none.flops == pytest.approx(6 * (inner + output_layer) * tokens, rel=0.15)
    longer, _ = training("plain_text.weight=1", "plain_text.max_length=1024")
    assert some.activations < longer.activations
    assert longer.peak >= some.peak >= none.peak
    assert "32 texts of 512 tokens a step" in told
    assert "plain text" not in untold


def test_what_makes_a_stage_fit_does(xl):
    (teacher,) = (stage for stage in xl.stages if stage.name == "teacher")
    assert not fits(teacher, 40 * GIB)
    found = remedy(xl, teacher, 40 * GIB)
    assert found is not None
    assert all(setting.startswith(("teacher_training.", "evaluation.batch_size=")) for setting in found.settings)
    plan = make_plan(xl_config(*found.settings), "cuda")
    again = next(stage for stage in plan.stages if stage.name == "teacher")
    assert fits(again, 40 * GIB)
    assert again.peak == pytest.approx(found.peak)
    assert remedy(xl, teacher, 8 * GIB) is None


@pytest.mark.slow
def test_the_command_plans_from_data_and_measures(cache):
    result = invoke("plan", "--method", "gkd", "--task", "dolly", "--price", "2", "--calibrate", "--json")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.stdout)
    assert "the data" in plan["notes"][0]
    assert all(stage["seconds"] > 0 and stage["fits"] for stage in plan["stages"])
    assert plan["money"] == pytest.approx(2 * plan["seconds"] / 3600)


def test_a_plan_leaves_the_folder_it_is_made_in_alone(tmp_path, monkeypatch):
    """It runs the trainer, which clears its own folder of damaged checkpoints and of what killed processes left."""
    monkeypatch.chdir(tmp_path)
    kept = [tmp_path / "step-000100" / "model.safetensors", tmp_path / "below" / ".download.part"]
    for path in kept:
        path.parent.mkdir()
        path.write_text("the user's")
    shape = Shape("a model", "here", new_architecture(GPT2 | {"n_embd": 20}, "causal", None), "causal", False)
    step(shape, None, CrossEntropy(), Setting("cpu", False, 2, 5, 4))
    assert [path.read_text() for path in kept] == ["the user's"] * 2


@pytest.mark.slow
def test_the_plans_of_all_pairs_are_those_in_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "planning.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "-to-" in line]
    documented = {row[0]: row[1:] for row in rows if len(row) == 8}
    given = ("--preset", "paper", "--models", "all", "--method", "distillm", "--memory-gib", "80", "--no-calibrate")
    result = invoke("plan", *given, "--json")
    assert result.exit_code == 0, result.output
    plans = {plan["models"]: plan for plan in json.loads(result.stdout)}
    assert plans.keys() == documented.keys()
    for name, (task, *_, tuning, training, operations, _) in documented.items():
        stages = {stage["name"]: stage for stage in plans[name]["stages"]}
        before = max(stages[one]["peak"] for one in ("teacher", "init student") if one in stages)
        planned = [before / GIB, stages["training"]["peak"] / GIB, sum(s["flops"] for s in stages.values()) / 1e15]
        assert plans[name]["task"] == task
        assert planned == pytest.approx(
            [float(one.replace(",", "")) for one in (tuning, training, operations)], rel=0.01
        )
        assert all(stage["fits"] for stage in stages.values())


SCRATCH = ("models.student=scratch", "student_pretraining.length=32", "data.max_response_length=8")


def test_the_students_pretraining_is_a_stage_of_full_sequences(cache):
    """Its operations: six a parameter and token, less those of embeddings, which are looked up."""
    given = (*SCRATCH, "student_pretraining.batch_size=4", "training.gradient_checkpointing=true")
    of_steps = {}
    for amount in ("steps=20", "steps=40", "epochs=2"):
        config, _ = resolve(
            preset="tiny", task="dolly", method="sft", assignments=(*given, f"student_pretraining.{amount}")
        )
        plan = make_plan(config, "cpu")
        of_steps[amount] = {stage.name: stage for stage in plan.stages}.get(PRETRAINING)
        told = next(note for note in plan.notes if "pretraining" in note)
        assert ("not planned" in told) == (amount == "epochs=2")
    short, long = of_steps["steps=20"], of_steps["steps=40"]
    assert of_steps["epochs=2"] is None
    assert long.flops == pytest.approx(2 * short.flops)
    assert (long.peak, short.tokens) == (short.peak, 0)
    inner = plan.student.parameters - plan.student.network().get_input_embeddings().weight.numel()
    assert 6 * inner <= short.flops / (20 * 4 * 31) <= 1.5 * 6 * plan.student.parameters
    assert short.weights == 4 * plan.student.parameters


def test_lack_of_memory_in_a_pretraining_names_its_own_settings():
    """By the plan where that covers it, which it does not for epochs of a text."""
    for amount, told in (
        ("steps=20", "By the plan it takes"),
        ("epochs=2", "To need less: --set student_pretraining."),
    ):
        config, _ = resolve(
            preset="tiny", task="dolly", method="sft", assignments=(*SCRATCH, f"student_pretraining.{amount}")
        )
        said = _what_fits(config, "init student")
        assert told in said
        assert (" --set student_pretraining." in said) == (amount == "epochs=2")


def test_the_command_shows_a_table_of_80_columns(cache, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke("plan", "--task", "dolly", "--no-calibrate", "--memory-gib", "0.05", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[3:19])) <= 80
    assert "do not fit" in result.stdout
    assert "--set " in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "tpu"], "plans are made for cpu and cuda"),
        (["--memory-gib", "40", "--calibrate"], "--calibrate measures this cpu device"),
        (["--device", "cuda"], "--memory-gib 40"),
        (["--price", "2", "--no-calibrate"], "--price 2: money comes from hours"),
        (["--price", "2", "--memory-gib", "40"], "plan for this device without --no-calibrate"),
        (["--models", "all", "--task", "my.yaml"], "the pairs that ship have the tasks dolly, samsum and iwslt"),
        (["--set", "data.hub=OTHER/samsum"], "the size of OTHER/samsum on the hub is not known here"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_what_cannot_be_planned_is_told(options, told, cache):
    result = invoke("plan", *options)
    assert (result.exit_code, told in result.stderr) == (2, True), result.output


def test_speeds_are_of_the_whole_model():
    shape = Shape(
        "a model", "here", new_architecture(GPT2 | {"n_embd": 64, "vocab_size": 500}, "causal", None), "causal", False
    )
    speed = calibrate({"x": shape}, torch.device("cpu"), bf16=False, rows=4, prompt=16, response=16).of(shape)
    assert speed.training > 0
    assert speed.decode_step > 0
    assert speed.measured == "1 and 2 of 8 layers"


@pytest.mark.slow
def test_runs_of_one_pair_are_measured_once(cache, tmp_path, monkeypatch):
    measured, really = [], calibration._time_of_decoding

    def counted(shape, *how):
        measured.append((shape, *how))
        return really(shape, *how)

    monkeypatch.setattr(calibration, "_time_of_decoding", counted)
    calibration._measured.cache_clear()
    given = ("suite", "table1", "--plan", "--calibrate", "--seeds", "10", "--out", str(tmp_path))
    result = invoke(*given, "--only", "kld", "--only", "rkld")
    assert result.exit_code == 0, result.output
    assert all(f"\n {method} " in result.stdout for method in ("KLD", "RKLD"))
    assert "hours" in result.stdout
    parts = 2 + 1  # the teacher on one and on two of its layers, the student of two layers as it is
    assert len(measured) == len(set(measured)) == parts


def test_a_shape_of_fewer_layers_has_lists_of_as_many():
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "vocab_size": 100}
    architecture = AutoConfig.for_model("glm4_moe_lite", **sizes, layer_types=["full_attention"] * 4)
    cut = Shape("a model", "here", architecture, "causal", False).of_depth(2)
    assert cut.config.mlp_layer_types == architecture.mlp_layer_types[:2]
    assert cut.config.layer_types == ["full_attention"] * 2
    assert len(architecture.mlp_layer_types) == 4
