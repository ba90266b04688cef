"""Output layer and loss in one, against whole logits in float64: values, gradients, chunk boundaries, memory."""

import weakref
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.abkd import ABKD
from baselines.akl import AKL
from baselines.distillm2 import Contrastive
from baselines.jsd import JSD
from baselines.kld import KLD
from baselines.minillm import MiniLLM
from baselines.rkld import RKLD
from baselines.sft import CrossEntropy
from baselines.tvd import TVD
from distillm import Divergence, Projection, TokenSequence, divergences, fused, srkl, token_losses
from distillm.methods import SKL, SRKL

BY_HAND = [
    *(KLD(), RKLD(), TVD(), CrossEntropy()),
    *(SKL(alpha) for alpha in (0.0, 0.1, 0.9, 1.0)),
    *(SRKL(alpha) for alpha in (0.0, 0.1, 0.9, 1.0)),
    *(JSD(beta) for beta in (0.0, 0.1, 0.5)),
]
BY_AUTOGRAD = [ABKD(), AKL(), Contrastive(beta=0.3), MiniLLM()]
LENGTHS = (5, 1, 8, 7)
N, V, H = sum(LENGTHS), 53, 6


def sequence(index: int, length: int) -> TokenSequence:
    values = {name: tuple(0.3 * i - index for i in range(length)) for name in ("advantage", "weight", "student")}
    return TokenSequence(str(index), (1, 2), tuple(range(3, 3 + length)), (None, 7)[index % 2], values)


BATCH = [sequence(index, length) for index, length in enumerate(LENGTHS)]
TOKENS = torch.tensor([token for s in BATCH for token in s.response])


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(*, bias: bool = True, softcap: float | None = None, count: int = N, size: int = V) -> list[Projection]:
    """Student, whose tensors want gradients, and a teacher of another width."""
    student = [drawn(count, H, seed=0), drawn(size, H, seed=1), drawn(size, seed=2)]
    for tensor in student:
        tensor.requires_grad_()
    teacher = [drawn(count, 9, seed=3), drawn(size, 9, seed=4), drawn(size, seed=5)]
    return [Projection(x, w, b if bias else None, softcap) for x, w, b in (student, teacher)]


def whole(projection: Projection) -> torch.Tensor:
    """All logits at once, in float64."""
    logits = projection.hidden.double() @ projection.weight.double().T
    logits = logits if projection.bias is None else logits + projection.bias.double()
    cap = projection.softcap
    return logits if cap is None else cap * (logits / cap).tanh()


def gradients(total: torch.Tensor, student: Projection) -> list[torch.Tensor]:
    return list(
        torch.autograd.grad(total, [x for x in (student.hidden, student.weight, student.bias) if x is not None])
    )


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Neither divides the number of tokens, nor one the other, and no chunk ends where a sequence does."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 8)
    monkeypatch.setitem(divergences.ENTRIES, "cpu", 3 * V)
    monkeypatch.setattr(fused, "_BLOCK", 20)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("objective", [*BY_HAND, *BY_AUTOGRAD], ids=str)
def test_values_and_gradients_are_those_of_whole_logits_in_float64(objective, bias, softcap):
    student, teacher = pair(bias=bias, softcap=softcap)
    weights = torch.linspace(0.0, 2.0, N)  # the first token has the weight 0
    shown = teacher if objective.needs_teacher else None
    total, losses = token_losses(objective, student, shown, TOKENS, BATCH, weights)
    exact = objective(whole(student), whole(teacher) if shown else None, TOKENS, BATCH)
    expected = (exact * weights.double()).sum()
    assert total.dtype == losses.dtype == torch.float32
    assert not losses.requires_grad
    torch.testing.assert_close(losses.double(), exact.detach().double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total.item(), expected.item(), rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients(0.5 * total, student), gradients(0.5 * expected, student), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_which_objectives_have_a_kernel():
    assert all(fused.kernel_of(objective) is not None for objective in BY_HAND)
    assert all(fused.kernel_of(objective) is None for objective in BY_AUTOGRAD)


def test_a_derived_class_is_taken_at_its_own_word():
    class Doubled(SRKL):
        def divergence(self, student_logits, teacher_logits):
            return 2.0 * super().divergence(student_logits, teacher_logits)

    class Mean(SRKL):
        def __call__(self, student_logits, teacher_logits, tokens, batch):
            losses = super().__call__(student_logits, teacher_logits, tokens, batch)
            return losses.mean().expand(len(losses))

    student, teacher = pair()
    doubled, once = (token_losses(o, student, teacher, TOKENS, BATCH)[1] for o in (Doubled(), SRKL()))
    torch.testing.assert_close(doubled, 2.0 * once)
    assert fused.is_per_token(Doubled())
    assert not fused.is_per_token(Mean())


def test_an_objective_of_ones_own_is_shown_the_rows_it_is_called_on():
    class OfValues(Divergence):
        per_token: ClassVar[bool] = True

        def divergence(self, student_logits, teacher_logits):
            raise NotImplementedError

        def __call__(self, student_logits, teacher_logits, tokens, batch):
            assert [token for s in batch for token in s.response] == tokens.tolist()
            values = [value for s in batch for value in s.token_values["weight"]]
            return torch.tensor(values) + 0.0 * student_logits.sum(-1)

    student, teacher = pair()
    _, losses = token_losses(OfValues(), student, teacher, TOKENS, BATCH)
    assert losses.tolist() == pytest.approx([value for s in BATCH for value in s.token_values["weight"]])


def test_a_sequence_that_is_cut_goes_on_from_where_it_was():
    first, second = fused.cut(BATCH, slice(0, 8)), fused.cut(BATCH, slice(8, 14))
    assert first[:2] == BATCH[:2]
    assert second[0].prompt == BATCH[2].prompt + first[2].response
    assert first[2].response + second[0].response == BATCH[2].response
    assert second[0].token_values["weight"] == BATCH[2].token_values["weight"][2:]
    assert fused.cut(BATCH, slice(N, N + 5)) == []


def test_rows_of_padding_have_no_say():
    student, teacher = pair()
    weights = torch.full((N,), 0.25)
    wanted = gradients(token_losses(SRKL(), student, teacher, TOKENS, BATCH, weights)[0], student)
    padded = [replace(side, hidden=torch.cat([side.hidden, side.hidden[:6].detach()])) for side in (student, teacher)]
    more = torch.cat([TOKENS, TOKENS[:6]])
    total, losses = token_losses(SRKL(), *padded, more, BATCH, torch.cat([weights, torch.zeros(6)]))
    assert len(losses) == N + 6
    for found, expected in zip(gradients(total, student), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("objective", [KLD(), AKL()], ids=str)
def test_gradients_are_made_where_they_are_wanted(objective):
    student, teacher = pair()
    with torch.no_grad():
        total, losses = token_losses(objective, student, teacher, TOKENS, BATCH)
    assert not total.requires_grad
    torch.testing.assert_close(total, losses.sum())
    frozen = replace(student, weight=student.weight.detach(), bias=student.bias.detach())
    total, _ = token_losses(objective, frozen, teacher, TOKENS, BATCH)
    (found,) = torch.autograd.grad(total, student.hidden)
    torch.testing.assert_close(
        found, gradients(token_losses(objective, student, teacher, TOKENS, BATCH)[0], student)[0]
    )


def test_gradients_can_be_had_once():
    student, teacher = pair()
    total, _ = token_losses(KLD(), student, teacher, TOKENS, BATCH)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()


def test_every_token_is_observed_once():
    student, teacher = pair()
    seen = []
    token_losses(
        SRKL(), student, teacher, TOKENS, BATCH, observe=lambda rows, q, p: seen.append((rows, q.clone(), p.clone()))
    )
    assert [i for rows, _, _ in seen for i in range(rows.start, rows.stop)] == list(range(N))
    for place, side in ((1, student), (2, teacher)):
        torch.testing.assert_close(torch.cat([one[place] for one in seen]).double(), whole(side), rtol=1e-5, atol=1e-5)


def test_a_loss_that_is_not_per_token_is_refused():
    class Mean(Divergence):
        def divergence(self, student_logits, teacher_logits):
            return srkl(student_logits, teacher_logits).mean()

    with pytest.raises(fused.LossShapeError, match=r"Mean returned a tensor of shape \(\), expected \(3,\)"):
        token_losses(Mean(), *pair(), TOKENS, BATCH)


class Memory(TorchDispatchMode):
    """Bytes of tensors that are alive beside those there were, at most, and the largest of them."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage._cdata in before | self.known:
                continue
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        return result

    def forget(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("objective", [SRKL(), KLD(), JSD(), CrossEntropy(), AKL()], ids=str)
def test_nothing_of_tokens_x_vocabulary_is_kept(objective, monkeypatch):
    count, size = 1024, 512
    monkeypatch.setitem(fused.CHUNK, "cpu", 32)
    monkeypatch.setitem(divergences.ENTRIES, "cpu", 8 * size)
    student, teacher = pair(count=count, size=size)
    tokens = torch.zeros(count, dtype=torch.long)
    batch = [TokenSequence("a", (1,), (0,) * count)]
    with Memory() as whole_logits:
        logits = student.hidden @ student.weight.T + student.bias
        with torch.no_grad():
            shown = teacher.hidden @ teacher.weight.T + teacher.bias
        objective(logits, shown, tokens, batch).sum().backward()
    student.hidden.grad = student.weight.grad = student.bias.grad = None
    del logits, shown
    with Memory() as chunked:
        token_losses(objective, student, teacher if objective.needs_teacher else None, tokens, batch)[0].backward()
    assert whole_logits.peak > 3 * 4 * count * size  # logits of both and a gradient
    assert chunked.peak < 0.15 * whole_logits.peak


def in_bfloat16(monkeypatch):
    """What CUDA does, here: operands in bfloat16, sums in float32."""

    def multiply(a, b, out, *, add=False):
        assert a.dtype == b.dtype
        product = a.float() @ b.float()
        out.add_(product) if add else out.copy_(product)

    monkeypatch.setattr(fused, "_multiply", multiply)
    monkeypatch.setattr(Projection, "operand_type", lambda self: torch.bfloat16)


def relative_errors(objective, student, teacher, tokens, batch):
    total, _ = token_losses(objective, student, teacher, tokens, batch)
    exact = objective(whole(student), whole(teacher), tokens, batch).sum()
    return [
        ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()
        for found, wanted in zip(gradients(total, student), gradients(exact, student), strict=True)
    ]


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("objective", [SRKL(), KLD(), JSD(), TVD(), AKL()], ids=str)
def test_operands_in_bfloat16(objective, softcap, monkeypatch):
    in_bfloat16(monkeypatch)
    errors = relative_errors(objective, *pair(softcap=softcap), TOKENS, BATCH)
    # the gradient of a total variation is made of signs, which rounding turns where p and q are close
    most = 1e-1 if isinstance(objective, TVD) else 2e-2
    assert all(1e-5 < error < most for error in errors), errors


def errors_beside_those_of_hidden_states(objective, scale, precision):
    """Of the gradients by hidden states and weight: ours, as shares of what hidden states in bfloat16 make anyway.

    Args:
        objective: is differentiated.
        scale: of the weights, as logits have it as well.
        precision: of the teacher's weights.
    """
    make = torch.Generator().manual_seed(0)
    count, width, size = 256, 128, 4096
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def drawn(*shape):
        return torch.randn(*shape, generator=make)

    hidden, weight = drawn(count, width), scale * drawn(size, width) / width**0.5
    sides = [(hidden, weight), (hidden + 0.3 * drawn(count, width), weight + 0.1 * scale * drawn(*weight.shape) / 11)]
    sides[1] = (sides[1][0], sides[1][1].to(precision).float())
    tokens, batch = torch.zeros(count, dtype=torch.long), [TokenSequence("a", (1,), (0,) * count)]

    def exact(of_hidden):
        (h, w), (teacher_h, teacher_w) = ((of_hidden(h).double(), w.double()) for h, w in sides)
        h, w = h.requires_grad_(), w.requires_grad_()
        objective(h @ w.t(), teacher_h @ teacher_w.t(), tokens, batch).sum().backward()
        return h.grad, w.grad

    whole_states, rounded_states = exact(lambda h: h), exact(lambda h: h.bfloat16())
    ((h, w), (teacher_h, teacher_w)) = ((h.bfloat16().float().to(device), w.to(device)) for h, w in sides)
    student = Projection(h.requires_grad_(), w.requires_grad_())
    teacher = Projection(teacher_h.to(precision), teacher_w.to(precision))
    with torch.autocast(device, torch.bfloat16):
        total, _ = token_losses(objective, student, teacher, tokens.to(device), batch)
    total.backward()
    return [
        ((found.cpu().double() - rounded).norm() / (rounded - exactly).norm()).item()
        for found, rounded, exactly in zip((h.grad, w.grad), rounded_states, whole_states, strict=True)
    ]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("objective", [SRKL(), KLD(), JSD()], ids=str)
def test_products_in_bfloat16_add_a_quarter_at_most_to_the_error_of_hidden_states(
    objective, scale, precision, monkeypatch
):
    if not torch.cuda.is_available():
        in_bfloat16(monkeypatch)
    shares = errors_beside_those_of_hidden_states(objective, scale, precision)
    assert all(share <= 0.25 for share in shares), shares


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_cuda(side: Projection, dtype: torch.dtype) -> Projection:
    tensors = (side.hidden, side.weight, side.bias)
    moved = [x.detach().to("cuda", dtype).requires_grad_(x.requires_grad) for x in tensors]
    return Projection(*moved)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("objective", [SRKL(), KLD(), JSD(), TVD(), AKL()], ids=str)
def test_on_cuda_under_autocast_and_in_float32(objective):
    student, teacher = pair(count=700, size=1000)
    tokens, batch = torch.zeros(700, dtype=torch.long, device="cuda"), [TokenSequence("a", (1,), (0,) * 700)]
    student, teacher = on_cuda(student, torch.float32), on_cuda(teacher, torch.float32)
    assert max(relative_errors(objective, student, teacher, tokens, batch)) < 1e-5
    with torch.autocast("cuda", torch.bfloat16):
        assert student.operand_type() == torch.bfloat16
        errors = relative_errors(objective, student, on_cuda(teacher, torch.bfloat16), tokens, batch)
    # the gradient of a total variation is made of signs, which rounding turns where p and q are close
    most = 1e-1 if isinstance(objective, TVD) else 2e-2
    assert all(1e-5 < error < most for error in errors), errors


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("objective", BY_HAND, ids=str)
def test_a_cuda_graph_replays_it(objective):
    """Which also shows that nothing waits for the device: a capture does not allow it."""
    student, teacher = (on_cuda(side, torch.float32) for side in pair())
    tokens, weights = TOKENS.cuda(), torch.ones(N, device="cuda")
    shown = teacher if objective.needs_teacher else None

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            return gradients(token_losses(objective, student, shown, tokens, (), weights)[0], student)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        student.hidden.mul_(1.5)
        weights[3:].zero_()
    graph.replay()
    for found, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, expected)


def test_models_of_different_vocabularies_are_refused():
    student, teacher = pair(count=5, size=12)
    smaller = Projection(teacher.hidden, teacher.weight[:-1])
    with pytest.raises(ValueError, match="vocabulary of 12"):
        token_losses(KLD(), student, smaller, torch.zeros(5, dtype=torch.long), ())


class Negative:
    """An objective whose losses are below zero, by hand."""

    needs_teacher = False
    per_token = True

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        return -student_logits.logsumexp(-1)

    @staticmethod
    def kernel(student_logits, tokens, gradient):
        value = -student_logits.logsumexp(-1)
        if gradient is not None:  # it may lie where the logits do
            gradient.copy_(-student_logits.softmax(-1))
        return value


def test_a_kernel_of_a_users_own_may_give_losses_below_zero():
    student, _ = pair(count=5, size=12)
    tokens = torch.zeros(5, dtype=torch.long)
    total, losses = token_losses(Negative(), student, None, tokens, ())
    expected = -torch.nn.functional.linear(student.hidden, student.weight, student.bias).logsumexp(-1)
    torch.testing.assert_close(losses, expected.detach())
    assert losses.max() < 0
    assert total.item() == pytest.approx(losses.sum().item())
