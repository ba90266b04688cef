"""The configuration of a run as typed sections. The field descriptions are the documentation of the keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.config.fidelity import Fidelity
from bench.config.section import Section
from bench.data.task import Metrics
from bench.synthetic import TEACHERS
from bench.system.names import LongName, Name
from bench.system.strict import later

_SHARED_TEXT = ("plain_text.file", "plain_text.hub", "plain_text.hub_config")
MAY_DIFFER = f"training and plain_text (all but {', '.join(_SHARED_TEXT)})"
"""Where a method may have settings of its own, in words; `may_differ` says it of a key."""


def may_differ(key: str) -> bool:
    """Whether a preset may give one method its own value of a dotted key.

    All else must be equal between runs that are compared: data, models, teacher and evaluation.
    """
    return key.partition(".")[0] in ("training", "plain_text") and key not in _SHARED_TEXT


class MethodConfig(Section):
    """The method and the options of its objective, which stand beside the name: `method.alpha`."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="what --method was given, or the name that the method's file gives")
    file: str | None = Field(None, description="path/to/file.py:NAME, where the method comes from a user's own file")
    file_sha256: str | None = Field(None, description="of the contents of that file")

    @property
    def options(self) -> dict[str, JsonValue]:
        """The objective's options by name."""
        return dict(self.model_extra or {})


class SgoConfig(Section):
    """Where responses come from: the output source and its options (`distillm.SourceOptions`)."""

    source: str = Field(description="the output source (`bench list sources`)")
    probability: float = Field(description="constant phi of `mixed` and `off-policy` (lambda of GKD)")
    initial_phi: float = Field(description="phi before the first rise of the validation loss")
    phi_step: float = Field(description="how much a rise of the validation loss adds to phi")
    epsilon: float = Field(description="a validation loss has risen from this much on, nats per token")
    capacity: int = Field(description="the replay buffer's size in sequences")
    replay_ratio: str = Field(description="share of fresh outputs over training: decreasing, constant, increasing")
    final_data_share: float | None = Field(description="r of ImitKD's decay of the data set's share; none = constant")
    rollouts: int = Field(description="responses per round of `roll-outs`")
    inner_epochs: int = Field(description="how often each round is trained on")
    beams: int = Field(description="beam search for the teacher's responses; 1 = sampling at temperature 1")

    @property
    def options(self) -> dict[str, Any]:
        """The options without the source's name, as `distillm.SourceOptions` takes them."""
        return {name: value for name, value in self if name != "source"}


class DataConfig(Section):
    """Where examples come from and how they are cut."""

    dir: str | None = Field(None, description="local folder; none = synthetic data, or the hub with data.hub=true")
    hub: bool | str = Field(
        False, description="load from the Hugging Face hub; OWNER/NAME[@REVISION] = another data set or revision"
    )
    train_file: str | None = Field(None, description="a file to train on where the folder has no training split")
    test_file: str | None = Field(None, description="a file to test on where the folder has several test sets or none")
    template: str | None = Field(None, description="prompt template; none = the task's for this kind of data")
    drop_overlap: bool = Field(False, description="drop training prompts that also stand in validation or test")
    max_prompt_length: int = Field(gt=0, description="tokens; longer: dropped in train, middle cut elsewhere")
    max_response_length: int = Field(gt=0, description="tokens, EOS counted; also the limit of generation")
    max_train: int | None = Field(None, gt=0, description="use at most so many training examples")
    max_validation: int | None = Field(None, gt=0, description="use at most so many validation examples")
    max_test: int | None = Field(None, gt=0, description="use at most so many examples per test set")
    seed: int = Field(0, ge=0, description="seed of the synthetic data and of the sample max_train takes")
    synthetic: bool = later(True, description="use synthetic data where neither dir nor hub is given; false = refuse")

    @property
    def is_real(self) -> bool:
        """Whether a folder or the hub is given; else it is synthetic data, if that is wanted at all."""
        return self.dir is not None or bool(self.hub)


class LoraConfig(Section):
    """Low-rank adapters (arXiv:2106.09685) that are trained in place of a model's weights; defaults: the paper's."""

    rank: int = Field(16, gt=0, description="r of the update, alpha / r x B A")
    alpha: float = Field(64.0, gt=0, description="its scale, times r")
    dropout: float = Field(0.1, ge=0, lt=1, description="of what A reads, in training")
    targets: Literal["all-linear"] | list[str] | None = Field(
        None, description="names of the layers that get one, or all-linear; none = peft's choice for the family"
    )
    save: Literal["adapter", "merged"] = Field("adapter", description="what is kept of the student; merged = all of it")

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: str | list[str] | None) -> str | list[str] | None:
        if targets == []:
            raise ValueError("name a layer at least, or give null for peft's choice")
        return targets


class ModelsConfig(Section):
    """The model pair."""

    name: LongName = Field(description="what --models was given; of a file, its stem")
    kind: Literal["causal", "seq2seq"] = Field(description="decoder-only or encoder-decoder")
    teacher: str = Field(description="'shipped', 'shipped-early', 'scratch', 'smollm2', a local folder or a hub id")
    student: str = Field(description="the same, 'shipped-small', or 'teacher': the teacher before its fine-tuning")
    student_layers: int | list[int] | None = later(
        None, description="layers kept of a loaded student: every n-th from the first, or these; none = all"
    )
    tokenizer: str = Field("teacher", description="'teacher', 'shipped', 'trained', a local folder or a hub id")
    teacher_config: dict[str, Any] | None = Field(None, description="architecture of a teacher from scratch")
    student_config: dict[str, Any] | None = Field(None, description="architecture of a student from scratch")
    vocab_size: int = Field(2000, ge=300, description="of a tokenizer trained here")
    finetune_teacher: bool = Field(True, description="fine-tune a loaded teacher on the task first")
    lora: LoraConfig | None = later(None, description="train low-rank adapters of teacher and student, not all weights")

    @property
    def trains_teacher(self) -> bool:
        """Whether the teacher is trained on the task first, and not taken as it is."""
        return self.teacher == "scratch" or (self.teacher not in TEACHERS and self.finetune_teacher)


class TrainingConfig(Section):
    """One training: the teacher's, the init student's or the student's."""

    steps: int | None = Field(None, gt=0, description="optimiser steps; give this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the training set; give this or steps")
    batch_size: int = Field(gt=0, description="sequences per optimiser step")
    micro_batch_size: int | None = Field(None, gt=0, description="sequences per forward pass; same loss, less memory")
    gradient_checkpointing: bool = later(
        False, description="form a layer's activations again for the backward pass: much less memory, a third slower"
    )
    optimizer: Literal["adamw", "adamw-8bit"] = later(
        "adamw", description="adamw-8bit: moments in 2 bytes a parameter instead of 8 (extra `8bit`)"
    )
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW; not on biases and norms")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient clipping by global norm")
    validations: int = Field(4, gt=0, description="how often to validate, evenly spread, the last after the last step")
    select_by: Literal["metric", "loss"] = Field("metric", description="what picks the best checkpoint")
    checkpoint_seconds: float = Field(
        15.0, gt=0, description="save a resumable state this often, or as rarely as keeps saving to 2 % of the time"
    )
    cuda_graphs: bool = Field(False, description="on a GPU, capture passes as CUDA graphs: small models and batches")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs (set the other to null)")
        return self

    @model_validator(mode="after")
    def _one_way_of_passing(self) -> TrainingConfig:
        if self.gradient_checkpointing and self.cuda_graphs:
            raise ValueError(
                "cuda_graphs keeps the activations that gradient_checkpointing saves: turn one of them off"
            )
        return self


class StudentPretraining(TrainingConfig):
    """Language modelling on plain text before all else: what makes a cut or new student a pretrained one.

    One pretrained student serves all methods and training seeds. Checkpoints are chosen by the loss on held-out text.
    """

    steps: int | None = Field(600, gt=0, description="optimiser steps; give this or epochs")
    batch_size: int = Field(16, gt=0, description="sequences per optimiser step")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    warmup_steps: int = Field(50, ge=0, description="linear warm-up")
    select_by: Literal["metric", "loss"] = Field("loss", description="always loss: plain text has no metric")
    file: str | None = Field(
        None,
        description="plain text: a file as plain_text.file, or a folder with train and validation; none = the folder "
        "plain_text or books_en of data.dir, or generated text with synthetic data",
    )
    length: int = Field(64, ge=4, description="tokens of a sequence: texts one after the other, cut into such pieces")
    held_out: int = Field(100, gt=0, description="sequences validated on, never trained on")
    seed: int = Field(0, ge=0, description="of the order of texts and of a student from scratch; not the training seed")

    @model_validator(mode="before")
    @classmethod
    def _epochs_instead(cls, given: object) -> object:
        """Epochs take the place of the usual steps, as in any other training."""
        if isinstance(given, dict) and given.get("epochs") is not None and "steps" not in given:
            return {**given, "steps": None}
        return given

    @field_validator("select_by")
    @classmethod
    def _by_loss(cls, given: str) -> str:
        if given != "loss":
            raise ValueError("plain text has no metric: loss is all that can be selected by")
        return given


class PlainTextConfig(Section):
    """The auxiliary language-model loss on plain text; each method's own weight unless set."""

    weight: float = Field(ge=0, description="beside the method's loss; 0 = off")
    kl_share: float = Field(ge=0, le=1, description="share of KL(p||q) in it, the rest is cross-entropy")
    file: str | None = Field(None, description="a paragraph a line (.txt) or records with a column 'text'")
    hub: str | None = later(
        None, description="OWNER/NAME[@REVISION] of a data set with a column 'text', read as far as training needs it"
    )
    hub_config: str | None = later(
        None, description="the configuration (subset) of that data set, where it has several"
    )
    batch_size: int = Field(8, gt=0, description="paragraphs per optimiser step")
    max_length: int = Field(64, ge=4, description="tokens of a paragraph")


class EvaluationConfig(Section):
    """How responses are generated for scores. Part of the run's identity: decoding changes scores."""

    seeds: list[int] = Field(min_length=1, description="decoding seeds; not training seeds")
    temperature: float = Field(1.0, ge=0, description="0 = greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    top_k: int = Field(0, ge=0, description="0 = off")
    batch_size: int = Field(64, gt=0, description="responses generated at once")
    metrics: Metrics | None = later(
        None, description="metrics in place of the task's own; the first selects checkpoints"
    )

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("each decoding seed once: the same one again draws the same responses")
        return seeds


class TuningConfig(Section):
    """How the method's settings were tuned: the budget, what was tried, and what was chosen by validation scores."""

    trials: int = Field(gt=0, description="settings tried")
    seeds: list[int] = Field(min_length=1, description="training seeds of each trial")
    space: dict[str, list[JsonValue]] = Field(description="the values tried, by dotted key")
    chosen: dict[str, JsonValue] = Field(description="those with the best mean score on validation")

    @property
    def at_the_edge(self) -> tuple[str, ...]:
        """Keys of numbers whose best value is the least or greatest tried: better ones may lie beyond."""
        numbers = {
            k: [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            for k, values in self.space.items()
        }
        return tuple(k for k, v in numbers.items() if len(v) > 1 and self.chosen[k] in (min(v), max(v)))


class Config(Section):
    """Everything that determines a run."""

    preset: Name = Field(description="what --preset was given; of a file, its stem")
    task: Name
    task_file: str | None = Field(None, description="the task file, where the task comes from one")
    method: MethodConfig
    sgo: SgoConfig
    init: Literal["pretrained", "sft"] = Field(description="the init student: as loaded, or after a short SFT")
    seed: int = Field(10, ge=0, description="training seed: data order, initial weights, dropout, sampling of SGOs")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto = a GPU where there is one")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of forward passes; losses are always float32")
    data: DataConfig
    models: ModelsConfig
    student_pretraining: StudentPretraining | None = later(None, description="null = the student is taken as it is")
    teacher_training: TrainingConfig
    init_training: TrainingConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    score_on: Literal["test", "validation"] = later(
        "test", description="validation = score on its examples in place of all test sets, as trials of tuning do"
    )
    plain_text: PlainTextConfig
    fidelity: Fidelity
    method_settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="settings that the preset gives this method alone, by dotted key"
    )
    shared_settings: dict[str, JsonValue] = Field(
        default_factory=dict,
        validate_default=True,
        description="what the other methods have at the keys of method_settings",
    )
    tracking: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = later(
        "none", description="also send figures to this tracker while the run trains; changes no number"
    )
    tuning: TuningConfig | None = later(None, description="where a tuned preset chose the method's settings: how")

    @field_validator("shared_settings")
    @classmethod
    def _declared_as_it_is(cls, shared: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        if not info.data.keys() >= {"training", "plain_text", "method_settings"}:
            return shared  # one of them is wrong, which is told
        if shared.keys() != info.data["method_settings"].keys():
            raise ValueError("expected the same keys as in method_settings")
        for key, own in info.data["method_settings"].items():
            section, _, name = key.partition(".")
            if not may_differ(key) or name not in type(info.data[section]).model_fields:
                raise ValueError(f"{key} is no setting of {MAY_DIFFER}")
            if (there := getattr(info.data[section], name)) != own:
                raise ValueError(f"{key} is {there!r}, but method_settings has {own!r}")
        return shared

    def canonical(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """All of it that makes a run another run: where the files of a method or a task lie does not, nor a tracker.

        What a method's file says stands in `method.file_sha256`, what a task's file says in the run's key.
        """
        return self.model_dump(mode="json", exclude={"method": {"file"}, "task_file": True, "tracking": True})
