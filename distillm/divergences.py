"""Divergences between the teacher's and the student's next-token distribution, per token.

Throughout, p is the teacher's distribution, q the student's, both given as logits over the vocabulary:

| name   | definition                                          | source           |
|--------|-----------------------------------------------------|------------------|
| `kld`  | KL(p ‖ q)                                           | Hinton 2015      |
| `rkld` | KL(q ‖ p)                                           | arXiv:2306.08543 |
| `jsd`  | β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q    | arXiv:2306.13649 |
| `tvd`  | ½ Σ |p - q|                                         | arXiv:2307.15190 |
| `skl`  | KL(p ‖ α p + (1-α) q)                               | arXiv:2402.03898 |
| `srkl` | KL(q ‖ (1-α) p + α q)                               | arXiv:2402.03898 |

All but `tvd` are one family: `kld` and `rkld` are `skl` and `srkl` at α = 0, and `jsd` is
β `skl`(α = β) + (1-β) `srkl`(α = 1-β). The β of `jsd` is the teacher's weight in the mixture, as in the
GKD paper; code that speaks of the student's weight w means β = 1-w, so that w = 0.9 is β = 0.1. It is 0 at
β = 0 and at β = 1.

Every function takes logits of shape (..., V) in any floating dtype and returns a tensor of shape (...):
float32, or float64 where an input is float64. Values include the teacher's entropy, so they are non-negative
and 0 at p = q.

Log-probabilities are floored at `LOG_PROBABILITY_FLOOR`. No logits within ±10,000 reach it, so that it acts
only on vocabulary entries masked with -inf (or with a number as low). Where a definition gives infinity
(`kld` where the student masks what the teacher may say, `rkld` the other way round) the value is therefore
finite and large, and the gradient is that of this finite value. A row in which every logit is -inf is no
distribution and gives nan.

The gradient with respect to the student's logits is written out by hand and formed together with the value, a few
rows at a time: one tensor of the logits' shape is kept for the backward pass, where automatic differentiation would
keep several. `distillm.fused` uses the same kernels without keeping even that.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distillm.interface import check_unit_interval

LOG_PROBABILITY_FLOOR = -1e5

DivergenceName = Literal["kld", "rkld", "jsd", "tvd", "skl", "srkl"]

Kernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(student's logits, teacher's, where the gradient is to go) -> the value of each row.

Logits are (R, V) in one floating type of at least 32 bits. They are left as they are, unless the gradient is to be
written over the student's; None asks for no gradient.
"""

# Below this a probability counts as 0 where it divides: what it weighs is as small.
_TINY = 1e-30


def kld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Forward KL divergence, KL(p ‖ q), per token (Hinton 2015).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, kl_kernel, reverse_kl_kernel)


def rkld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Reverse KL divergence, KL(q ‖ p), per token (arXiv:2306.08543).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, reverse_kl_kernel, kl_kernel)


def jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence per token (arXiv:2306.13649, equation 1).

    β KL(p ‖ m) + (1-β) KL(q ‖ m) with m = β p + (1-β) q; 0 at β = 0 and β = 1.
    Raises ValueError where `beta` is outside [0, 1] or the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, jensen_shannon_kernel(beta), jensen_shannon_kernel(1.0 - beta))


def tvd(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Total variation distance, ½ Σ |p - q|, per token (arXiv:2307.15190).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, total_variation_kernel, total_variation_kernel)


def skl(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Skew KL divergence, KL(p ‖ α p + (1-α) q), per token (arXiv:2402.03898, equation 4).

    Raises ValueError where `alpha` is outside [0, 1] or the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, skew_kl_kernel(alpha), skew_reverse_kl_kernel(alpha))


def srkl(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Skew reverse KL divergence, KL(q ‖ (1-α) p + α q), per token (arXiv:2402.03898, section 3).

    Raises ValueError where `alpha` is outside [0, 1] or the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, skew_reverse_kl_kernel(alpha), skew_kl_kernel(alpha))


DIVERGENCES: dict[DivergenceName, Callable[..., Tensor]] = {
    "kld": kld,
    "rkld": rkld,
    "jsd": jsd,
    "tvd": tvd,
    "skl": skl,
    "srkl": srkl,
}


def kl_kernel(student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None) -> Tensor:
    """KL(p ‖ q); gradient q - p."""
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    log_q = _log(q, student_logits)
    value = _dot(p, _log(p, teacher_logits).sub_(log_q))
    if gradient is not None:
        # The value of a floored entry does not move with q. Few rows have one; only a CPU can look first.
        if log_q.is_cuda or log_q.amin() <= LOG_PROBABILITY_FLOOR:
            p.masked_fill_(log_q <= LOG_PROBABILITY_FLOOR, 0.0)
        torch.sub(q.mul_(p.sum(-1, keepdim=True)), p, out=gradient)
    return value


def reverse_kl_kernel(student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None) -> Tensor:
    """KL(q ‖ p); gradient q (s - Σ q s) with s = log(q / p)."""
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    slope = _log(q, student_logits).sub_(_log(p, teacher_logits))
    return _through_softmax(q, slope, gradient)


def skew_kl_kernel(alpha: float) -> Kernel:
    """KL(p ‖ m), m = α p + (1-α) q; gradient q Σ p r - p r with p r = p (1-α) q / m."""
    check_unit_interval(alpha=alpha)
    return partial(_skew_kl, alpha=alpha) if alpha else kl_kernel


def skew_reverse_kl_kernel(alpha: float) -> Kernel:
    """KL(q ‖ m), m = (1-α) p + α q; gradient q (s - Σ q s) with s = log(q / m) - α q / m."""
    check_unit_interval(alpha=alpha)
    return partial(_skew_reverse_kl, alpha=alpha) if alpha else reverse_kl_kernel


def jensen_shannon_kernel(beta: float) -> Kernel:
    """β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q; gradient (1-β) q (s - Σ q s) with s = log(q / m)."""
    check_unit_interval(beta=beta)
    return partial(_jensen_shannon, beta=beta)


def total_variation_kernel(student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None) -> Tensor:
    """½ Σ |q - p|; gradient q (s - Σ q s) with s = ½ sign(q - p)."""
    q = student_logits.softmax(-1)
    difference = q - teacher_logits.softmax(-1)
    value = 0.5 * difference.abs().sum(-1)
    if gradient is not None:
        _through_softmax(q, difference.sign_().mul_(0.5), gradient)
    return value


def _skew_kl(student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None, *, alpha: float) -> Tensor:
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    p_over_m = _mixture_ratio(p, q, alpha).reciprocal_()
    pull = q * p_over_m if gradient is not None else None
    value = _dot(p, p_over_m.log_())
    if gradient is not None:
        assert pull is not None
        pull.mul_(alpha - 1.0)
        torch.addcmul(pull, q, pull.sum(-1, keepdim=True), value=-1.0, out=gradient)
    return value


def _skew_reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None, *, alpha: float
) -> Tensor:
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    q_over_m = _mixture_ratio(q, p, alpha).reciprocal_()
    log_q_over_m = q_over_m.log()
    value = _dot(q, log_q_over_m)
    if gradient is not None and alpha == 1.0:
        gradient.zero_()  # and not a rounding error of it
    elif gradient is not None:
        _through_softmax(q, log_q_over_m.sub_(q_over_m, alpha=alpha), gradient)
    return value


def _jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, gradient: Tensor | None, *, beta: float) -> Tensor:
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    p_over_q = (p / (q + _TINY)).clamp_(min=_TINY)
    m_over_q = (p_over_q * beta).add_(1.0 - beta)
    # A logarithm of its own rather than log(m / q) - log(p / q): a difference of two large numbers is not exact.
    value = -beta * _dot(p, torch.div(m_over_q, p_over_q, out=p_over_q).log_())
    return value + _through_softmax(q, m_over_q.log_().mul_(beta - 1.0), gradient)


def _mixture_ratio(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """(w a + (1-w) b) / a, at least w > 0 where both are 0."""
    least = a.new_full((), max(weight, _TINY))
    return torch.addcdiv(least, b, a + _TINY, value=1.0 - weight)


def _through_softmax(q: Tensor, slope: Tensor, gradient: Tensor | None) -> Tensor:
    """Σ q s; the gradient with respect to logits is q (s - Σ q s), s being the one with respect to q. Overwrites s."""
    weighted = slope.mul_(q)
    total = weighted.sum(-1)
    if gradient is not None:
        torch.addcmul(weighted, q, total.unsqueeze(-1), value=-1.0, out=gradient)
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _log(probabilities: Tensor, logits: Tensor) -> Tensor:
    """The logarithm of softmax(logits), which is given, floored: without the exponentials of log_softmax."""
    shifted = logits - logits.amax(-1, keepdim=True)
    return shifted.add_(probabilities.amax(-1, keepdim=True).log_()).clamp_(min=LOG_PROBABILITY_FLOOR)


ENTRIES = {"cpu": 410_000, "cuda": 6_500_000}
"""Logits at a time, by type of device, 8 and 129 rows of GPT-2's: what a kernel makes of so many stays in the cache."""


def rows_at_a_time(device: torch.device, vocabulary: int) -> int:
    """How many rows of logits a kernel is to be given at once."""
    return max(1, ENTRIES["cpu" if device.type == "cpu" else "cuda"] // max(1, vocabulary))


def slices(rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class _Divergence(torch.autograd.Function):
    """A kernel as a differentiable function: the forward pass makes the gradients, backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        student_logits: Tensor,
        teacher_logits: Tensor,
        kernel: Kernel,
        mirrored: Kernel,
        want_gradients: tuple[bool, bool],
    ) -> Tensor:
        dtype = torch.promote_types(torch.float32, torch.promote_types(student_logits.dtype, teacher_logits.dtype))
        shape = student_logits.shape
        student, teacher = student_logits.reshape(-1, shape[-1]), teacher_logits.reshape(-1, shape[-1])
        value = student.new_empty(len(student), dtype=dtype)
        gradients = [student.new_empty(student.shape, dtype=dtype) if want else None for want in want_gradients]
        for rows in slices(len(student), rows_at_a_time(student.device, shape[-1])):
            q, p = student[rows].to(dtype), teacher[rows].to(dtype)
            for_q, for_p = (None if gradient is None else gradient[rows] for gradient in gradients)
            value[rows] = kernel(q, p, for_q)
            if for_p is not None:
                # The teacher's gradient, rarely asked for, is the student's of the mirrored divergence.
                mirrored(p, q, for_p)
        ctx.save_for_backward(*(None if gradient is None else gradient.view(shape) for gradient in gradients))
        # The sum of terms of either sign may end a rounding error below zero.
        return value.clamp_(min=0.0).view(shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_output: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        scale = grad_output.unsqueeze(-1)
        student, teacher = (None if g is None else g * scale for g in ctx.saved_tensors)
        return student, teacher, None, None, None


def _divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kernel: Kernel,
    mirrored: Kernel,
) -> Tensor:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student and teacher logits must have the same shape (..., vocabulary), "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    recording = torch.is_grad_enabled()
    want_gradients = (recording and student_logits.requires_grad, recording and teacher_logits.requires_grad)
    value: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        student_logits, teacher_logits, kernel, mirrored, want_gradients
    )
    return value
