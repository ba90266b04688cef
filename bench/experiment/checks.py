"""What can be found wrong with a configuration before any work: kinds, vocabularies, output layers, positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from bench.config.sections import Config
from bench.experiment.identity import SCRATCH, SIDES, Side, model_path, tokenizer_path
from bench.models.loading import check_kind, check_same_vocabulary, load_architecture, load_tokenizer
from bench.models.tokenizer import TokenizerAdapter
from bench.system.errors import BenchError


def examine(config: Config) -> None:
    """What `--dry-run` checks: all that can be known from files that are here already.

    Raises:
        BenchError: as `check_pair`, or a tokenizer that cannot be loaded.
    """
    tokenizer = None
    if config.models.tokenizer != "trained" and Path(path := tokenizer_path(config)).is_dir():
        tokenizer = TokenizerAdapter(load_tokenizer(path), config.models.kind)
    check_pair(config, tokenizer, local_only=True)


def check_pair(
    config: Config, tokenizer: TokenizerAdapter | None, *, local_only: bool = False
) -> dict[Side, PretrainedConfig]:
    """See that teacher and student fit together and have positions for the lengths that are asked for.

    Args:
        config: of the run.
        tokenizer: the pair's; None where it has yet to be trained, which then fits by construction.
        local_only: look at no model that would have to be downloaded first.

    Raises:
        BenchError: a model is of the other kind, vocabularies or output layers differ, or sequences may be longer than
            a model's positions.

    Returns:
        the architecture of each side that was looked at.
    """
    paths = {side: model_path(config, side) for side in SIDES}
    there = {side: path for side, path in paths.items() if not local_only or path == SCRATCH or Path(path).is_dir()}
    if tokenizer is not None:
        for side, path in there.items():
            if getattr(config.models, side) not in ("shipped", SCRATCH, config.models.tokenizer):
                theirs = TokenizerAdapter(load_tokenizer(path), config.models.kind)
                check_same_vocabulary(tokenizer, theirs, tokenizer.backend.name_or_path, f"({side}) {path}")
    architectures = {side: _architecture(config, side, path, tokenizer) for side, path in there.items()}
    for side, architecture in architectures.items():
        _check_positions(config, side, architecture)
    sizes = {side: one.vocab_size for side, one in architectures.items() if tokenizer is not None}
    if len(set(sizes.values())) > 1:
        raise BenchError(
            f"the teacher's output layer has {sizes['teacher']} entries, the student's {sizes['student']}: resize one "
            "(model.resize_token_embeddings) and give the saved folder"
        )
    return architectures


def _architecture(config: Config, side: Side, path: str, tokenizer: TokenizerAdapter | None) -> PretrainedConfig:
    """A model's configuration, as it is or as it will be made."""
    if path != SCRATCH:
        architecture = load_architecture(path)
        check_kind(path, architecture, config.models.kind)
        return architecture.get_text_config()  # of a model that also sees pictures; any other's own
    given = config.models.teacher_config if side == "teacher" else config.models.student_config
    if given is None:
        raise BenchError(f"models.{side}={SCRATCH} needs an architecture: models.{side}_config")
    fields = dict(given)
    size = {} if tokenizer is None else {"vocab_size": len(tokenizer.backend)}
    try:
        return AutoConfig.for_model(fields.pop("model_type"), **fields, **size)
    except (KeyError, ValueError, TypeError) as error:
        raise BenchError(f"models: cannot make a {config.models.kind} model from {given}: {error}") from error


def _check_positions(config: Config, side: Side, architecture: PretrainedConfig) -> None:
    positions = getattr(architecture, "max_position_embeddings", None)
    if positions is None:  # relative positions: no limit
        return
    for what, needed in _lengths(config):
        if needed > positions:
            raise BenchError(
                f"the {side} has {positions} positions, {what} take up to {needed}: lower data.max_prompt_length "
                f"({config.data.max_prompt_length}) or data.max_response_length ({config.data.max_response_length})"
            )


def _lengths(config: Config) -> Iterator[tuple[str, int]]:
    prompt, response = config.data.max_prompt_length, config.data.max_response_length
    if config.models.kind == "causal":
        yield "a prompt and its response", prompt + response
    else:
        yield "prompts", prompt
        yield "responses", response
