"""Output layer and divergence, forward and backward: hidden states of both models in, gradients out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, linear, log_softmax, softmax

from bench.perf import installed
from bench.perf.measure import Arm, Comparison, compare, timed
from bench.perf.workload import Workload
from bench.system.seeding import seed_torch
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
    for name in ("srkl", "kld", "jsd") if not workload.quick else ("srkl", "kld"):
        yield _compare(workload, name, few)
    if many != few:
        yield _compare(workload, "srkl", many)
    yield _elementwise(workload, few)


def _compare(workload: Workload, name: DivergenceName, tokens: int) -> Comparison:
    layers = Layers.of(workload, tokens)

    def arm(loss: Callable[[], Tensor]) -> Arm:
        def once() -> float:
            torch.autograd.backward(loss().mean())
            return 1.0

        return timed(workload.device, once)

    others: dict[str, Arm | str] = {"whole logits": arm(lambda: DIVERGENCES[name](*layers.logits()))}
    if name in PLAIN and tokens == workload.head_tokens[0]:
        others["plain"] = arm(lambda: PLAIN[name](*layers.logits()))
    if name in BETA:
        others["TRL's kernel"] = _trl_kernel(workload, layers, BETA[name], arm)
        others["Liger"] = _liger(workload, layers, BETA[name], arm)
    return compare(
        "head",
        f"{name}, {tokens:,} tokens",
        "pass",
        workload.device,
        workload.pace,
        arm(lambda: ours(name, layers)),
        others,
    )


def ours(name: DivergenceName, layers: Layers) -> Tensor:
    """The engine's loss of each token (N,)."""
    return DIVERGENCES[name](*layers.logits())


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


def _trl_kernel(
    workload: Workload, layers: Layers, beta: float, arm: Callable[[Callable[[], Tensor]], Arm]
) -> Arm | str:
    module = installed.load("trl.kernels.chunked_divergence", workload.device)
    if isinstance(module, str):
        return module
    apply = module.ChunkedDivergenceFunction.apply
    student, teacher = (layers.student, layers.student_weight, None), (layers.teacher, layers.teacher_weight, None)
    return arm(lambda: apply(*student, *teacher, beta)[0])


def _liger(workload: Workload, layers: Layers, beta: float, arm: Callable[[Callable[[], Tensor]], Arm]) -> Arm | str:
    module = installed.load("liger_kernel.transformers.fused_linear_jsd", workload.device)
    if isinstance(module, str):
        return module
    loss = module.LigerFusedLinearJSD(jsd_beta=beta)
    # its matrix products take one precision
    weight = layers.student_weight
    return arm(lambda: loss(layers.student, weight.to(layers.student.dtype), layers.teacher, layers.teacher_weight))


def _elementwise(workload: Workload, tokens: int) -> Comparison:
    """KL divergence of logits that are given, beside the two lines of the plain formulation."""
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

    def two_lines(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        log_p, log_q = log_softmax(teacher_logits, -1), log_softmax(student_logits, -1)
        return kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)

    return compare(
        "head",
        f"kld of logits, {tokens:,} tokens",
        "pass",
        workload.device,
        workload.pace,
        arm(DIVERGENCES["kld"]),
        {"two lines": arm(two_lines), "plain": arm(plain_kld)},
    )
