"""A run's context: its configuration with everything it stands for, made in one go and never changed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from bench import __version__
from bench.config.sections import Config
from bench.data import Example, TaskData, TaskSpec, references_hash, task_of
from bench.data.hub import at_commit
from bench.data.readers import Progress
from bench.data.task import HubSource
from bench.evaluation.evaluate import EvaluationSet
from bench.experiment.checks import check_pair
from bench.experiment.examples import check_pretraining_text, examples_of
from bench.experiment.identity import SCRATCH, run_id, run_key, task_key, tokenizer_path
from bench.metrics.metric import CautiousMetric, Metric, references_of
from bench.metrics.registry import find_metrics
from bench.models import smollm2
from bench.models.encoded import EncodedSplit
from bench.models.generation import engine_of
from bench.models.language_model import Common
from bench.models.loading import load_tokenizer
from bench.models.sampling import Decoding
from bench.models.tokenizer import LengthLimits, TokenizerAdapter, train_tokenizer
from bench.record.record import DataInfo, MetricInfo, TeacherResponses, Unwritten
from bench.synthetic import TEACHERS
from bench.system.artifacts import ArtifactCache
from bench.system.environment import autocast, choose_kernels, kernel_variables, pick_device
from bench.system.errors import BenchError
from bench.system.extensions import in_file
from bench.system.files import read_json, write_json
from bench.training.auxiliary_loss import (
    AuxiliaryLoss,
    LanguageModelling,
    encode_plain_text,
    load_hub_text,
    load_plain_text,
)
from bench.training.length import total_steps
from distillm import SOURCES, Method, SourceOptions, TokenSequence

_TOKENIZER_TRAINED_ON = 50_000  # examples at most, evenly spread: it takes its time on one core
_KEPT_FROM = 20_000  # examples; fewer are encoded in about the time that files take


@dataclass(frozen=True)
class RunContext:
    """A resolved configuration with its data, tokenizer and identity. Reading it has no effect.

    Attributes:
        config: with the device that was found.
        method: the method it names.
        device: where models go.
        task: what the task is.
        added_key: what a task's file, the environment and output layers of two sizes add to keys.
        metrics: the task's; the first selects checkpoints.
        data: the task's examples.
        data_fingerprint: of all of them.
        tokenizer: the pair's.
        common: what teacher and student share in size.
        unwritten: what the tokenizer cannot write.
        limits: lengths in tokens.
        sequences: every split as token ids.
        auxiliary_loss: the method's loss on plain text; None where it is off.
        run_key: all that determines the run's numbers.
        run_id: readable, and unique to `run_key`.
        notes: what a user should know before the run starts.
    """

    config: Config
    method: Method
    device: torch.device
    task: TaskSpec
    added_key: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    data: TaskData
    data_fingerprint: str
    tokenizer: TokenizerAdapter
    common: Common
    unwritten: Unwritten
    limits: LengthLimits
    sequences: Mapping[str, Sequence[TokenSequence]]
    auxiliary_loss: AuxiliaryLoss | None
    run_key: Mapping[str, Any]
    run_id: str
    notes: tuple[str, ...]

    def autocast(self) -> AbstractContextManager[None]:
        """What forward passes run under."""
        return autocast(self.device, self.config.precision)

    @property
    def evaluation_sets(self) -> list[EvaluationSet]:
        """The test set and the evaluation-only sets, under the names that tables use; of a trial, validation alone."""
        of_trial = self.config.score_on == "validation"
        return [
            EvaluationSet(self.data.label(split), examples, self.sequences[split])
            for split, examples in self.data.splits.items()
            if (split == "validation" if of_trial else split not in ("train", "validation"))
        ]

    @property
    def metric_infos(self) -> list[MetricInfo]:
        """The metrics, with what exactly they compute on the test set."""
        references = references_of([len(example.references) for example in self.data.splits["test"]])
        return [
            MetricInfo(
                name=m.name, label=m.label, signature=m.signature(references), file=given if in_file(given) else None
            )
            for m, given in zip(self.metrics, self.task.metrics, strict=True)
        ]

    def data_info(self, notes: list[str], teacher_responses: TeacherResponses | None = None) -> DataInfo:
        """What a record says of the data, with what a user was told, and what is known of the teacher's responses."""
        return DataInfo(
            source=self.data.source,
            fingerprint=self.data_fingerprint,
            examples={name: len(examples) for name, examples in self.data.splits.items()},
            overlap=self.data.overlap,
            teacher_responses=teacher_responses,
            unwritten=self.unwritten,
            notes=notes,
            references={one.name: references_hash(one.examples) for one in self.evaluation_sets},
        )

    def decoding(self, no_repeat_ngram: int = 0) -> Decoding:
        """How responses are sampled for scores."""
        given = self.config.evaluation
        return Decoding(
            self.limits.response, given.temperature, given.top_p, given.top_k, no_repeat_ngram=no_repeat_ngram
        )


def prepare(
    config: Config,
    method: Method,
    cache: ArtifactCache,
    *,
    data: TaskData | None = None,
    progress: Progress = lambda done, total, what: None,
) -> RunContext:
    """Load and encode the data, and refuse all that can be refused before any work.

    Args:
        config: from `bench.config.resolve`.
        method: the method it names.
        cache: where a tokenizer that is trained on the data, and large splits as token ids, are shared.
        data: examples to take in place of the configuration's.
        progress: told what is read and encoded.

    Raises:
        BenchError: bad input; the message says which and what would do.
    """
    device = pick_device(config.device)
    choose_kernels(device)
    task = task_of(config.task, config.task_file)
    if config.evaluation.metrics is not None:
        task = task.model_copy(update={"metrics": config.evaluation.metrics})
    metrics = find_metrics(task.metrics)
    data = data or examples_of(task, config.data, progress)
    check_pretraining_text(config)
    if smollm2.NAME in (config.models.teacher, config.models.student):
        smollm2.converted(cache, progress)
    fingerprint = data.fingerprint()
    tokenizer = _tokenizer(config, data, fingerprint, cache, progress)
    fit = check_pair(config, tokenizer)
    engines = {side: engine_of(one) for side, one in fit.architectures.items()}
    limits = LengthLimits(config.data.max_prompt_length, config.data.max_response_length)
    sequences, cut = _encode(config, data, fingerprint, tokenizer, limits, cache, progress)
    unwritten = _unwritten(data, sequences, tokenizer, metrics)
    corpus = _corpus(config)
    auxiliary_loss = _auxiliary_loss(config, tokenizer, corpus, len(sequences["train"]), cache, progress)
    added = task_key(task) | _only_set(entries=fit.common.entries, environment=kernel_variables())
    key = run_key(config, device.type, fingerprint, tokenizer.fingerprint, engines, added, corpus)
    return RunContext(
        config=config.model_copy(update={"device": device.type}),
        method=method,
        device=device,
        task=task,
        added_key=added,
        metrics=metrics,
        data=data,
        data_fingerprint=fingerprint,
        tokenizer=tokenizer,
        common=fit.common,
        unwritten=unwritten,
        limits=limits,
        sequences=sequences,
        auxiliary_loss=auxiliary_loss,
        run_key=key,
        run_id=run_id(config, key),
        notes=(*cut, *_notes(config, method, data, unwritten, fit.notes, corpus, auxiliary_loss, metrics), *data.notes),
    )


def _notes(
    config: Config,
    method: Method,
    data: TaskData,
    unwritten: Unwritten,
    of_pair: Sequence[str],
    corpus: HubSource | None,
    auxiliary_loss: AuxiliaryLoss | None,
    metrics: Sequence[Metric],
) -> Iterator[str]:
    """What a user should know before the run starts, in the order in which records have it."""
    of, total = len(_tokenizer_examples(data)), len(data.splits["train"])
    if config.models.tokenizer == "trained" and of < total:
        yield f"the tokenizer was trained on {of:,} of {total:,} examples"
    yield from _of_unwritten(unwritten, data)
    yield from of_pair
    yield from _ignored_options(config, method)
    if config.plain_text.weight == 0 and method.plain_text.weight:
        yield f"{method.name}: trained without its plain-text loss (plain_text.weight=0)"
    if config.models.teacher not in (*TEACHERS, SCRATCH) and not config.models.finetune_teacher:
        yield f"the teacher {config.models.teacher} is used as it is: it was not trained here"
    if corpus is not None and auxiliary_loss is not None:
        yield f"plain text: the first {len(auxiliary_loss.sequences):,} texts of {corpus.text} that are long enough"
    yield from _cautions(metrics, data)


def _of_unwritten(unwritten: Unwritten, data: TaskData) -> Iterator[str]:
    """What is lost between texts and tokens, by split."""
    for split, count in unwritten.tokens.items():
        yield f"{split}: {count} token{'s' * (count > 1)} unknown: the tokenizer cannot write all of the text"
    for split, count in unwritten.references.items():
        of = len(data.splits[split])
        yield f"{split}: {count} of {of} references do not come back from the tokenizer: no answer can score as they do"


def _ignored_options(config: Config, method: Method) -> Iterator[str]:
    """Options of the output source that were set and have no effect with it."""
    source, usual = config.sgo.source, asdict(SourceOptions()) | dict(method.source_options)
    read = SOURCES[source].reads | ({"capacity"} if config.fidelity.replayed_on_policy else set())
    for name, value in config.sgo.options.items():
        if name not in read and value != usual[name]:
            readers = ", ".join(other for other, rule in SOURCES.items() if name in rule.reads)
            yield f"sgo.{name}={value} has no effect: {source} does not read it ({readers} would)"


def _cautions(metrics: Sequence[Metric], data: TaskData) -> Iterator[str]:
    """What the metrics say about the references that scores are computed on."""
    for split, examples in data.splits.items():
        for metric in metrics if split != "train" else ():
            references = [text for example in examples for text in example.references]
            if isinstance(metric, CautiousMetric) and (caution := metric.caution(references)):
                yield f"{data.label(split)}: {caution}"


def _only_set(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _tokenizer(
    config: Config, data: TaskData, fingerprint: str, cache: ArtifactCache, progress: Progress
) -> TokenizerAdapter:
    pair = config.models
    if pair.tokenizer == "trained":
        key = {"data": fingerprint, "vocab_size": pair.vocab_size, "version": __version__}
        train_on = _tokenizer_examples(data)
        if len(train_on) < len(data.splits["train"]):
            key["examples"] = len(train_on)
        texts = _texts(train_on, progress)
        name = str(cache.get("tokenizer", key, lambda folder: train_tokenizer(texts, pair.vocab_size, folder)))
    else:
        name = tokenizer_path(config)
    return TokenizerAdapter(load_tokenizer(name), pair.kind)


def _tokenizer_examples(data: TaskData) -> Sequence[Example]:
    examples = data.splits["train"]
    return examples[:: math.ceil(len(examples) / _TOKENIZER_TRAINED_ON)]


def _texts(examples: Sequence[Example], progress: Progress) -> Iterator[str]:
    for number, example in enumerate(examples):
        if number % 1000 == 0:
            progress(number, len(examples), "examples read by the tokenizer's training")
        yield example.prompt
        yield example.references[0]


def _encode(
    config: Config,
    data: TaskData,
    fingerprint: str,
    tokenizer: TokenizerAdapter,
    limits: LengthLimits,
    cache: ArtifactCache,
    progress: Progress,
) -> tuple[dict[str, EncodedSplit], list[str]]:
    """Every split as token ids, and notes of what was dropped or cut; large ones are kept in the cache."""
    encoded, notes = {}, []
    for split, examples in data.splits.items():
        how = {"drop_long": split == "train", "without_bos": split == "train" and config.fidelity.train_without_bos}
        told = functools.partial(_shown, progress, len(examples), split)
        encode = functools.partial(tokenizer.encode, examples, limits, **how, progress=told)
        if len(examples) < _KEPT_FROM:
            encoded[split], counts = encode()
        else:
            key = {
                **how,
                "split": split,
                "data": fingerprint,
                "limits": [limits.prompt, limits.response],
                **_encoder(tokenizer),
            }
            folder = cache.get("sequences", key, functools.partial(_save, encode))
            encoded[split], counts = EncodedSplit.load(folder), read_json(folder / "counts.json")
        progress(len(examples), len(examples), "")
        for what, count in counts.items():
            if count:
                limit = limits.prompt if what.startswith("prompts") else limits.response
                noun, verb = what.split("_")
                noun = noun.removesuffix("s") if count == 1 else noun
                notes.append(f"{split}: {count} {noun} {verb} at {limit} tokens")
        if not encoded[split]:
            raise BenchError(
                f"{split}: no example is left: every prompt is over data.max_prompt_length={limits.prompt}"
            )
    return encoded, notes


def _encoder(tokenizer: TokenizerAdapter) -> dict[str, Any]:
    """What decides which ids a text becomes."""
    return {
        "tokenizer": tokenizer.fingerprint,
        "kind": tokenizer.kind,
        "libraries": [transformers.__version__, tokenizers.__version__],
        "version": __version__,
    }


def _save(encode: Callable[[], tuple[EncodedSplit, dict[str, int]]], folder: Path) -> None:
    sequences, counts = encode()
    sequences.save(folder)
    write_json(folder / "counts.json", counts)


def _shown(progress: Progress, total: int, split: str, done: int) -> None:
    progress(done, total, f"examples of {split} as tokens")


def _unwritten(
    data: TaskData, sequences: Mapping[str, EncodedSplit], tokenizer: TokenizerAdapter, metrics: Sequence[Metric]
) -> Unwritten:
    """What is lost between texts and tokens; references of the sets that are scored, as their metrics see them."""
    tokens = {split: tokenizer.unknown(encoded) for split, encoded in sequences.items()}
    references = {
        split: sum(_comes_back_changed(e.references, tokenizer, metrics) for e in examples)
        for split, examples in data.splits.items()
        if split != "train"
    }
    return Unwritten(tokens=_only_set(**tokens), references=_only_set(**references))


def _comes_back_changed(references: Sequence[str], tokenizer: TokenizerAdapter, metrics: Sequence[Metric]) -> bool:
    given = references[0]
    back = tokenizer.text(tokenizer.response_ids(given))
    return back != given.strip() and any(m.example(back, references) != m.example(given, references) for m in metrics)


def _auxiliary_loss(
    config: Config,
    tokenizer: TokenizerAdapter,
    corpus: HubSource | None,
    examples: int,
    cache: ArtifactCache,
    progress: Progress,
) -> AuxiliaryLoss | None:
    given = config.plain_text
    if given.weight == 0:
        return None
    if corpus is None:
        texts = encode_plain_text(load_plain_text(given.file), tokenizer, given.max_length)
    else:
        needed = total_steps(config.training, examples) * given.batch_size
        texts = _hub_text(corpus, needed, given.max_length, tokenizer, cache, progress)
    return AuxiliaryLoss(LanguageModelling(given.kl_share), given.weight, texts, given.batch_size)


def _hub_text(
    corpus: HubSource, needed: int, longest: int, tokenizer: TokenizerAdapter, cache: ArtifactCache, progress: Progress
) -> EncodedSplit:
    """The first texts of the hub's plain text as token ids, which are kept in the cache where there are many."""

    def encode() -> EncodedSplit:
        return encode_plain_text(load_hub_text(corpus, needed, longest, cache, progress), tokenizer, longest)

    if needed < _KEPT_FROM:
        return encode()
    key = {"plain_text": corpus.text, "texts": needed, "max_length": longest, **_encoder(tokenizer)}
    return EncodedSplit.load(cache.get("sequences", key, lambda folder: encode().save(folder)))


def _corpus(config: Config) -> HubSource | None:
    """The plain text of the hub, at a commit; one that is not trained on need not be within reach.

    All methods of a table have it in their keys, so that they can stand beside each other.
    """
    if config.plain_text.hub is None:
        return None
    named = HubSource(id=config.plain_text.hub, config=config.plain_text.hub_config)
    try:
        return at_commit(named)
    except BenchError:
        if config.plain_text.weight:
            raise
        return named
