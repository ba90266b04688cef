"""Methods beyond the paper: closed forms, limits, and what they must never do."""

import math

import pytest
import torch

from baselines.abkd import ABKD
from baselines.akl import AKL
from baselines.distillm2 import Contrastive
from baselines.taid import TAID
from distillm import TokenSequence, kld, rkld, skl, srkl

EXTREME = torch.tensor([[0.0, 1e4, -1e4], [3.0, -math.inf, 0.0], [0.0, 200.0, -200.0]])


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(6, 11), torch.randn(6, 11)


def loss(objective, student, teacher, batch=()):
    return objective(student, teacher, torch.zeros(len(student), dtype=torch.long), list(batch))


@pytest.mark.parametrize("objective", [AKL(), ABKD(), TAID(), Contrastive()], ids=lambda o: type(o).__name__)
def test_zero_at_the_teacher_and_finite_anywhere(objective, logits):
    sampled = [TokenSequence("x", (1,), (0,) * 3, 1), TokenSequence("y", (1,), (0,) * 3)]
    student, teacher = logits
    assert (loss(objective, student, teacher, sampled) >= 0).all()
    assert loss(objective, teacher, teacher, sampled).abs().max() < 1e-6
    for one, other in ((EXTREME, EXTREME.flip(0)), (EXTREME.flip(0), EXTREME), (EXTREME, EXTREME)):
        student = one.clone().requires_grad_()
        value = loss(objective, student, other, sampled[:1])
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_abkd_closed_forms_and_limits(logits):
    student, teacher = logits
    p, q = teacher.softmax(-1), student.softmax(-1)
    torch.testing.assert_close(loss(ABKD(1.0, 1.0), student, teacher), 0.5 * (p - q).square().sum(-1))
    hellinger = 0.5 * (p.sqrt() - q.sqrt()).square().sum(-1)
    torch.testing.assert_close(loss(ABKD(0.5, 0.5), student, teacher), 4 * hellinger)
    torch.testing.assert_close(loss(ABKD(1.0, 0.01), student, teacher), kld(student, teacher), rtol=0.05, atol=0.01)
    torch.testing.assert_close(loss(ABKD(0.01, 1.0), student, teacher), rkld(student, teacher), rtol=0.05, atol=0.01)


def test_akl_by_hand():
    teacher, student = torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([[0.3, 0.3, 0.4]]).log()
    # the head is the first token alone: gaps 0.3 there, 0 + 0.3 in the tail
    assert AKL().head_share(student, teacher).item() == pytest.approx(0.5)
    expected = 0.5 * kld(student, teacher) + 0.5 * rkld(student, teacher)
    torch.testing.assert_close(loss(AKL(), student, teacher), expected)
    # at mu = 0.7 two tokens are needed; the second has no gap
    assert AKL(mu=0.95).head_share(student, teacher).item() == pytest.approx(1.0)
    torch.testing.assert_close(loss(AKL(mu=0.95), student, teacher), kld(student, teacher))
    torch.testing.assert_close(loss(AKL(mu=0.0), student, teacher), rkld(student, teacher))


def test_akl_has_no_gradient_through_its_weights(logits):
    student, teacher = logits
    student.requires_grad_()
    share = AKL().head_share(student, teacher).detach()
    assert (share - 0.5).abs().max() > 0.05  # not all at a half, where no weight is felt
    (found,) = torch.autograd.grad(loss(AKL(), student, teacher).sum(), student)
    weighted = share * kld(student, teacher) + (1 - share) * rkld(student, teacher)
    torch.testing.assert_close(found, torch.autograd.grad(weighted.sum(), student)[0])


def test_taid_is_kld_at_its_end_and_has_no_gradient_at_zero(logits):
    student, teacher = logits
    student.requires_grad_()
    torch.testing.assert_close(loss(TAID(start=1.0), student, teacher), kld(student, teacher))
    (gradient,) = torch.autograd.grad(loss(TAID(start=0.0), student, teacher).sum(), student)
    assert gradient.abs().max() < 1e-6
    halfway = loss(TAID(start=0.5), student, teacher)
    target = 0.5 * student.detach() + 0.5 * teacher
    torch.testing.assert_close(halfway, kld(student, target))


def test_taid_moves_by_the_linear_schedule_and_faster_when_the_loss_falls():
    objective = TAID(start=0.4, alpha=0.1, momentum=0.5)
    objective.on_step_begin([], 1, 100)
    objective.on_step_end(2.0)
    assert objective.t == 0.4
    objective.on_step_begin([], 2, 100)
    objective.on_step_end(1.0)
    # m = 0.5 * (2 - 1) / 2
    assert objective.t == pytest.approx(0.4 + 0.1 * 0.6 / (1 + math.exp(-0.25)))
    objective.on_step_begin([], 90, 100)
    objective.on_step_end(1.0)
    assert objective.t == pytest.approx(0.4 + 0.6 * 0.9)
    resumed = TAID(start=0.4, alpha=0.1, momentum=0.5)
    resumed.load_state_dict(objective.state_dict())
    for one in (objective, resumed):
        one.on_step_begin([], 91, 100)
        one.on_step_end(0.5)
    assert resumed.state_dict() == objective.state_dict()


def test_taid_starts_from_the_student_itself():
    objective = TAID(start=0.0)
    for step, seen in enumerate((0.0, 0.0, 1e-9, 2.0, 1.0), 1):  # of which a fall relative to 0 would be endless
        objective.on_step_begin([], step, 100)
        objective.on_step_end(seen)
    assert 0.05 <= objective.t < 0.1


def test_distillm2_tells_the_students_responses_from_the_teachers(logits):
    student, teacher = logits
    batch = [TokenSequence("x", (1,), (0,) * 4), TokenSequence("x", (1,), (0,) * 2, sampled_at_step=3)]
    found = loss(Contrastive(beta=0.25), student, teacher, batch)
    torch.testing.assert_close(found[:4], 1.5 * skl(student, teacher)[:4])
    torch.testing.assert_close(found[4:], 0.5 * srkl(student, teacher)[4:])


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (AKL, {"mu": 1.1}),
        (ABKD, {"alpha": 0.0}),
        (ABKD, {"alpha": 1e-3}),
        (ABKD, {"beta": -1.0}),
        (TAID, {"start": 0.9, "end": 0.5}),
        (TAID, {"momentum": 1.5}),
        (Contrastive, {"beta": 2.0}),
    ],
)
def test_options_out_of_range(cls, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cls(**options)
