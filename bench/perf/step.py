"""A training step by method: ours through the real `Trainer`, beside the plain formulation and TRL's trainers."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from bench.config.registry import find_method
from bench.config.sections import TrainingConfig
from bench.models.sampling import Decoding
from bench.perf import installed
from bench.perf.head import plain_kld
from bench.perf.measure import Arm, Comparison, Meter, Sample, compare, timed
from bench.perf.workload import EndingModel, Workload, end_generate, ending_model, make_tokenizer, untouched
from bench.training.job import TrainingJob, ValidationSet
from bench.training.trainer import Trainer
from distillm import OutputSource, SourceOptions, TokenSequence

LEARNING_RATE = 1e-6  # small: what is measured is time, and the lengths of responses must stay as they are
BESIDE = ("imitkd", "sft", "srkl", "jsd")
"""Methods beside KL divergence on fixed responses, all steps of each alike; the first one has a target."""


@dataclass(frozen=True)
class Pair:
    """What every arm of a comparison trains with: teacher, one batch after the other."""

    workload: Workload
    batch_size: int
    teacher: EndingModel
    train: list[TokenSequence]

    @classmethod
    def of(cls, workload: Workload) -> Iterator[Pair]:
        """A pair for each batch size."""
        cuda = workload.device.type == "cuda"
        teacher = ending_model(workload, workload.teacher, "teacher")
        teacher.network.to(torch.bfloat16 if cuda else torch.float32).eval()
        for size in workload.batch_sizes:
            # on a CPU each step has the same examples; on CUDA shapes vary, as in a training
            yield cls(workload, size, teacher, workload.sequences(size * (8 if cuda else 1)))

    def networks(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        """Student and teacher for the other arms."""
        student = untouched(ending_model(self.workload, self.workload.student))
        return student, untouched(self.teacher).to(self.teacher.network.dtype).eval()


def measure(workload: Workload) -> Iterator[Comparison]:
    """KL divergence on fixed and on the student's responses beside others, and other methods beside it."""
    for pair in Pair.of(workload):
        fixed = ours(pair, "kld", "dataset")
        others: dict[str, Arm | str] = {"plain": plain(pair), "TRL's GKD": trl_gkd(pair, on_policy=False)}
        if workload.device.type == "cuda":
            captured = ours(pair, "kld", "dataset", cuda_graphs=True)
            yield _beside_peak(pair, fixed)
            yield _beside_peak(pair, captured, ", captured")
            others["captured"] = captured
        yield _compare(pair, "kld, fixed responses", fixed, others)
        if pair.batch_size == min(workload.batch_sizes):
            sampled = ours(pair, "kld", "on-policy")
            others = {"TRL's GKD": trl_gkd(pair, on_policy=True), "TRL's Distillation": trl_distillation(pair)}
            yield _compare(pair, "kld, the student's responses", sampled, others)
            for method in BESIDE if not workload.quick else BESIDE[:1] if workload.device.type == "cuda" else ():
                yield _compare(pair, method, ours(pair, method, None), {"kld": fixed})


def _compare(pair: Pair, name: str, arm: Arm, others: dict[str, Arm | str], unit: str = "step") -> Comparison:
    pace = replace(pair.workload.pace, warm_up=False)  # each training has its own
    return compare("step", f"{name}, batch {pair.batch_size}", unit, pair.workload.device, pace, arm, others)


class Marks:
    """The clock of a training that others run.

    It starts after the first steps, in which optimisers make their state and shapes are new. The last step is not
    counted either, since ours validates and saves in it; nor is one more on CUDA, where ours is told of a step when the
    next is queued.
    """

    def __init__(self, workload: Workload, uncounted: int) -> None:
        self.workload, self.uncounted = workload, uncounted
        self.measured = uncounted + workload.steps
        self.total = self.measured + (2 if workload.device.type == "cuda" else 1)
        self.done, self.samples = 0, list[Sample]()

    def step(self, *told: object) -> None:
        """A step was made."""
        self.done += 1
        if self.done == self.uncounted:
            self.meter = Meter(self.workload.device)
        if self.done == self.measured:
            self.samples.append(self.meter.sample(float(self.workload.steps)))


def ours(pair: Pair, name: str, source: str | None, *, cuda_graphs: bool = False) -> Arm:
    """Steps of a method by this package's training loop; a new training each round."""
    method, _ = find_method(name)
    workload = pair.workload
    student = ending_model(workload, workload.student, "student")

    def arm() -> Sample:
        marks = Marks(workload, workload.uncounted)
        settings = {
            "steps": marks.total,
            "batch_size": pair.batch_size,
            "learning_rate": LEARNING_RATE,
            "validations": 1,
            "select_by": "loss",
            "checkpoint_seconds": 1e9,
            "cuda_graphs": cuda_graphs,
        }
        options: dict[str, Any] = dict(method.source_options)
        with tempfile.TemporaryDirectory() as folder:
            job = TrainingJob(
                label=name,
                objective=method.objective(),
                output_source=OutputSource(
                    source or method.source,
                    SourceOptions(**options),
                    total_steps=marks.total,
                    batch_size=pair.batch_size,
                ),
                student=student,
                teacher=pair.teacher,
                train=pair.train,
                # its batch size is also that of generation
                validation=ValidationSet(pair.train[:1], lambda texts: 0.0, Decoding(1), pair.batch_size),
                config=TrainingConfig.model_validate(settings),
                max_response_length=workload.longest_response,
                seed=0,
                precision="bf16" if pair.workload.device.type == "cuda" else "fp32",
                work=Path(folder),
                on_step=marks.step,
                note=lambda text: None,
            )
            Trainer(job).fit()
        return marks.samples[0]

    return arm


def plain(pair: Pair) -> Arm:
    """KL divergence as the authors write it: both models' logits at every position, padded, in float32, then a mask."""
    workload, device, width = pair.workload, pair.workload.device, pair.workload.padded_to
    student, teacher = pair.networks()
    optimiser = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)

    order = itertools.cycle(pair.train)

    def step() -> None:
        batch = list(itertools.islice(order, pair.batch_size))
        inputs = {name: pad(one, (0, width - one.shape[1])) for name, one in pair.teacher.batch(batch).inputs.items()}
        counted = torch.zeros(len(batch), width)
        for row, s in zip(counted, batch, strict=True):
            row[len(s.prompt) - 1 : len(s.prompt) + len(s.response) - 1] = 1
        counted = counted.flatten().to(device)
        with torch.no_grad():
            teacher_logits = teacher(**inputs, use_cache=False).logits
        with workload.autocast():
            logits = student(**inputs, use_cache=False).logits
        losses = plain_kld(logits.flatten(0, 1), teacher_logits.flatten(0, 1))
        torch.autograd.backward((losses * counted).sum() / counted.sum())
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    def arm() -> Sample:
        for _ in range(min(3, workload.uncounted) - 1):
            step()
        meter = Meter(device)
        for _ in range(workload.steps):
            step()
        return meter.sample(float(workload.steps))

    return arm


def trl_gkd(pair: Pair, *, on_policy: bool) -> Arm | str:
    """Steps of TRL's GKD with KL divergence, on the data set's responses or on the student's."""
    module = installed.load("trl.experimental.gkd", pair.workload.device)
    if isinstance(module, str):
        return module
    options = {
        "lmbda": float(on_policy),
        "beta": 0.0,
        "temperature": 1.0,
        "max_new_tokens": pair.workload.longest_response,
        "max_length": pair.workload.padded_to,
    }
    rows = [
        {
            "prompt": _text(one.prompt),
            "input_ids": [*one.prompt, *one.response],
            "completion_mask": [0] * len(one.prompt) + [1] * len(one.response),
        }
        for one in pair.train
    ]
    return _trl(pair, module.GKDTrainer, module.GKDConfig, options, rows)


def trl_distillation(pair: Pair) -> Arm | str:
    """Steps of TRL's Distillation trainer with KL divergence; it trains on the student's responses only."""
    module = installed.load("trl.trainer.distillation_trainer", pair.workload.device)
    if isinstance(module, str):
        return module
    options = {"beta": 0.0, "max_completion_length": pair.workload.longest_response, "temperature": 1.0}
    rows = [{"prompt": _text(one.prompt)} for one in pair.train]
    return _trl(pair, module.DistillationTrainer, module.DistillationConfig, options, rows)


def _text(ids: tuple[int, ...]) -> str:
    return " ".join(f"w{token}" for token in ids)


def _trl(pair: Pair, trainer: Any, config: Any, options: dict[str, Any], rows: list[dict[str, Any]]) -> Arm:
    """Steps of a trainer of TRL; what it would write or display is off, and so is what saves memory for time."""
    from datasets import Dataset

    workload, cuda = pair.workload, pair.workload.device.type == "cuda"
    student, teacher = pair.networks()
    tokenizer = make_tokenizer(workload.student)
    end_generate(student, workload.response_lengths, tokenizer.eos_id)

    def arm() -> Sample:
        marks = Marks(workload, min(3, workload.uncounted))

        class Told(TrainerCallback):  # type: ignore[misc]  # transformers exports it untyped
            """Tells the marks."""

            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                marks.step()
                control.should_training_stop = bool(marks.samples)

        with tempfile.TemporaryDirectory() as folder:
            settings = config(
                output_dir=folder,
                max_steps=marks.total,
                per_device_train_batch_size=pair.batch_size,
                learning_rate=LEARNING_RATE,
                gradient_checkpointing=False,
                use_cpu=not cuda,
                bf16=cuda,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **options,
            )
            made = trainer(
                model=student,
                teacher_model=teacher,
                args=settings,
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer.backend,
                callbacks=[Told()],
            )
            made.remove_callback(PrinterCallback)
            made.train()
        for network in (student, teacher):  # TRL has it wrapped anew each time
            vars(network).pop("forward", None)
        return marks.samples[0]

    return arm


def _beside_peak(pair: Pair, arm: Arm, how: str = "") -> Comparison:
    """A step beside one matrix product, in seconds a TFLOP: the share of the arithmetic that the device can do.

    A step's arithmetic is counted as two operations a parameter and token for a forward pass and four for a backward
    pass, at real tokens only, and for the output layer at response tokens only.
    """
    student = ending_model(pair.workload, pair.workload.student)
    operations = 0.0
    for model, each in ((pair.teacher, 2), (student, 6)):
        head = model.network.get_output_embeddings().weight.numel()  # GPT-2's is the embedding, which is looked up
        for s in pair.train:
            tokens = len(s.prompt) + len(s.response)
            operations += each * ((model.parameters - head) * tokens + head * len(s.response))
    work = operations * pair.batch_size / len(pair.train) / 1e12
    matrix = torch.randn(8192, 8192, dtype=torch.bfloat16, device=pair.workload.device)

    def step() -> Sample:
        sample = arm()
        return sample.model_copy(update={"work": sample.work * work})

    def product() -> float:
        for _ in range(20):
            matrix @ matrix
        return 20 * 2 * 8192**3 / 1e12

    others: dict[str, Arm | str] = {"matrix product": timed(pair.workload.device, product)}
    return _compare(pair, f"arithmetic of kld{how}", step, others, "TFLOP")
