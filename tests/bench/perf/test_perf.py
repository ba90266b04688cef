"""What `bench perf` measures: arms take turns, what is missing is told, and the record holds every sample."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.perf import commands, evaluation, first_engine, generation, head, installed, step
from bench.perf.measure import OURS, Arm, Comparison, Meter, Pace, Sample, Timing, compare, timed
from bench.perf.record import read
from bench.perf.targets import CPU as CPU_TARGETS
from bench.perf.targets import CUDA, EVERYWHERE, Target, targets
from bench.perf.workload import Workload, ending_model, gpt2, lengths, untouched
from bench.record.store import Store
from bench.system.errors import BenchError
from distillm import srkl
from distillm.divergences import kld
from tests.conftest import invoke

CPU = torch.device("cpu")
TINY = dataclasses.replace(
    Workload.on(CPU, quick=True),
    student=dataclasses.replace(gpt2(1, 16, 2), vocabulary=300),
    teacher=dataclasses.replace(gpt2(1, 32, 2), vocabulary=300),
    families={"GPT-2": (dataclasses.replace(gpt2(1, 16, 2), vocabulary=300), (4,))},
    head_tokens=(6, 12),
    batch_sizes=(2,),
    pace=Pace(1, 1, 0.0, warm_up=False),
    steps=2,
    uncounted=1,
    texts=5,
    longest_prompt=20,
    longest_response=9,
    padded_to=32,
)


def fixed(seconds: float, memory: float | None = None) -> Timing:
    return Timing(samples=[Sample(work=2.0, cpu_seconds=seconds, wall_seconds=9.0, memory_mib=memory)])


def comparison(**arms: Timing) -> Comparison:
    return Comparison(part="head", name="it", unit="pass", clock="cpu", arms=arms, absent={}, order=[])


def test_arms_take_turns_each_second_round_in_reverse():
    called: list[str] = []

    def arm(name):
        return timed(CPU, lambda: float(called.append(name) is None))

    found = compare("head", "it", "pass", CPU, Pace(2, 9, 0.0), arm("ours"), {"other": arm("other"), "third": "why"})
    assert called == ["other", "ours", "ours", "other", "other", "ours"]
    assert found.order == called[2:]  # the warm-up does not count
    assert {name: len(timing.samples) for name, timing in found.arms.items()} == {"ours": 2, "other": 2}
    assert found.absent == {"third": "why"}


def test_rounds_go_on_until_the_time_is_over_or_there_are_enough():
    def rounds(pace: Pace) -> int:
        found = compare("head", "it", "pass", CPU, pace, timed(CPU, lambda: time.sleep(0.01) or 1.0), {})
        return len(found.order)

    assert rounds(Pace(2, 9, 0.0)) == 2
    assert rounds(Pace(1, 4, 60.0)) == 4
    assert 2 <= rounds(Pace(1, 900, 0.05)) < 20


def test_an_arm_that_fails_is_absent_but_ours_may_not():
    def fail() -> float:
        raise ValueError("out of luck\nand more")

    found = compare("head", "it", "pass", CPU, Pace(2, 2, 0.0), timed(CPU, lambda: 1.0), {"other": timed(CPU, fail)})
    assert (list(found.arms), found.absent) == (["ours"], {"other": "failed: ValueError: out of luck"})
    with pytest.raises(ValueError, match="out of luck"):
        compare("head", "it", "pass", CPU, Pace(1, 1, 0.0), timed(CPU, fail), {})


def test_ratios_are_of_medians_for_a_unit_of_work():
    found = comparison(ours=fixed(1.0, 10.0), other=fixed(3.0, 40.0), unmeasured=fixed(1.0))
    assert (found.speed("other"), found.memory("other")) == (3.0, 0.25)
    assert (found.speed("absent"), found.memory("unmeasured"), found.memory("absent")) == (None, None, None)
    samples = [Sample(work=w, cpu_seconds=s, wall_seconds=0.0) for w, s in ((1, 5.0), (10, 10.0), (1, 2.0))]
    assert Timing(samples=samples).seconds("cpu") == 2.0


@pytest.mark.parametrize(
    ("figure", "bound", "value", "met"),
    [("speed", 2.5, 3.0, True), ("speed", 3.5, 3.0, False), ("memory", 0.2, 0.25, False), ("seconds", 0.5, 0.5, True)],
)
def test_a_target_is_a_bound_on_a_figure(figure, bound, value, met):
    found, target = comparison(ours=fixed(1.0, 10.0), other=fixed(3.0, 40.0)), Target("it", "other", figure, bound, "")
    assert target.value(found) == value
    assert target.met(value) is met


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process set its peak back")
def test_memory_is_the_peak_above_what_was_held():
    held = torch.ones(2**22)
    meter = Meter(CPU)
    torch.ones(2**24)  # 64 MiB
    sample = meter.sample(1.0)
    assert sample.memory_mib is not None
    assert 60 < sample.memory_mib < 70
    assert Meter(CPU).sample(1.0).memory_mib < 2  # a peak of before is forgotten
    del held


def test_lengths_are_those_of_a_geometric_distribution():
    found = lengths(1000, 40, 10_000, shuffled_by=0)
    assert sum(found) / len(found) == pytest.approx(40, rel=0.02)
    assert sum(one <= 40 for one in found) / len(found) == pytest.approx(1 - (39 / 40) ** 40, abs=0.002)
    assert max(lengths(1000, 40, 128, shuffled_by=0)) == 128


def test_the_first_engine_gives_the_same_values_and_gradients():
    for ours, first in ((kld, first_engine.kld), (srkl, first_engine.srkl)):
        student, teacher = torch.randn(2, 5, 11)
        gradients = []
        for divergence in (ours, first):
            given = student.clone().requires_grad_()
            value = divergence(given, teacher)
            value.sum().backward()
            gradients.append((value.detach(), given.grad))
        torch.testing.assert_close(*gradients)


def test_plain_divergences_differ_from_ours_by_the_teachers_entropy_at_most():
    student, teacher = torch.randn(2, 5, 11)
    p = teacher.softmax(-1)
    torch.testing.assert_close(head.plain_kld(student, teacher) + (p * p.log()).sum(-1), kld(student, teacher))
    torch.testing.assert_close(head.plain_srkl(student, teacher), srkl(student, teacher))


def test_all_arms_sample_responses_of_the_same_lengths():
    model = ending_model(TINY, TINY.student, "test")
    sequences = TINY.sequences(4)
    ours = model.sample(sequences, generation.Decoding(TINY.longest_response), "seed")
    assert [len(one) for one in ours] == TINY.response_lengths(4)
    assert all(one[-1] == model.tokenizer.eos_id for one in ours if len(one) < TINY.longest_response)
    for one_number in (True, False):
        assert generation.generated(model, untouched(model), sequences, TINY, one_number=one_number) == sum(
            map(len, ours)
        )


def test_every_part_measures_its_arms(monkeypatch):
    """Each part with tiny shapes."""
    monkeypatch.setattr(installed, "load", lambda module, device: f"{module} is left out")
    whole = dataclasses.replace(TINY, quick=False)
    found = [*head.measure(whole), *step.measure(whole), *generation.measure(whole), *evaluation.measure(whole)]
    assert [one.name for one in found] == [
        "srkl, 6 tokens",
        "kld, 6 tokens",
        "jsd, 6 tokens",
        "srkl, 12 tokens",
        "kld of logits, 6 tokens",
        "kld, fixed responses, batch 2",
        "kld, the student's responses, batch 2",
        "imitkd, batch 2",
        "sft, batch 2",
        "srkl, batch 2",
        "jsd, batch 2",
        "GPT-2, batch 4",
        "ROUGE-L",
        "5 decoding seeds, batch 4",
    ]
    assert found[5].absent == {"TRL's GKD": "trl.experimental.gkd is left out"}
    assert all(timing.seconds("cpu") > 0 for one in found for timing in one.arms.values())
    for target in itertools.chain(CPU_TARGETS, CUDA, EVERYWHERE):
        assert target.bound > 0
        assert target.why


def test_every_target_on_a_cpu_is_one_of_what_is_measured(monkeypatch, tmp_path):
    """By the names that the real sizes give; nothing is measured."""
    names: list[str] = []

    def named(part: str, name: str, unit: str, device: torch.device, pace: Pace, ours: Arm, others: dict) -> Comparison:
        names.append(name)
        wanted = {target.against for target in targets("cpu") if target.comparison == name}
        assert wanted <= {OURS, *others}
        return comparison(ours=fixed(1.0))

    whole = Workload.on(CPU, quick=False)
    shape = TINY.student
    sizes = {name: (dataclasses.replace(shape), sizes) for name, (_, sizes) in whole.families.items()}
    small = dataclasses.replace(whole, student=shape, teacher=TINY.teacher, families=sizes)
    monkeypatch.setattr(commands, "copies", lambda *told: None)
    for module in (head, step, generation, evaluation, commands):
        monkeypatch.setattr(module, "compare", named)
        list(module.measure(small))
    assert {target.comparison for target in targets("cpu")} <= set(names)


def test_many_runs_are_the_published_ones_under_other_seeds(tmp_path):
    of, to = Store(commands.PUBLISHED), Store(tmp_path)
    first = list(itertools.islice(of.all(), 2))
    few = SimpleNamespace(all=lambda: iter(first), folder=of.folder)
    commands.copies(few, to, 5)
    found = list(to.all())
    assert len({(one.run_id, one.seed) for one in found}) == 5
    assert {one.comparison_key for one in found} == {one.comparison_key for one in first}
    assert to.predictions(found[-1])


def test_a_readers_memory_is_that_of_its_process():
    sample = commands._process("-c", "import time; held = bytearray(200 * 2**20); time.sleep(0.2)")()
    assert sample.memory_mib is not None
    assert 200 < sample.memory_mib < 260


def test_trls_trainers_make_steps():
    pytest.importorskip("trl")
    (pair,) = step.Pair.of(TINY)
    for arm in (step.trl_gkd(pair, on_policy=False), step.trl_gkd(pair, on_policy=True), step.trl_distillation(pair)):
        assert not isinstance(arm, str), arm
        assert [arm().work, arm().work] == [TINY.steps] * 2


def test_a_library_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    assert installed.load("trl.kernels", CPU) == "trl is not installed: pip install 'distillm-bench[perf]'"
    monkeypatch.undo()
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: object())
    assert "need a GPU" in str(installed.load("liger_kernel.transformers", CPU))
    assert "cannot be imported (ModuleNotFoundError" in str(installed.load("no_such_package.at_all", CPU))


def test_the_command_writes_a_record_and_never_over_another(tmp_path, monkeypatch):
    monkeypatch.setattr(Workload, "on", classmethod(lambda cls, device, *, quick: TINY))
    shown = [invoke("perf", "--quick", "--only", "evaluation, head", "--out", str(tmp_path)) for _ in range(2)]
    assert [one.exit_code for one in shown] == [0, 0], shown[0].output
    assert "first engine" in shown[0].stdout
    files = sorted((tmp_path / "perf").iterdir())
    assert len(files) == 2
    record = read(files[0])
    assert record.parts == ["head", "evaluation"]
    assert files[0].name.startswith(record.name)
    assert record.environment.threads == torch.get_num_threads()
    timings = record.comparisons[0].arms
    assert record.comparisons[0].order == list(timings)
    with pytest.raises(BenchError, match="no record"):
        read(tmp_path)


def test_a_part_that_is_unknown_is_told(tmp_path):
    result = invoke("perf", "--only", "head,stepp", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "did you mean 'step'?" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_measured():
    on = dataclasses.replace(TINY, device=torch.device("cuda"))
    found = [*head.measure(on), *step.measure(on), *generation.measure(on), *evaluation.measure(on)]
    assert {one.clock for one in found} == {"cpu", "wall"}
    names = {"arithmetic of kld, batch 2", "arithmetic of kld, captured, batch 2", "imitkd, batch 2"}
    assert names <= {one.name for one in found}
