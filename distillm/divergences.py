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

The gradient with respect to the student's logits is written out by hand and formed together with the value:
one tensor of the logits' shape is kept for the backward pass, where automatic differentiation would keep
several.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_PROBABILITY_FLOOR = -1e5

DivergenceName = Literal["kld", "rkld", "jsd", "tvd", "skl", "srkl"]

# (log p, log q, option, want gradient) -> (value, its gradient with respect to the logits of q or None).
# A kernel owns its arguments and overwrites them: at full vocabulary each spare tensor counts.
_Kernel = Callable[[Tensor, Tensor, float, bool], tuple[Tensor, Tensor | None]]


def kld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Forward KL divergence, KL(p ‖ q), per token (Hinton 2015).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, _skew_kl, _skew_reverse_kl, 0.0, 0.0)


def rkld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Reverse KL divergence, KL(q ‖ p), per token (arXiv:2306.08543).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, _skew_reverse_kl, _skew_kl, 0.0, 0.0)


def jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence per token (arXiv:2306.13649, equation 1).

    β KL(p ‖ m) + (1-β) KL(q ‖ m) with m = β p + (1-β) q; 0 at β = 0 and β = 1.
    Raises ValueError where `beta` is outside [0, 1] or the two shapes differ.
    """
    _check_in_unit_interval("beta", beta)
    return _divergence(student_logits, teacher_logits, _jensen_shannon, _jensen_shannon, beta, 1.0 - beta)


def tvd(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Total variation distance, ½ Σ |p - q|, per token (arXiv:2307.15190).

    Raises ValueError where the two shapes differ.
    """
    return _divergence(student_logits, teacher_logits, _total_variation, _total_variation, 0.0, 0.0)


def skl(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Skew KL divergence, KL(p ‖ α p + (1-α) q), per token (arXiv:2402.03898, equation 4).

    Raises ValueError where `alpha` is outside [0, 1] or the two shapes differ.
    """
    _check_in_unit_interval("alpha", alpha)
    return _divergence(student_logits, teacher_logits, _skew_kl, _skew_reverse_kl, alpha, alpha)


def srkl(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Skew reverse KL divergence, KL(q ‖ (1-α) p + α q), per token (arXiv:2402.03898, section 3).

    Raises ValueError where `alpha` is outside [0, 1] or the two shapes differ.
    """
    _check_in_unit_interval("alpha", alpha)
    return _divergence(student_logits, teacher_logits, _skew_reverse_kl, _skew_kl, alpha, alpha)


DIVERGENCES: dict[DivergenceName, Callable[..., Tensor]] = {
    "kld": kld,
    "rkld": rkld,
    "jsd": jsd,
    "tvd": tvd,
    "skl": skl,
    "srkl": srkl,
}


def _skew_kl(log_p: Tensor, log_q: Tensor, alpha: float, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(p ‖ m), m = α p + (1-α) q; its gradient is q Σ p r - p r with r = (1-α) q / m."""
    # At α = 0 the value of a floored entry does not move with q; at α > 0 its share in m is 0 of itself.
    floored = log_q <= LOG_PROBABILITY_FLOOR if want_gradient and alpha == 0 else None
    ratio = log_q - log_p
    p = log_p.exp_()
    value = -_log_mixture_ratio(ratio, alpha).mul_(p).sum(-1)
    if not want_gradient:
        return value, None
    pull = p.mul_(_share_of_second(ratio, alpha))
    if floored is not None:
        pull.masked_fill_(floored, 0.0)
    return value, log_q.exp_().mul_(pull.sum(-1, keepdim=True)).sub_(pull)


def _skew_reverse_kl(log_p: Tensor, log_q: Tensor, alpha: float, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(q ‖ m), m = (1-α) p + α q; gradient q (s - Σ q s) with s = (1-α) p / m - log(m / q)."""
    ratio = log_p.sub_(log_q)
    q = log_q.exp_()
    log_m_over_q = _log_mixture_ratio(ratio, alpha)
    value = -(q * log_m_over_q).sum(-1)
    if not want_gradient:
        return value, None
    return value, _through_softmax(q, _share_of_second(ratio, alpha).sub_(log_m_over_q))


def _jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """β KL(p ‖ m) + (1-β) KL(q ‖ m), m = β p + (1-β) q; gradient (1-β) q (s - Σ q s) with s = log(q / m)."""
    ratio = log_q - log_p
    p, q = log_p.exp_(), log_q.exp_()
    value = -beta * _log_mixture_ratio(ratio, beta).mul_(p).sum(-1)
    # A second mixture rather than log(m / p) - log(q / p): the difference of two large numbers is not exact.
    log_m_over_q = _log_mixture_ratio(ratio.neg_(), 1.0 - beta)
    value -= (1.0 - beta) * (q * log_m_over_q).sum(-1)
    if not want_gradient:
        return value, None
    return value, _through_softmax(q, log_m_over_q.mul_(beta - 1.0))


def _total_variation(log_p: Tensor, log_q: Tensor, _: float, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """½ Σ |q - p|; gradient q (s - Σ q s) with s = ½ sign(q - p)."""
    q = log_q.exp_()
    difference = q - log_p.exp_()
    value = 0.5 * difference.abs().sum(-1)
    if not want_gradient:
        return value, None
    return value, _through_softmax(q, difference.sign_().mul_(0.5))


def _log_mixture_ratio(ratio: Tensor, weight: float) -> Tensor:
    """log((w a + (1-w) b) / a) as a new tensor from log(b / a): exactly that at w = 0, exactly 0 at w = 1."""
    if weight == 0:
        return ratio.clone()
    shifted = ratio + _log(1.0 - weight)
    return torch.logaddexp(shifted, ratio.new_full((), _log(weight)), out=shifted)


def _share_of_second(ratio: Tensor, weight: float) -> Tensor:
    """(1-w) b / (w a + (1-w) b), the share of b in the mixture, from ratio = log(b / a)."""
    if weight == 0:
        return torch.ones_like(ratio)
    return (ratio + (_log(1.0 - weight) - _log(weight))).sigmoid_()


def _through_softmax(q: Tensor, slope: Tensor) -> Tensor:
    """The gradient with respect to logits, q (s - Σ q s), from s, the one with respect to q."""
    weighted = slope.mul_(q)
    return weighted.sub_(q.mul_(weighted.sum(-1, keepdim=True)))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _log_probabilities(logits: Tensor, dtype: torch.dtype) -> Tensor:
    return logits.log_softmax(-1, dtype=dtype).clamp_(min=LOG_PROBABILITY_FLOOR)


class _Divergence(torch.autograd.Function):
    """A kernel as a differentiable function: the forward pass makes the gradients, backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        student_logits: Tensor,
        teacher_logits: Tensor,
        kernels: tuple[_Kernel, _Kernel],
        options: tuple[float, float],
        want_gradients: tuple[bool, bool],
    ) -> Tensor:
        dtype = torch.promote_types(torch.float32, torch.promote_types(student_logits.dtype, teacher_logits.dtype))

        def run(side: int, for_teacher: Tensor, for_student: Tensor) -> tuple[Tensor, Tensor | None]:
            log_p, log_q = _log_probabilities(for_teacher, dtype), _log_probabilities(for_student, dtype)
            return kernels[side](log_p, log_q, options[side], want_gradients[side])

        value, student_gradient = run(0, teacher_logits, student_logits)
        # The teacher's gradient, rarely asked for, is the student's of the mirrored divergence.
        teacher_gradient = run(1, student_logits, teacher_logits)[1] if want_gradients[1] else None
        ctx.save_for_backward(student_gradient, teacher_gradient)
        # The sum of terms of either sign may end a rounding error below zero.
        return value.clamp_(min=0.0)

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
    kernel: _Kernel,
    mirrored: _Kernel,
    option: float,
    mirrored_option: float,
) -> Tensor:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student and teacher logits must have the same shape (..., vocabulary), "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    recording = torch.is_grad_enabled()
    want_gradients = (recording and student_logits.requires_grad, recording and teacher_logits.requires_grad)
    value: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        student_logits, teacher_logits, (kernel, mirrored), (option, mirrored_option), want_gradients
    )
    return value


def _check_in_unit_interval(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
