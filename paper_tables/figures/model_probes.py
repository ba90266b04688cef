"""Probes of the teacher and the init students themselves, for figures 1, 2, 3 and the check of the theory.

A probe takes the models of a task as every run of the preset has them. It is recorded with all that made it
(`paper_tables.numbers.probes`), and one that is recorded is not made again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.config.presets import read_preset
from bench.config.resolve import resolve
from bench.experiment import stages
from bench.experiment.context import prepare
from bench.experiment.pair import load
from bench.experiment.workshop import Workshop
from bench.metrics.rouge_l import RougeL
from bench.models.language_model import LanguageModel
from bench.models.sampling import Decoding
from bench.system.environment import LoadMeter, describe
from bench.system.files import write_sealed_json
from bench.system.hashing import digest
from bench.system.progress import Reporter
from distillm import TokenSequence, srkl
from paper_tables.numbers.probes import (
    COEFFICIENTS,
    GENERATION_COST,
    NOISY_OUTPUTS,
    CoefficientQuantiles,
    Coefficients,
    GenerationCost,
    ModelProbe,
    MonteCarloError,
    NoisyOutput,
    PlugInError,
    ProbeKind,
)

TASK = "dolly"
PROBED_ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9)
SAMPLE_SIZES = (1, 4, 16, 64, 256)
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
RESPONSES = 400  # at most, of the test split, that Figure 1 looks at
POSITIONS = 2000  # response tokens at which Figure 3 takes both distributions
STUDENTS = (10, 20, 30)  # training seeds of the init students it takes: those of a suite
SEED = 10  # training seed of the student that the other probes take
PLUG_IN_TRIALS = 2  # pairs of empirical distributions per position and sample size
TIMINGS = 7  # repetitions of which the median is taken, after one to warm up

Found = TypeVar("Found")


class ModelPair:
    """A preset's teacher and students, as every run of it has them; each is loaded, or made, when it is first needed.

    Args:
        preset: the scale.
        reporter: told what is being made.

    Raises:
        BenchError: the data or the tokenizer cannot be had.
    """

    def __init__(self, preset: str, reporter: Reporter) -> None:
        config, method = resolve(preset=preset, task=TASK, method="srkl", seed=SEED)
        self.workshop = Workshop.of(reporter)
        self.context = prepare(config, method, self.workshop.cache)

    @cached_property
    def teacher(self) -> LanguageModel:
        """The teacher that runs distil from."""
        return load(self.context, stages.teacher(self.context, self.workshop))

    @cached_property
    def sft_student(self) -> LanguageModel:
        """The student after supervised fine-tuning for as long as a run trains: its outputs are worth a look."""
        config = self.context.config
        folder = stages.fine_tuned(self.context, self.workshop, "student", config.training, config.seed, "sft")
        return load(self.context, str(folder))

    def init_student(self, seed: int | None = None) -> LanguageModel:
        """The init student of a training seed; by default `SEED`."""
        return load(self.context, stages.init_student(self.context, self.workshop, seed))


def probe(
    kind: ProbeKind[Found], preset: str, out: Path, reporter: Reporter, *, fresh: bool = False
) -> ModelProbe[Found]:
    """A probe as recorded, or made now; one recorded by another version of it is made anew.

    Args:
        kind: what is probed.
        preset: whose models; a shipped preset's name, or a user's file.
        out: the results folder.
        reporter: told what is being made.
        fresh: make it now, whatever is recorded.

    Raises:
        BenchError: its models or data cannot be had, what is recorded is damaged, or the folder cannot be written.
    """
    name = read_preset(preset).name
    if not fresh and (recorded := kind.read(out, name)):
        return recorded
    pair = ModelPair(preset, reporter)
    begun, load = time.perf_counter(), LoadMeter()
    found = PROBES[kind.name](pair)
    config = pair.context.config.canonical()
    made = kind.record(
        name=kind.name,
        version=kind.version,
        config=config,
        config_hash=digest(config),
        data=pair.context.data_fingerprint,
        environment=describe(pair.context.device).model_copy(update={"other_load": load.mean()}),
        seconds=round(time.perf_counter() - begun, 2),
        found=found,
    )
    write_sealed_json(kind.path(out, name), made.model_dump(mode="json", by_alias=True))
    return made


def noisy_outputs(pair: ModelPair) -> list[NoisyOutput]:
    """The responses of the SFT student to test prompts."""
    context, tokenizer = pair.context, pair.context.tokenizer
    sequences, examples = context.sequences["test"][:RESPONSES], context.data.splits["test"]
    decoding, batch_size = Decoding(context.limits.response), context.config.evaluation.batch_size
    seed = context.config.seed
    sampled = pair.sft_student.sample(sequences, decoding, "noisy outputs", seed, batch_size=batch_size)
    rows = []
    for example, reference, response in zip(examples, sequences, sampled, strict=False):
        text = tokenizer.text(response)
        rows.append(
            NoisyOutput(
                example=example.id,
                prompt=example.prompt,
                reference=example.references[0],
                output=text,
                teacher_loss=_teacher_loss(pair, reference.with_response(response, 0)),
                teacher_loss_on_reference=_teacher_loss(pair, reference),
                rouge_l=RougeL().example(text, example.references),
                tokens=len(response),
                ended=response[-1] == tokenizer.eos_id,
            )
        )
    return rows


@torch.no_grad()
def _teacher_loss(pair: ModelPair, sequence: TokenSequence) -> float:
    log_p = pair.teacher.score([sequence]).log_softmax(-1)
    tokens = torch.tensor(sequence.response, device=log_p.device)
    return round(-float(log_p.gather(-1, tokens[:, None]).mean()), 4)


def cost(pair: ModelPair) -> list[GenerationCost]:
    """Times of a training step and of generating its batch, by length of the response."""
    context, student = pair.context, pair.init_student()
    prompts = context.sequences["train"][: context.config.training.batch_size]
    limit = context.limits.response
    optimiser = torch.optim.AdamW(student.network.train().parameters(), lr=1e-8)
    rows = []
    for length in (limit // 8, limit // 4, limit // 2, limit):
        filler = context.tokenizer.response_ids("")[:1] * length  # which tokens they are does not change the cost
        responses = [s.with_response(filler, 0) for s in prompts]

        def step(responses: list[TokenSequence] = responses) -> None:
            with torch.no_grad():
                teacher_logits = pair.teacher.score(responses)
            srkl(student.score(responses), teacher_logits).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()

        def generate(length: int = length) -> None:
            student.sample(prompts, Decoding(length), "cost", lengths=[length] * len(prompts))

        rows.append(
            GenerationCost(
                length=length,
                step_seconds=_median_seconds(step, context.device),
                generation_seconds=_median_seconds(generate, context.device),
            )
        )
    return rows


def _median_seconds(action: Callable[[], None], device: torch.device) -> float:
    taken = []
    for _ in range(TIMINGS + 1):
        begun = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken[1:]), 6)


def coefficients(pair: ModelPair) -> Coefficients:
    """How strongly each divergence pulls at a token's probability, and how well a sample estimates it, by skew.

    With m the mixture, the gradient of SKL(p, q) in q is -(1-a) p/m, and that of SRKL(p, q) is log(q/m) + 1 - a q/m.
    The first is taken at tokens the teacher samples, the second at tokens the student samples, at the positions of
    real responses; their quantiles are over those of all STUDENTS, their bounds are the same for all. How well a
    divergence is estimated is a matter of its student: see `monte_carlo` and `plug_in`, whose rows name its seed.
    """
    log_p = _log_probabilities(pair, pair.teacher)
    taken: dict[tuple[str, float], list[Tensor]] = {}
    errors: list[MonteCarloError] = []
    plugged: list[PlugInError] = []
    for seed in STUDENTS:
        log_q = _log_probabilities(pair, pair.init_student(seed))
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for loss, own in (("skl", log_p), ("srkl", log_q)):
            at = torch.multinomial(own.exp(), 1, generator=generator)
            for alpha in PROBED_ALPHAS:
                _, coefficient = ratio_and_coefficient(loss, log_p, log_q, alpha)
                taken.setdefault((loss, alpha), []).append(coefficient.gather(-1, at).squeeze(-1))
        errors += monte_carlo(seed, log_p, log_q, generator)
        plugged += plug_in(seed, log_p, log_q, generator)
    rows = [
        CoefficientQuantiles.model_validate(
            {"loss": loss, "alpha": alpha, "bound": largest_coefficient(loss, alpha)}
            | {f"q{q:g}": float(torch.cat(parts).quantile(q)) for q in QUANTILES}
        )
        for (loss, alpha), parts in taken.items()
    ]
    return Coefficients(
        students=list(STUDENTS), positions=len(log_p), coefficients=rows, errors=errors, plug_in=plugged
    )


def monte_carlo(seed: int, log_p: Tensor, log_q: Tensor, generator: torch.Generator) -> list[MonteCarloError]:
    """Squared error of the mean of the divergence's log-ratio over n tokens sampled from p (SKL) or q (SRKL).

    `seed` is the training seed of the student, `log_p` and `log_q` are of shape (positions, V).

    Both distributions are known to it. Its squared error is of expectation Var/n, normalised by the squared divergence.
    """
    rows = []
    for loss, own in (("skl", log_p), ("srkl", log_q)):
        draws = torch.multinomial(own.exp(), max(SAMPLE_SIZES) * 4, replacement=True, generator=generator)
        for alpha in PROBED_ALPHAS:
            log_ratio, _ = ratio_and_coefficient(loss, log_p, log_q, alpha)
            value = (own.exp() * log_ratio).sum(-1)
            second = (own.exp() * log_ratio.square()).sum(-1)
            variance = (second - value.square()).clamp(min=0)
            estimates = log_ratio.gather(-1, draws)
            for n in SAMPLE_SIZES:
                means = estimates.unfold(-1, n, n).mean(-1)
                squared = (means - value[:, None]).square().mean()
                rows.append(
                    MonteCarloError(
                        seed=seed,
                        loss=loss,
                        alpha=alpha,
                        n=n,
                        divergence=float(value.mean()),
                        exact=float(variance.mean()) / n,
                        sampled=float(squared),
                        normalised=float(variance.mean()) / n / float(value.mean()) ** 2,
                        bound=bound(alpha, n),
                    )
                )
    return rows


def plug_in(seed: int, log_p: Tensor, log_q: Tensor, generator: torch.Generator) -> list[PlugInError]:
    """Squared error of D(p_n, q_n) against D(p, q), with the empirical distributions of n tokens sampled from each.

    `seed` is the training seed of the student, `log_p` and `log_q` are of shape (positions, V).

    Unlike the mean of log-ratios it knows neither distribution, and is biased. There is none at a = 0: it would be
    infinite wherever one sample lacks a token of the other.
    """
    exact = {}
    for loss, own in (("skl", log_p), ("srkl", log_q)):
        for alpha in PROBED_ALPHAS[1:]:
            log_ratio, _ = ratio_and_coefficient(loss, log_p, log_q, alpha)
            exact[loss, alpha] = (own.exp() * log_ratio).sum(-1)
    rows = []
    for n in SAMPLE_SIZES:
        squared: dict[tuple[str, float], list[float]] = {key: [] for key in exact}
        for _ in range(PLUG_IN_TRIALS):
            from_p, from_q = (torch.multinomial(log.exp(), n, True, generator=generator) for log in (log_p, log_q))
            log_p_n, log_q_n = _empirical(from_p, log_p), _empirical(from_q, log_q)
            for (loss, alpha), value in exact.items():
                # each sampled token stands for 1/n of its empirical distribution
                at = from_p if loss == "skl" else from_q
                ratios, _ = ratio_and_coefficient(loss, log_p_n.gather(-1, at), log_q_n.gather(-1, at), alpha)
                squared[loss, alpha].append(float((ratios.mean(-1) - value).square().mean()))
        for (loss, alpha), errors in squared.items():
            mean, divergence = statistics.fmean(errors), float(exact[loss, alpha].mean())
            rows.append(
                PlugInError(
                    seed=seed,
                    loss=loss,
                    alpha=alpha,
                    n=n,
                    divergence=divergence,
                    sampled=mean,
                    normalised=mean / divergence**2,
                )
            )
    return rows


def _empirical(tokens: Tensor, like: Tensor) -> Tensor:
    """Logs of the shares of the tokens (N, n) at each position, (N, V); -inf where a token was not sampled."""
    share = like.new_full(tokens.shape, 1 / tokens.shape[-1])
    return torch.zeros_like(like).scatter_add_(-1, tokens, share).log_()


def ratio_and_coefficient(loss: str, log_p: Tensor, log_q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """log(p/m) and (1-a) p/m of SKL, or log(q/m) and log(q/m) + 1 - a q/m of SRKL; (..., V) each.

    For a > 0 the first coefficient is at most (1-a)/a and the second at most -log a: m holds a share of a of the
    distribution itself. At a = 0 neither has a bound (arXiv:2402.03898, appendix B, checked numerically here).
    """
    own, other = (log_p, log_q) if loss == "skl" else (log_q, log_p)
    weights = log_p.new_tensor([alpha, 1 - alpha]).log()
    log_ratio = own - torch.logaddexp(own + weights[0], other + weights[1])
    if loss == "skl":
        return log_ratio, (1 - alpha) * log_ratio.exp()
    return log_ratio, log_ratio + 1 - alpha * log_ratio.exp()


def largest_coefficient(loss: str, alpha: float) -> float | None:
    """What the coefficient of `ratio_and_coefficient` cannot exceed; None where it has no bound."""
    if alpha == 0:
        return None
    return (1 - alpha) / alpha if loss == "skl" else -math.log(alpha)


def bound(alpha: float, n: int) -> float | None:
    """What the expected squared error of the estimate cannot exceed, whatever p and q: (log² a + 4/e²) / n.

    Where p > m the log-ratio is at most -log a; elsewhere p log²(p/m) = m t log² t with t = p/m < 1, at most 4 m / e².
    An elementary bound of ours, for the mean of independent samples; there is none at a = 0.
    """
    return (math.log(alpha) ** 2 + 4 * math.exp(-2)) / n if alpha > 0 else None


@torch.no_grad()
def _log_probabilities(pair: ModelPair, model: LanguageModel) -> Tensor:
    """Of every token, (POSITIONS, V) in float64, at the response tokens of the validation split."""
    sequences = pair.context.sequences["validation"]
    parts: list[Tensor] = []
    for start in range(0, len(sequences), 16):
        parts.append(model.score(sequences[start : start + 16]).double().log_softmax(-1).cpu())
        if sum(map(len, parts)) >= POSITIONS:
            break
    return torch.cat(parts)[:POSITIONS]


PROBES: dict[str, Callable[[ModelPair], Any]] = {
    NOISY_OUTPUTS.name: noisy_outputs,
    GENERATION_COST.name: cost,
    COEFFICIENTS.name: coefficients,
}
