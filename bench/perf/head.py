"""Output layer and divergence, forward and backward: hidden states of both models in, gradients out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax, softmax

from bench.config.registry import find_method
from bench.perf import first_engine, installed
from bench.perf.measure import Arm, Comparison, compare, timed
from bench.perf.workload import Workload
from bench.system.seeding import seed_torch
from distillm import Projection, token_losses
from distillm.divergences import DIVERGENCES, DivergenceName

BETA: dict[DivergenceName, float] = {"kld": 0.0, "jsd": 0.5}
"""What TRL and Liger call the divergences that they have."""


@dataclass(frozen=True)
class Layers:
    """Hidden states (N, H) at N response tokens and output layers (V, H) of student and teacher.

    The student's need gradients, which are there already: memory is measured above weights and gradients.
    """

    student: Tensor
    student_weight: Tensor
    teacher: Tensor
    teacher_weight: Tensor

    @classmethod
    def of(cls, workload: Workload, tokens: int) -> Layers:
        """Random ones, in the precisions that training has: on CUDA the forward passes' bfloat16."""
        seed_torch("output layer")
        low = torch.bfloat16 if workload.device.type == "cuda" else torch.float32

        def made(rows: int, width: int, dtype: torch.dtype, scale: float) -> Tensor:
            return (torch.randn(rows, width, device=workload.device) * scale).to(dtype)

        width, wide = (shape.architecture["n_embd"] for shape in (workload.student, workload.teacher))
        entries = workload.student.vocabulary
        layers = cls(
            made(tokens, width, low, 1.0).requires_grad_(),
            made(entries, width, torch.float32, 2 * width**-0.5).requires_grad_(),
            made(tokens, wide, low, 1.0),
            made(entries, wide, low, 2 * wide**-0.5),
        )
        for one in (layers.student, layers.student_weight):
            one.grad = torch.zeros_like(one)
        return layers

    def logits(self) -> tuple[Tensor, Tensor]:
        """Both models' logits (N, V), whole and in float32."""
        with torch.no_grad():
            teacher = linear(self.teacher.float(), self.teacher_weight.float())
        return linear(self.student.float(), self.student_weight), teacher


def measure(workload: Workload) -> Iterator[Comparison]:
    """Time for each divergence, memory with more tokens, and the divergence alone."""
    few, many = workload.head_tokens
    for name in ("srkl", "kld") if workload.quick else ("srkl", "kld", "jsd"):
        yield _compare(workload, name, few, others=True)
    if many != few:
        yield _compare(workload, "srkl", many, others=False)
    yield _elementwise(workload, few)


def _compare(workload: Workload, name: DivergenceName, tokens: int, *, others: bool) -> Comparison:
    layers = Layers.of(workload, tokens)
    objective = find_method(name)[0].objective()
    student = Projection(layers.student, layers.student_weight)
    teacher = Projection(layers.teacher, layers.teacher_weight)
    weights = torch.full((tokens,), 1 / tokens, device=workload.device)
    unread = torch.zeros(tokens, dtype=torch.long, device=workload.device)  # a divergence looks at no token

    def arm(loss: Callable[[], Tensor]) -> Arm:
        def once() -> float:
            torch.autograd.backward(loss())
            return 1.0

        return timed(workload.device, once)

    def ours() -> Tensor:
        with workload.autocast():
            return token_losses(objective, student, teacher, unread, (), weights)[0]

    arms: dict[str, Arm | str] = {}
    if name in FIRST:
        arms["first engine"] = arm(lambda: FIRST[name](*layers.logits()).mean())
    if others and name in PLAIN:
        arms["plain"] = arm(lambda: PLAIN[name](*layers.logits()).mean())
    if others and name in BETA:
        arms["TRL's kernel"] = _trl(workload, layers, BETA[name], arm)
        arms["Liger"] = _liger(workload, layers, BETA[name], arm)
    pace = replace(workload.pace, warm_up=True)  # a first pass takes a fifth longer, and ours would be first
    return compare("head", f"{name}, {tokens:,} tokens", "pass", workload.device, pace, arm(ours), arms)


def plain_kld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(p ‖ q) up to the teacher's entropy, as the authors write it."""
    masked = torch.isinf(student_logits)
    products = softmax(teacher_logits, -1, dtype=torch.float32) * log_softmax(student_logits, -1, dtype=torch.float32)
    return -products.masked_fill(masked, 0).sum(-1)


def plain_srkl(student_logits: Tensor, teacher_logits: Tensor, alpha: float = 0.1) -> Tensor:
    """KL(q ‖ (1-α) p + α q), as the authors write it."""
    q = softmax(student_logits, -1, dtype=torch.float32)
    mixed = (1 - alpha) * softmax(teacher_logits, -1, dtype=torch.float32) + alpha * q
    masked = torch.isinf(student_logits) | torch.isinf(teacher_logits)
    products = (q * mixed.log()).masked_fill(masked, 0)
    products -= (q * log_softmax(student_logits, -1, dtype=torch.float32)).masked_fill(masked, 0)
    return -products.sum(-1)


PLAIN: dict[DivergenceName, Callable[[Tensor, Tensor], Tensor]] = {"kld": plain_kld, "srkl": plain_srkl}
FIRST: dict[DivergenceName, Callable[[Tensor, Tensor], Tensor]] = {"kld": first_engine.kld, "srkl": first_engine.srkl}


def _trl(workload: Workload, layers: Layers, beta: float, arm: Callable[[Callable[[], Tensor]], Arm]) -> Arm | str:
    module = installed.load("trl.kernels.chunked_divergence", workload.device)
    if isinstance(module, str):
        return module
    apply = module.ChunkedDivergenceFunction.apply
    student, teacher = (layers.student, layers.student_weight, None), (layers.teacher, layers.teacher_weight, None)
    return arm(lambda: apply(*student, *teacher, beta)[0].mean())


def _liger(workload: Workload, layers: Layers, beta: float, arm: Callable[[Callable[[], Tensor]], Arm]) -> Arm | str:
    module = installed.load("liger_kernel.transformers.fused_linear_jsd", workload.device)
    if isinstance(module, str):
        return module
    loss, dtype = module.LigerFusedLinearJSD(jsd_beta=beta), layers.student.dtype  # its products take one precision
    return arm(lambda: loss(layers.student, layers.student_weight.to(dtype), layers.teacher, layers.teacher_weight))


def _elementwise(workload: Workload, tokens: int) -> Comparison:
    """KL divergence of logits that are given."""
    seed_torch("logits")
    size = (tokens, workload.student.vocabulary)
    student = torch.randn(size, device=workload.device).requires_grad_()
    teacher = torch.randn(size, device=workload.device)

    def arm(loss: Callable[[Tensor, Tensor], Tensor]) -> Arm:
        def once() -> float:
            student.grad = None
            torch.autograd.backward(loss(student, teacher).mean())
            return 1.0

        return timed(workload.device, once)

    pace = replace(workload.pace, warm_up=True)
    name, arms = f"kld of logits, {tokens:,} tokens", {"first engine": arm(first_engine.kld), "plain": arm(plain_kld)}
    return compare("head", name, "pass", workload.device, pace, arm(DIVERGENCES["kld"]), arms)
