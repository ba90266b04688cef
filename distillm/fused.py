"""Output layer and loss in one: hidden states in, a loss per token out, nothing of tokens x vocabulary kept.

The logits of a model with a vocabulary of 50,000 take 200 KB a token, for each of teacher and student, and as much
again for every gradient and intermediate result. Here they are formed for a chunk of tokens at a time. The gradients of
the student's hidden states, output weight and bias are made in the forward pass, while the chunk's logits are there.
That needs, beforehand, the weight of each token in the sum that is differentiated, which a training loop knows.

The matrix products take a chunk of tokens; what is done to each logit goes over a few rows at a time, so that it stays
in the cache. An objective with a `kernel` gets value and gradient by hand, any other by automatic differentiation.

On CUDA nothing waits for the device, and no shape or branch depends on a tensor's values, as long as the objective has
a kernel: the whole can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distillm.divergences import Kernel, rows_at_a_time, slices
from distillm.interface import Divergence, Objective, TokenSequence

CHUNK = {"cpu": 256, "cuda": 512}
"""Tokens in one matrix product, by type of device; more where the vocabulary is small."""

# Vocabulary entries in one product that forms logits on a CPU: MKL takes a quarter less time than for all at once.
_BLOCK = 512

Observer = Callable[[slice, Tensor, Tensor | None], None]
"""Told which rows, the student's logits there and the teacher's, (R, V) each, which it must leave as they are."""

# What a slice of tokens costs: (rows, student's logits, teacher's, where the gradient is to go) -> value per row.
_Loss = Callable[[slice, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Projection:
    """Logits that are not formed: hidden W^T + bias, then c tanh(. / c) where there is a soft cap c.

    Attributes:
        hidden: (N, H), what the output layer reads at each token.
        weight: (V, H), the output layer's.
        bias: (V,), or None.
        softcap: c, or None.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def operand_type(self) -> torch.dtype:
        """What the matrix products multiply: bfloat16 on CUDA under autocast to it or where all is in it, else float32.

        Sums and results are in float32 either way.
        """
        device = self.hidden.device.type
        if device != "cuda":
            return torch.promote_types(torch.float32, self.hidden.dtype)
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
        if autocast or self.hidden.dtype == self.weight.dtype == torch.bfloat16:
            return torch.bfloat16
        return torch.promote_types(torch.float32, self.hidden.dtype)


def is_per_token(objective: Objective) -> bool:
    """Whether an objective may be called on any run of consecutive tokens (`Objective.per_token`).

    A class that overrides the call of one that is has to say so again.
    """
    return _holds(objective, "per_token", "__call__") and bool(getattr(objective, "per_token", False))


def kernel_of(objective: Objective) -> Kernel | None:
    """An objective's kernel, unless a class derived from the kernel's overrides what the kernel stands for."""
    kernel: Kernel | None = getattr(objective, "kernel", None)
    return kernel if _holds(objective, "kernel", "__call__", "divergence") else None


def _holds(objective: Objective, attribute: str, *overridden: str) -> bool:
    """Whether no class redefines one of the methods without the attribute that describes them."""
    classes = type(objective).__mro__

    def first(name: str) -> int:
        return next((place for place, one in enumerate(classes) if name in vars(one)), len(classes))

    return first(attribute) <= min(map(first, overridden))


def token_losses(
    objective: Objective,
    student: Projection,
    teacher: Projection | None,
    tokens: Tensor,
    batch: Sequence[TokenSequence],
    weights: Tensor | None = None,
    observe: Observer | None = None,
) -> tuple[Tensor, Tensor]:
    """An objective's loss at each token, and their weighted sum.

    Args:
        objective: one that is made of logits per token (`is_per_token`).
        student: gradients flow to its hidden states, weight and bias.
        teacher: None unless `objective.needs_teacher`; no gradient flows to it.
        tokens: (N,), the tokens that are predicted.
        batch: the sequences they belong to, in order; only objectives without a kernel are shown it. With one, N may
            exceed what the sequences hold: rows of padding, to be given the weight 0.
        weights: (N,), float32, of each token in the sum; None = 1.
        observe: told the logits while they are there.

    Returns:
        The weighted sum, in float32, the only one of the two that carries a gradient, once; and the losses (N,) in
        float32.

    Raises:
        LossShapeError: the objective returns anything but a loss per token, or one without gradient.
        ValueError: numbers of tokens or vocabularies differ.
    """
    for side in (student, teacher or student):
        if (len(side.hidden), len(side.weight)) != (len(tokens), len(student.weight)):
            raise ValueError(
                f"{len(tokens)} tokens of a vocabulary of {len(student.weight)} need as many hidden states and entries "
                f"of the output layer of either model, got {len(side.hidden)} and {len(side.weight)}"
            )
    if weights is None:
        weights = torch.ones(len(tokens), device=tokens.device)
    loss = _by_hand(objective, tokens) or _by_autograd(objective, tokens, list(batch))
    # asked here: inside the function autocast is off
    operands = student.operand_type(), (teacher or student).operand_type()
    work = _Work(student, teacher, operands, weights, loss, observe, torch.is_grad_enabled())
    total, losses = _Fused.apply(student.hidden, student.weight, student.bias, work)  # type: ignore[no-untyped-call]
    return total, losses


class LossShapeError(ValueError):
    """An objective returned anything but a loss per token."""


def check_shape(objective: Objective, losses: Tensor, tokens: Tensor) -> None:
    """Raise LossShapeError unless there is a loss for each token."""
    wanted = f"{tuple(tokens.shape)}: one loss per response token, of which the training loop takes the mean"
    if not isinstance(losses, Tensor):
        raise LossShapeError(
            f"{type(objective).__name__} returned {type(losses).__name__}, expected a tensor of shape {wanted}"
        )
    if not losses.is_floating_point() or losses.device != tokens.device:
        kind = f"{losses.dtype} on {losses.device}"
        raise LossShapeError(f"{type(objective).__name__} returned {kind}, expected torch.float32 on {tokens.device}")
    if losses.shape != tokens.shape:
        raise LossShapeError(
            f"{type(objective).__name__} returned a tensor of shape {tuple(losses.shape)}, expected {wanted}"
        )


def check_gradient(objective: Objective, losses: Tensor) -> None:
    """Raise LossShapeError unless a gradient can flow back from the losses."""
    if not losses.requires_grad:
        raise LossShapeError(
            f"{type(objective).__name__} returned losses without gradient: nothing would be learnt. Make them of "
            "student_logits without detach(), item(), argmax or torch.no_grad()"
        )


def cross_entropy_kernel(student_logits: Tensor, tokens: Tensor, gradient: Tensor | None) -> Tensor:
    """-log q of each token; gradient q - 1 at the token, q elsewhere. A `Kernel` whose target are the tokens."""
    q = student_logits.softmax(-1)
    chosen = tokens.unsqueeze(-1)
    largest = student_logits.amax(-1, keepdim=True)
    log_q = student_logits.gather(-1, chosen).sub_(largest).add_(q.amax(-1, keepdim=True).log_())
    if gradient is not None:
        gradient.copy_(q.scatter_add_(-1, chosen, torch.full_like(log_q, -1.0)))
    return log_q.squeeze(-1).neg_()


def _by_hand(objective: Objective, tokens: Tensor) -> _Loss | None:
    kernel = kernel_of(objective)
    if kernel is None:
        return None

    def loss(rows: slice, student: Tensor, teacher: Tensor | None, gradient: Tensor | None) -> Tensor:
        value = kernel(student, tokens[rows] if teacher is None else teacher, gradient)
        check_shape(objective, value, tokens[rows])
        # The sum of terms of either sign may end a rounding error below zero.
        return value.clamp_(min=0.0) if isinstance(objective, Divergence) else value

    return loss


def _by_autograd(objective: Objective, tokens: Tensor, batch: list[TokenSequence]) -> _Loss:
    def loss(rows: slice, student: Tensor, teacher: Tensor | None, gradient: Tensor | None) -> Tensor:
        wanted = gradient is not None
        logits = student.detach().requires_grad_() if wanted else student
        with torch.set_grad_enabled(wanted):
            value = objective(logits, teacher, tokens[rows], cut(batch, rows))
        check_shape(objective, value, tokens[rows])
        if gradient is not None:
            check_gradient(objective, value)
            (made,) = torch.autograd.grad(value, logits, torch.ones_like(value), allow_unused=True)
            gradient.zero_() if made is None else gradient.copy_(made)
        return value.detach()

    return loss


def cut(batch: list[TokenSequence], rows: slice) -> list[TokenSequence]:
    """The sequences of some response tokens, counted through the batch; what lies before them is their prompt."""
    found, start = [], 0
    for s in batch:
        first, last = max(rows.start - start, 0), min(rows.stop - start, len(s.response))
        start += len(s.response)
        if first >= last:
            continue
        if last - first == len(s.response):
            found.append(s)
            continue
        values = {name: column[first:last] for name, column in s.token_values.items()}
        prompt, response = s.prompt + s.response[:first], s.response[first:last]
        found.append(replace(s, prompt=prompt, response=response, token_values=values))
    return found


@dataclass(frozen=True)
class _Work:
    student: Projection
    teacher: Projection | None
    operands: tuple[torch.dtype, torch.dtype]  # of the student's and the teacher's products
    weights: Tensor
    loss: _Loss
    observe: Observer | None
    recording: bool


class _Fused(torch.autograd.Function):
    """The weighted sum of the losses; the forward pass makes the gradients, backward scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> tuple[Tensor, Tensor]:
        wanted = [work.recording and need for need in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden.device.type, enabled=False):
            losses, ctx.gradients = _run(work, wanted)
        ctx.mark_non_differentiable(losses)
        return (losses * work.weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of a fused loss can be had once")
        hidden, weight, bias = (None if gradient is None else gradient.mul_(scale) for gradient in ctx.gradients)
        ctx.gradients = None
        return hidden, weight, bias, None


def _run(work: _Work, wanted: list[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """The losses, and the gradients of hidden states, weight and bias, each where it is wanted."""
    student, teacher, operand = work.student, work.teacher, work.operands[0]
    hidden, (vocabulary, width) = student.hidden, student.weight.shape
    exact = torch.float64 if operand == torch.float64 else torch.float32
    made = [
        hidden.new_empty(hidden.shape, dtype=exact) if wanted[0] else None,
        hidden.new_zeros((vocabulary, width), dtype=exact) if wanted[1] else None,
        hidden.new_zeros(vocabulary, dtype=exact) if wanted[2] else None,
    ]
    losses = hidden.new_empty(len(hidden), dtype=torch.float32)
    height = rows_at_a_time(hidden.device, vocabulary)
    size = max(1, min(len(hidden), max(height, CHUNK["cpu" if hidden.device.type == "cpu" else "cuda"])))
    matrix, rest = _in_parts(student.weight, operand)
    logits = hidden.new_empty((size, vocabulary), dtype=exact)
    # Gradients are written over the logits, or in bfloat16 beside them.
    slopes = logits if operand == exact else hidden.new_empty((size, vocabulary), dtype=operand)
    teacher_matrix = teacher_rest = teacher_logits = None
    if teacher is not None:
        teacher_matrix, teacher_rest = _in_parts(teacher.weight, work.operands[1])
        teacher_logits = torch.empty_like(logits)

    for chunk in slices(len(hidden), size):
        count = chunk.stop - chunk.start
        read = hidden[chunk].to(operand)
        _project(read, matrix, rest, logits[:count])
        if teacher is not None and teacher_matrix is not None and teacher_logits is not None:
            teacher_read = teacher.hidden[chunk].to(teacher_matrix.dtype)
            _project(teacher_read, teacher_matrix, teacher_rest, teacher_logits[:count])
        for part in slices(count, height):
            rows = slice(chunk.start + part.start, chunk.start + part.stop)
            q = _finish(logits[part], student)
            p = None if teacher is None or teacher_logits is None else _finish(teacher_logits[part], teacher)
            if work.observe is not None:
                work.observe(rows, q, p)
            if not any(wanted):
                losses[rows] = work.loss(rows, q, p, None)
                continue
            bend = None if student.softcap is None else (q / student.softcap).square_().neg_().add_(1.0)
            losses[rows] = work.loss(rows, q, p, slopes[part])
            if bend is not None:
                slopes[part].mul_(bend)
        weights = work.weights[chunk, None]
        if made[0] is not None:
            _multiply(slopes[:count], matrix, made[0][chunk])
            made[0][chunk].mul_(weights)
        # the tokens' weights go to the narrow factor of each product
        if made[1] is not None:
            _multiply(slopes[:count].t(), (read * weights).to(operand), made[1], add=True)
        if made[2] is not None:
            made[2].unsqueeze(0).addmm_(weights.t().to(exact), slopes[:count].to(exact))
    given = (hidden, student.weight, student.bias)
    return losses, [g if g is None or x is None else g.to(x.dtype) for g, x in zip(made, given, strict=True)]


def _in_parts(weight: Tensor, operand: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A weight as matrix products multiply it, and what that leaves of it; None where it is nothing.

    Logits of rounded weights would bend the gradient as much as rounded hidden states do. With both parts, what is left
    of it is less than a quarter of that.
    """
    matrix = weight.to(operand)
    whole = torch.promote_types(weight.dtype, operand) == operand
    return matrix, None if whole else (weight - matrix).to(operand)


def _project(hidden: Tensor, weight: Tensor, rest: Tensor | None, out: Tensor) -> None:
    """hidden (W + rest)^T into `out`."""
    for columns in slices(len(weight), len(weight) if hidden.is_cuda else _BLOCK):
        _multiply(hidden, weight[columns].t(), out[:, columns])
        if rest is not None:
            _multiply(hidden, rest[columns].t(), out[:, columns], add=True)


def _finish(logits: Tensor, projection: Projection) -> Tensor:
    """Bias and soft cap, in place."""
    if projection.bias is not None:
        logits.add_(projection.bias)
    if projection.softcap is not None:
        logits.div_(projection.softcap).tanh_().mul_(projection.softcap)
    return logits


def _multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """A product of matrices into `out`, or added to it; operands in bfloat16 are summed up in float32 (CUDA only)."""
    if a.dtype == out.dtype:
        out.addmm_(a, b) if add else torch.mm(a, b, out=out)
    elif add:
        torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
