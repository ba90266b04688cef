"""The plan of a run: for each stage its memory, arithmetic, tokens and time, and what makes it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from baselines.sft import CrossEntropy
from bench.config.registry import find_method
from bench.config.sections import Config, StudentPretraining, TrainingConfig
from bench.data import task_of
from bench.experiment.examples import examples_of
from bench.experiment.identity import tokenizer_path
from bench.experiment.planning.calibration import Speed
from bench.experiment.planning.memory import Pass, generation, step, validation
from bench.experiment.planning.shapes import Shape, shape_of
from bench.experiment.planning.stand_ins import Setting
from bench.models.captured import MOST_BYTES
from bench.models.loading import load_tokenizer
from bench.models.sampling import Decoding
from bench.models.tokenizer import LengthLimits, TokenizerAdapter
from bench.system.environment import pick_device
from bench.system.errors import BenchError
from bench.system.hub import split_revision
from bench.training.auxiliary_loss import LanguageModelling
from bench.training.length import sequences_at_once, total_steps
from distillm import SOURCES, BatchObjective, Objective

GIB = 2**30
PRETRAINING = "init student pretraining"
"""The stage of a plan that is one for all tasks, methods and seeds."""
SECTIONS = {
    "teacher": "teacher_training",
    PRETRAINING: "student_pretraining",
    "init student": "init_training",
    "training": "training",
}
"""The section of the configuration that a stage's training comes from."""

# Sizes of published splits and mean lengths in tokens, where the data is not at hand. Dolly: the split of MiniLLM (its
# task file), test sets as published, lengths as measured with GPT-2's tokenizer (docs/performance.md). SAMSum and
# IWSLT 2017 en-de: their data cards; their lengths are not known here, so every sequence is taken at its limit.
_ASSUMED: dict[str, dict[str, int]] = {
    "dolly": {"train": 11435, "validation": 1000, "test": 500 + 242 + 80 + 1694 + 10000, "prompt": 71, "response": 56},
    "samsum": {"train": 14732, "validation": 818, "test": 819},
    "iwslt": {"train": 206112, "validation": 888, "test": 8079},
}


@dataclass(frozen=True)
class Amounts:
    """How much data there is: examples, and mean lengths in tokens; `source` says how that is known."""

    train: int
    validation: int
    test: int
    prompt: int
    response: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage takes. Bytes, operations of matrix products, tokens; in the order in which `--json` prints them.

    Attributes:
        name: of the stage.
        weights, gradients, optimiser: of what is trained; weights alone where nothing is.
        teacher: weights of the frozen model beside it.
        activations, output_layer: of a training step, with sequences at their limits.
        generation: keys and values, and what else generation takes beside weights, or the validation loss where that
            takes more.
        buffers: of decoding steps captured as CUDA graphs, with a copy of the weights: the part of `generation` that
            stays while a step of training is made.
        peak: of all together; a step is never there at the same time as the rest of generation or as validation.
        flops: of the whole stage, with sequences of mean length.
        tokens: that are generated.
        seconds: None where nothing was measured.
        micro_batch: sequences of a forward pass in training; 0 where nothing is trained.
    """

    name: str
    weights: float
    gradients: float = 0.0
    optimiser: float = 0.0
    teacher: float = 0.0
    activations: float = 0.0
    output_layer: float = 0.0
    generation: float
    buffers: float
    peak: float
    flops: float
    tokens: float
    seconds: float | None
    micro_batch: int = 0


@dataclass(frozen=True)
class Plan:
    """A run's plan.

    Attributes:
        config: of the run.
        teacher, student: what is known of the models.
        amounts: of data.
        device: type of the device that is planned for.
        stages: in their order.
        notes: what was assumed.
    """

    config: Config
    teacher: Shape
    student: Shape
    amounts: Amounts
    device: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]

    @property
    def peak(self) -> float:
        """Bytes at most."""
        return max(stage.peak for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Of all stages; None where nothing was measured."""
        found = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(found) if len(found) == len(self.stages) else None


def make_plan(config: Config, device: str, speed: Speed | None = None) -> Plan:
    """Plan a run.

    Args:
        config: from `bench.config.resolve`.
        device: type of the device that is planned for, cpu or cuda.
        speed: as measured; None leaves times open.

    Raises:
        BenchError: an architecture cannot be had.
    """
    teacher, student = shape_of(config, "teacher"), shape_of(config, "student")
    amounts = amounts_of(config)
    planner = _Planner(config, device, teacher, student, amounts, speed)
    stages = tuple(make() for make in planner.stages().values())
    return Plan(config, teacher, student, amounts, device, stages, tuple(planner.notes()))


def changed_stage(plan: Plan, name: str, config: Config) -> Stage:
    """A stage of a plan with other settings, of models and data that stay."""
    return _Planner(config, plan.device, plan.teacher, plan.student, plan.amounts, None).stages()[name]()


def amounts_of(config: Config) -> Amounts:
    """Examples and lengths: from the data where it is on this machine, else assumed."""
    limits = LengthLimits(config.data.max_prompt_length, config.data.max_response_length)
    if not config.data.hub:
        data = examples_of(task_of(config.task, config.task_file), config.data)
        sizes = {split: len(examples) for split, examples in data.splits.items()}
        test = sum(size for split, size in sizes.items() if split not in ("train", "validation"))
        prompt, response, source = limits.prompt, limits.response, "the data; every sequence at its limit"
        with suppress(BenchError, OSError):
            if config.models.tokenizer != "trained" and Path(path := tokenizer_path(config)).is_dir():
                tokenizer = TokenizerAdapter(load_tokenizer(path), config.models.kind)
                some = data.splits["train"][:500]
                encoded, _ = tokenizer.encode(some, limits, drop_long=True, without_bos=False)
                prompt = round(sum(len(s.prompt) for s in encoded) / len(encoded))
                response = round(sum(len(s.response) for s in encoded) / len(encoded))
                source = "the data"
        return Amounts(sizes["train"], sizes["validation"], test, prompt, response, source)
    known = _ASSUMED.get(config.task)
    shipped = task_of(config.task, config.task_file).hub
    other = isinstance(config.data.hub, str) and (
        shipped is None or split_revision(config.data.hub)[0] != split_revision(shipped.id)[0]
    )
    if known is None or other:
        name = config.data.hub if other else config.task
        raise BenchError(f"the size of {name} on the hub is not known here: give the data with --data-dir FOLDER")
    at_most = {"train": config.data.max_train, "validation": config.data.max_validation}
    sizes = {split: min(known[split], at_most.get(split) or known[split]) for split in ("train", "validation", "test")}
    if config.data.max_test:
        sizes["test"] = min(sizes["test"], config.data.max_test * (5 if config.task == "dolly" else 1))
    return Amounts(
        **sizes,
        prompt=min(known.get("prompt", limits.prompt), limits.prompt),
        response=min(known.get("response", limits.response), limits.response),
        source="published sizes" + ("" if "prompt" in known else "; every sequence at its limit"),
    )


class _Planner:
    def __init__(
        self, config: Config, device: str, teacher: Shape, student: Shape, amounts: Amounts, speed: Speed | None
    ) -> None:
        self.config, self.device, self.teacher, self.student = config, device, teacher, student
        self.amounts, self.speed = amounts, speed
        self.bf16, self.lora = config.precision == "bf16", config.models.lora
        method, _ = find_method(config.method.file or config.method.name)
        self.objective: Objective = method.objective(**config.method.options)
        self.rule = SOURCES[config.sgo.source]

    def stages(self) -> dict[str, Callable[[], Stage]]:
        """What makes each stage of the run, by name."""
        pair, config = self.config.models, self.config
        answers = self.amounts.train if self.rule.responses == "teacher" else 0
        tuning = (
            {"teacher": lambda: self.fine_tuning("teacher", self.teacher, config.teacher_training)}
            if pair.trains_teacher
            else {}
        )
        pretraining = config.student_pretraining
        before: dict[str, Callable[[], Stage]] = {}
        if pretraining is not None and pretraining.steps is not None:
            before[PRETRAINING] = lambda: self.pretraining(pretraining)
        return (
            tuning
            | before
            | {
                "teacher scores": lambda: self.scoring("teacher scores", self.teacher, frozen=True, more=answers),
                "init student": lambda: self.fine_tuning("init student", self.student, config.init_training),
                "training": self.distillation,
                "evaluation": lambda: self.scoring(
                    "evaluation", self.student, frozen=self.lora is not None, twice=True
                ),
            }
        )

    def notes(self) -> Iterator[str]:
        amounts = self.amounts
        yield (
            f"data ({amounts.source}): {amounts.train:,} examples to train on, {amounts.test:,} to test on; "
            f"mean prompt {amounts.prompt}, response {amounts.response} tokens"
        )
        if self.rule.phi == "adaptive":
            yield "phi rises with the validation loss, which nobody knows before: generation is counted as if it were 1"
        pretraining = self.config.student_pretraining
        if pretraining is not None:
            planned = "is one for all runs" if pretraining.steps is not None else "for epochs of a text is not planned"
            yield f"the student's pretraining on plain text {planned}"
        text = self.config.plain_text
        if text.weight:
            yield f"plain text: {text.batch_size} texts of {text.max_length} tokens a step, beside the method's batch"
        yield "memory: sequences at their limits; a step's own code run on tensors without contents"

    def setting(self, training: TrainingConfig, micro: int, batch: int | None = None) -> Setting:
        data = self.config.data
        return Setting(
            self.device,
            self.bf16,
            micro,
            data.max_prompt_length,
            data.max_response_length,
            training.gradient_checkpointing,
            self.keeps_gradients(training) or micro < (batch or training.batch_size),
            self.lora.model_dump_json() if self.lora is not None else "",
        )

    def keeps_gradients(self, training: TrainingConfig) -> bool:
        """Whether they stay from step to step, where captured passes add to them."""
        return self.device == "cuda" and training.cuda_graphs

    @property
    def scored_as_rolled_out(self) -> bool:
        """Whether responses are sampled for scores as they are in training."""
        given, length = self.config.evaluation, self.config.data.max_response_length
        return Decoding(length, given.temperature, given.top_p, given.top_k) == Decoding(length)

    def micro_batch(self, training: TrainingConfig, batch: int | None = None) -> int:
        batch = batch or training.batch_size
        if training.micro_batch_size is not None:
            return min(training.micro_batch_size, batch)
        if self.device != "cuda":
            return batch
        tokens = batch * (self.amounts.prompt + self.amounts.response)
        return sequences_at_once(tokens, batch)

    def written(
        self, shape: Shape, rows: int, *, copies: int = 1, teacher: Shape | None = None, frozen: bool = False
    ) -> Pass:
        data = self.config.data
        copies = min(copies, rows)
        setting = Setting(self.device, self.bf16, rows, data.max_prompt_length, data.max_response_length)
        return generation(shape, teacher, setting, max(1, rows // copies), frozen=frozen)

    def fine_tuning(self, name: str, shape: Shape, training: TrainingConfig) -> Stage:
        return self.training(name, shape, None, CrossEntropy(), training, generated=0, mixture=False)

    def pretraining(self, given: StudentPretraining) -> Stage:
        """Of all weights, on full sequences of plain text; nothing is generated."""
        models = self.config.models.model_copy(update={"lora": None})
        planner = self.of_texts(self.config.model_copy(update={"models": models}), given.length, given.held_out)
        return planner.fine_tuning(PRETRAINING, self.student, given)

    def of_texts(self, config: Config, length: int, held_out: int = 0) -> _Planner:
        """The same with texts of so many tokens in place of examples, cut as `encode_plain_text` does."""
        prompt = 1 if config.models.kind == "causal" else length // 2
        limits = {"max_prompt_length": prompt, "max_response_length": length - prompt}
        config = config.model_copy(update={"data": config.data.model_copy(update=limits)})
        amounts = Amounts(0, held_out, 0, prompt, length - prompt, "plain text")
        return _Planner(config, self.device, self.teacher, self.student, amounts, self.speed)

    def plain_text_pass(self) -> Pass | None:
        """Forward and backward pass over a micro-batch of plain text, with the operations of a step's whole batch."""
        given, training = self.config.plain_text, self.config.training
        if given.weight == 0:
            return None
        at_once = given.batch_size
        if self.device == "cuda" or training.micro_batch_size is not None:
            at_once = min(at_once, self.micro_batch(training))
        objective = LanguageModelling(given.kl_share)
        teacher = self.teacher if objective.needs_teacher else None
        planner = self.of_texts(self.config, given.max_length)
        # the method's gradients are there already
        setting = replace(planner.setting(training, at_once), accumulating=True)
        made = step(self.student, teacher, objective, setting)
        return replace(made, flops=given.batch_size * planner.sequence_flops(self.student, teacher, training))

    def distillation(self) -> Stage:
        config, rule, objective = self.config, self.rule, self.objective
        needs = objective.needs_teacher or config.plain_text.weight * config.plain_text.kl_share > 0
        sequences = total_steps(config.training, self.amounts.train) * config.training.batch_size
        share = {"never": 0.0, "always": 1.0, "constant": config.sgo.probability, "adaptive": 1.0}[rule.phi]
        if rule.buffered:
            share *= 0.5  # the mean of 1 - t/T
        if rule.rounds:
            share /= config.sgo.inner_epochs
        mixture = isinstance(objective, BatchObjective) and objective.sampling.teacher_mix > 0
        teacher = self.teacher if needs else None
        return self.training(
            "training",
            self.student,
            teacher,
            objective,
            config.training,
            generated=share * sequences,
            mixture=mixture,
            # such a step trains on the data set's responses beside those of the student
            batch=(2 if rule.paired else 1) * config.training.batch_size,
            on_plain_text=self.plain_text_pass(),
        )

    def training(
        self,
        name: str,
        shape: Shape,
        teacher: Shape | None,
        objective: Objective,
        training: TrainingConfig,
        *,
        generated: float,
        mixture: bool,
        batch: int | None = None,
        on_plain_text: Pass | None = None,
    ) -> Stage:
        batch, data = batch or training.batch_size, self.config.data
        micro = self.micro_batch(training, batch)
        adapted = self.lora is not None  # most weights are frozen then
        wide = step(shape, teacher, objective, self.setting(training, micro, batch))
        rows = self.config.evaluation.batch_size
        validated_by_metric = training.select_by == "metric"
        at_once = min(rows, max(1, self.amounts.validation))
        losses = validation(shape, self.setting(training, at_once))
        validating = self.written(shape, at_once, frozen=adapted) if validated_by_metric else None
        rolling_out = None
        if generated:
            mixed = teacher if mixture else None
            rolling_out = self.written(shape, min(rows, training.batch_size), teacher=mixed, frozen=adapted)
        buffers, decoding = buffers_of(validating, rolling_out, alike=not mixture and self.scored_as_rolled_out)
        trained = shape.parameters if self.lora is None else shape.adapter_parameters(self.lora)
        weights = 4.0 * trained
        if self.lora is not None:  # of which the rest is frozen
            weights += (2.0 if self.bf16 else 4.0) * shape.parameters
        optimiser = (2.0 if training.optimizer == "adamw-8bit" else 8.0) * trained
        frozen = (2.0 if self.bf16 else 4.0) * teacher.parameters if teacher is not None else 0.0
        gradients = 4.0 * trained
        generating = max(losses.peak, decoding)
        kept = gradients if self.keeps_gradients(training) else 0.0
        if on_plain_text is not None and on_plain_text.peak > wide.peak:
            wide = on_plain_text
        peak = weights + optimiser + frozen + max(wide.peak + buffers, generating + kept)
        beyond = max(0.0, wide.peak - gradients)
        output_layer = min(beyond, wide.output_layer)
        steps = total_steps(training, self.amounts.train)
        computed = steps * batch * self.sequence_flops(shape, teacher, training)
        if on_plain_text is not None:
            computed += steps * on_plain_text.flops
        validations = min(training.validations, steps) * self.amounts.validation * validated_by_metric
        responses = generated + validations
        per_response = self.response_flops(shape) + (self.response_flops(teacher) if mixture and teacher else 0.0)
        batches = generated / max(1, min(rows, training.batch_size)) + validations / at_once
        seconds = None
        if self.speed is not None:
            side = self.speed.of(shape)
            seconds = computed / side.training + batches * data.max_response_length * side.decode_step
            if mixture and teacher is not None:
                seconds += batches * data.max_response_length * self.speed.of(teacher).decode_step
        return Stage(
            name=name,
            weights=weights,
            gradients=gradients,
            optimiser=optimiser,
            teacher=frozen,
            activations=beyond - output_layer,
            output_layer=output_layer,
            generation=generating,
            buffers=buffers,
            peak=peak,
            flops=computed + responses * per_response,
            tokens=responses * self.amounts.response,
            seconds=seconds,
            micro_batch=micro,
        )

    def scoring(self, name: str, shape: Shape, *, frozen: bool, more: int = 0, twice: bool = False) -> Stage:
        """Scores of a model on the test sets; `more` responses beside, `twice` for the init student's and its own."""
        evaluation = self.config.evaluation
        seeds = len(evaluation.seeds) if evaluation.temperature > 0 else 1
        responses = self.amounts.test * seeds * (1 + twice) + more
        rows = evaluation.batch_size
        written = self.written(shape, rows, copies=seeds, frozen=frozen)
        weights = (2.0 if frozen and self.bf16 else 4.0) * shape.parameters
        seconds = None
        if self.speed is not None:
            seconds = responses / rows * self.config.data.max_response_length * self.speed.of(shape).decode_step
        return Stage(
            name=name,
            weights=weights,
            generation=written.peak,
            buffers=written.stays,
            peak=weights + written.peak,
            flops=responses * self.response_flops(shape),
            tokens=responses * self.amounts.response,
            seconds=seconds,
        )

    def sequence_flops(self, shape: Shape, teacher: Shape | None, training: TrainingConfig) -> float:
        """Operations of a training step for a sequence of mean length."""
        prompt, response = self.amounts.prompt, self.amounts.response
        setting = replace(self.setting(training, 1), prompt=prompt, response=response, accumulating=False)
        made = step(shape, None, CrossEntropy(), setting).flops
        return made if teacher is None else made + self.forward(teacher)

    def forward(self, shape: Shape) -> float:
        """Operations of a forward pass over a sequence of mean length: two a parameter and token."""
        return 2.0 * shape.parameters * (self.amounts.prompt + self.amounts.response)

    def response_flops(self, shape: Shape) -> float:
        """Operations of one response of mean length, its prompt read for it."""
        setting = Setting(self.device, self.bf16, 1, self.amounts.prompt, max(2, self.amounts.response))
        return generation(shape, None, setting, 1).flops


def buffers_of(validating: Pass | None, rolling_out: Pass | None, *, alike: bool) -> tuple[float, float]:
    """Bytes of decoding that stay beside steps, and at most while responses are written.

    Args:
        validating: writes them for the metric, first before the training; None where none does.
        rolling_out: writes those that are trained on; None where none are.
        alike: whether both are one kind of decoding, and share their buffers.
    """
    # after a validation buffers are freed until MOST_BYTES hold all; the last one of training steps always stays
    stays = validating.stays if validating is not None and validating.stays <= MOST_BYTES else 0.0
    if rolling_out is None:
        return stays, 0.0 if validating is None else validating.peak
    if validating is None or alike:
        return max(stays, rolling_out.stays), max(rolling_out.peak, 0.0 if validating is None else validating.peak)
    # either is made while the other is still there
    first = validating.buffers if stays else 0.0
    most = max(rolling_out.peak + first, validating.peak + rolling_out.buffers)
    if first + rolling_out.buffers > MOST_BYTES:
        return max(stays, rolling_out.stays), most
    return first + rolling_out.stays, most


def of_run_stage(plan: Plan, name: str) -> list[Stage]:
    """The parts of a plan that belong to a stage of a run by the name it has there."""
    return [stage for stage in plan.stages if stage.name == name or stage.name.startswith(f"{name} ")]


def memory_here() -> tuple[str, float]:
    """Type of the device that is here, and its memory in bytes."""
    device = pick_device("auto")
    if device.type == "cuda":
        return "cuda", float(torch.cuda.get_device_properties(device).total_memory)
    return "cpu", float(psutil.virtual_memory().total)
