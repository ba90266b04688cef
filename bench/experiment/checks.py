"""What can be found wrong with a configuration before any work: kinds, vocabularies, output layers, positions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from bench.config.sections import Config
from bench.experiment.examples import check_pretraining_text, require_real
from bench.experiment.identity import (
    SCRATCH,
    SIDES,
    TEACHER,
    Side,
    model_path,
    scratch_architecture,
    tokenizer_path,
)
from bench.models.architectures import check_makeable, decoder_start, new_architecture, outline, positions, token_tables
from bench.models.cut import check_layers
from bench.models.generation import engine_of
from bench.models.language_model import Common
from bench.models.loading import (
    check_kind,
    check_same_vocabulary,
    load_architecture,
    load_generation_settings,
    load_tokenizer,
)
from bench.models.lora import add_adapter, base_of
from bench.models.output_head import wrap_output_head
from bench.models.tokenizer import TokenizerAdapter
from bench.synthetic import STUDENTS, TEACHERS
from bench.system.errors import BenchError
from bench.system.processes import launched
from bench.training.sharded import check_shareable


@dataclass(frozen=True)
class _Side:
    """What is known of a model without its weights.

    Attributes:
        config: of the part that reads and writes text.
        entries: of its output layer.
        readable: how many ids it can read.
        positions: by what takes them; None = no limit.
        start: what its decoder starts from; None for a causal model.
    """

    config: PretrainedConfig
    entries: int
    readable: int
    positions: dict[str, int | None]
    start: int | None


@dataclass(frozen=True)
class Fit:
    """How teacher and student fit together.

    Attributes:
        architectures: of each side that was looked at.
        common: what both have.
        notes: what a user should know.
    """

    architectures: dict[Side, PretrainedConfig]
    common: Common
    notes: tuple[str, ...]


def examine(config: Config) -> tuple[str, ...]:
    """What `--dry-run` checks: all that can be known from files that are here already; returns what a user should know.

    Raises:
        BenchError: as `check_pair`, or a tokenizer that cannot be loaded.
    """
    require_real(config.data, config.task)
    check_pretraining_text(config)
    tokenizer = None
    if config.models.tokenizer != "trained" and Path(path := tokenizer_path(config)).is_dir():
        tokenizer = TokenizerAdapter(load_tokenizer(path), config.models.kind)
    return check_pair(config, tokenizer, local_only=True).notes


def check_pair(config: Config, tokenizer: TokenizerAdapter | None, *, local_only: bool = False) -> Fit:
    """See that teacher and student fit together and have positions for the lengths that are asked for.

    Args:
        config: of the run.
        tokenizer: the pair's; None where it has yet to be trained, which then fits by construction.
        local_only: look at no model that would have to be downloaded first.

    Raises:
        BenchError: a model is of the other kind or cannot be made, vocabularies differ, the tokenizer has ids that a
            model has not, sequences may be longer than a model's positions, or decoders start differently.
    """
    paths = {side: model_path(config, side) for side in SIDES}
    there = {side: path for side, path in paths.items() if not local_only or path == SCRATCH or Path(path).is_dir()}
    if tokenizer is not None:
        for side, path in there.items():
            if getattr(config.models, side) not in (*STUDENTS, *TEACHERS, SCRATCH, TEACHER) and path != tokenizer_path(
                config
            ):
                theirs = TokenizerAdapter(load_tokenizer(path), config.models.kind)
                check_same_vocabulary(tokenizer, theirs, tokenizer.backend.name_or_path, f"({side}) {path}")
    sides = {side: _look_at(config, side, path, tokenizer) for side, path in there.items()}
    for side, one in sides.items():
        _check_positions(config, side, one)
        if tokenizer is not None:
            _check_ids(config, side, one, tokenizer)
    starts = {side: one.start for side, one in sides.items()}
    if len(set(starts.values())) > 1:
        raise BenchError(
            f"the teacher's decoder starts from token {starts['teacher']}, the student's from {starts['student']}: "
            "give both the same decoder_start_token_id, in config.json or, from scratch, in models.student_config"
        )
    entries = {side: one.entries for side, one in sides.items() if tokenizer is not None}
    shared = min(entries.values()) if len(set(entries.values())) > 1 else None
    notes = (
        ()
        if shared is None
        else (
            f"the teacher's output layer has {entries['teacher']} entries, the student's {entries['student']}: "
            f"the first {shared} of both are used",
        )
    )
    limits = [limit for one in sides.values() for limit in one.positions.values() if limit is not None]
    return Fit({side: one.config for side, one in sides.items()}, Common(shared, min(limits, default=None)), notes)


def _look_at(config: Config, side: Side, path: str, tokenizer: TokenizerAdapter | None) -> _Side:
    """A model as it is, or as it will be made."""
    kind, generation = config.models.kind, None
    if path == SCRATCH:
        given = scratch_architecture(config, side)
        architecture = new_architecture(given, kind, tokenizer)
        by_generate = engine_of(architecture) == "transformers generate"
        network = check_makeable(given, architecture, kind, by_generate=by_generate)
    else:
        architecture = load_architecture(path)
        check_kind(path, architecture, kind)
        network = outline(path, architecture, kind)
        _check_adapters(config, side, path, architecture)
        generation = load_generation_settings(Path(base_of(path)))
        if side == "student" and config.models.student_layers is not None:
            check_layers(architecture, config.models.student_layers)
    if launched().sharded:
        check_shareable(network)
    parts = {"prompts": "encoder", "responses": "decoder"} if kind == "seq2seq" else {"a prompt and its response": ""}
    return _Side(
        config=architecture.get_text_config(),  # of a model that also sees pictures; any other's own
        entries=wrap_output_head(network, path).out_features,
        readable=token_tables(network, kind),
        positions={what: positions(architecture, part) for what, part in parts.items()},
        start=decoder_start(architecture, generation) if kind == "seq2seq" else None,
    )


def _check_adapters(config: Config, side: Side, path: str, architecture: PretrainedConfig) -> None:
    """Refuse adapters that could not be put into a model that will be trained."""
    pair = config.models
    if pair.lora is None or (side == "teacher" and not pair.trains_teacher):
        return
    if base_of(path) != path:
        raise BenchError(
            f"models.{side}={path} is an adapter already, and models.lora would train another on top: give a whole "
            "model, or train all weights of this one with --set models.lora=null"
        )
    if side == "student" and pair.student_layers is not None and config.student_pretraining is None:
        raise BenchError(
            "models.lora: an adapter names the model that it belongs to, and a student that is cut lies in no folder "
            "until it is pretrained: add --set student_pretraining.steps=N, or --set models.lora=null"
        )
    add_adapter(outline(path, architecture, pair.kind), pair.lora, path, pair.kind, "a try")


def _called(config: Config, side: Side) -> str:
    """A side in a message: both are one model where the student is the teacher, as for `bench evaluate`."""
    return "model" if config.models.student == TEACHER else side


def _check_ids(config: Config, side: Side, one: _Side, tokenizer: TokenizerAdapter) -> None:
    rows, called = min(one.entries, one.readable), _called(config, side)
    if tokenizer.size > rows:
        raise BenchError(
            f"the tokenizer has {tokenizer.size} entries, the {called}'s embeddings or output layer {rows} rows: "
            f"give a model that was resized (model.resize_token_embeddings({tokenizer.size})), or a tokenizer without "
            "the tokens that were added"
        )
    if config.models.kind == "seq2seq" and (one.start is None or not 0 <= one.start < one.readable):
        raise BenchError(
            f"the {called}'s decoder starts from token {one.start}: set decoder_start_token_id in its config.json to "
            f"an id below {one.readable}"
        )


def _check_positions(config: Config, side: Side, one: _Side) -> None:
    called = _called(config, side)
    data, text, pretraining = config.data, config.plain_text, config.student_pretraining
    needed = {
        "prompts": data.max_prompt_length,
        "responses": data.max_response_length,
        "a prompt and its response": data.max_prompt_length + data.max_response_length,
    }
    for what, limit in one.positions.items():
        if limit is None:
            continue
        if needed[what] > limit:
            raise BenchError(
                f"the {called} has {limit} positions, {what} take up to {needed[what]}: lower data.max_prompt_length "
                f"({data.max_prompt_length}) or data.max_response_length ({data.max_response_length})"
            )
        if text.weight and text.max_length > limit:
            raise BenchError(
                f"the {called} has {limit} positions, plain text takes up to {text.max_length}: lower "
                "plain_text.max_length"
            )
        if side == "student" and pretraining is not None and pretraining.length > limit:
            raise BenchError(
                f"the student has {limit} positions, texts of its pretraining take {pretraining.length}: lower "
                "student_pretraining.length"
            )
