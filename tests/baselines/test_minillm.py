"""MiniLLM's objective: the authors' numbers, the exact gradient where all can be enumerated, its switches."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from baselines.minillm import MiniLLM
from distillm import Sampling, TokenSequence, rkld

GOLDEN = Path(__file__).parents[1] / "golden" / "minillm.json"


def rolled_out(student, teacher, response=None) -> TokenSequence:
    tokens = tuple(response) if response is not None else (0,) * len(student)
    return TokenSequence("x", (1,), tokens, 1, {"student": tuple(student), "teacher": tuple(teacher)})


@pytest.mark.parametrize("index", range(2))
def test_golden_values(index):
    case = json.loads(GOLDEN.read_text())[index]
    lengths = [int(sum(row)) for row in case["mask"]]
    plain = MiniLLM(single_step=False, whitening=False, **{k: case[k] for k in ("teacher_mix", "gamma", "clip")})
    rows = zip(case["old_logprobs"], case["teacher_logprobs"], lengths, strict=True)
    batch = plain.on_step_begin([rolled_out(old[:n], p[:n]) for old, p, n in rows], 1, 1)
    for made, n, weights, returns in zip(
        batch, lengths, case["importance_weights"], case["returns_length_normalised"], strict=True
    ):
        assert made.token_values["weight"] == pytest.approx(weights[:n], rel=1e-4)
        assert made.token_values["advantage"] == pytest.approx(returns[:n], rel=1e-4, abs=1e-5)
    # their whitening covers padding too; the loss and its gradient are compared at their advantages
    given = [
        TokenSequence(s.id, s.prompt, s.response, 1, {**s.token_values, "advantage": tuple(a[:n])})
        for s, n, a in zip(batch, lengths, case["advantages_whitened"], strict=True)
    ]
    now = torch.tensor([v for row, n in zip(case["logprobs"], lengths, strict=True) for v in row[:n]])
    now = now.clamp(max=-1e-3).requires_grad_()  # one of theirs is above 0, no log-probability
    logits = torch.stack([now, torch.log1p(-now.exp())], dim=1)
    losses = plain._policy_loss(logits, torch.zeros(len(now), dtype=torch.long), given)
    expected = torch.tensor([v for row, n in zip(case["policy_loss_grad"], lengths, strict=True) for v in row[:n]])
    legal = torch.tensor([v <= -1e-3 for row, n in zip(case["logprobs"], lengths, strict=True) for v in row[:n]])
    (gradient,) = torch.autograd.grad(losses.mean(), now)
    torch.testing.assert_close(gradient[legal], expected[legal], rtol=1e-3, atol=1e-5)
    if legal.all():
        assert losses.mean().item() == pytest.approx(case["policy_loss"], rel=1e-4)


def test_by_hand():
    objective = MiniLLM(whitening=False, gamma=0.5, reward_scaling=0.5, teacher_mix=0.2)
    made = objective.on_step_begin([rolled_out([-1.0, -2.0], [-2.0, -1.0])], 1, 1)[0]
    # rewards -2, 2; returns (-2 + 0.5 * 2) / 2 and 2 / 1
    assert made.token_values["advantage"] == pytest.approx((-0.5, 2.0))
    q, p = math.exp(-1), math.exp(-2)
    assert made.token_values["weight"] == pytest.approx((q / (0.8 * q + 0.2 * p), p / (0.8 * p + 0.2 * q)))


def test_the_policy_loss_by_hand():
    """max(-A rho, -A clip(rho, 0.8, 1.2)) with rho = w q / q_old, all numbers worked out by hand."""
    objective = MiniLLM(whitening=False, gamma=0.5, single_step=False)
    batch = objective.on_step_begin([rolled_out([-1.0, -2.0], [-2.0, -1.0]), rolled_out([-1.5], [-1.0])], 1, 1)
    # advantages -0.5, 2, 1; weights 1 / (0.8 + 0.2 p / q_old) = 1.144720, 0.744238, 0.885156
    now = torch.tensor([-1.1, -1.9, -1.0])
    logits = torch.stack([now, torch.log1p(-now.exp())], dim=1)
    # rho = 1.144720 e^-0.1 = 1.035786 and 0.744238 e^0.1 = 0.822510, inside the bounds; 0.885156 e^0.5 = 1.459376, cut
    losses = objective(logits, logits, torch.zeros(3, dtype=torch.long), batch)
    assert losses.tolist() == pytest.approx([0.517893, -1.645020, -1.2], rel=1e-5)
    # where the student has moved far, the cut is one-sided: a bad token made more probable keeps its whole cost
    now = torch.tensor([-0.2, -3.0, -3.0])
    logits = torch.stack([now, torch.log1p(-now.exp())], dim=1)
    losses = objective(logits, logits, torch.zeros(3, dtype=torch.long), batch)
    assert losses.tolist() == pytest.approx(
        [0.5 * 1.144720 * math.exp(0.8), -2 * 0.744238 / math.e, -0.197505], rel=1e-5
    )


def test_the_single_step_term_has_the_exact_gradient_and_is_added():
    student, teacher = torch.tensor([[0.3, 0.3, 0.4], [0.25, 0.7, 0.05]]).log(), torch.tensor([0.7, 0.2, 0.1]).log()
    student, teacher = student.requires_grad_(), teacher.expand(2, 3)
    tokens, rows = torch.tensor([1, 2]), [rolled_out([-1.0, -2.0], [-2.0, -1.0], (1, 2))]

    def gradient(**options):
        objective = MiniLLM(**options)
        losses = objective(student, teacher, tokens, objective.on_step_begin(rows, 1, 1))
        return torch.autograd.grad(losses.sum(), student)[0]

    single = gradient(policy_gradient=False)
    # of KL(q || p) with respect to the logits: q (log q/p - KL(q || p))
    q, log_ratio = student.detach().softmax(-1), (student - teacher).detach()
    torch.testing.assert_close(single, q * (log_ratio - (q * log_ratio).sum(-1, keepdim=True)))
    assert single.abs().max() > 0.1
    policy = gradient(single_step=False)
    assert policy.abs().max() > 0.1
    torch.testing.assert_close(gradient(), single + policy)


@pytest.mark.parametrize("mix", [0.2, 0.0, 0.7])
def test_roll_outs_are_asked_for_from_the_mixture_with_their_log_probabilities(mix):
    assert MiniLLM(teacher_mix=mix).sampling == Sampling(teacher_mix=mix, log_probs=True)
    assert MiniLLM().sampling.teacher_mix == 0.2


def test_switches():
    rows = [rolled_out([-1.0, -2.0], [-2.0, -1.0]), rolled_out([-3.0], [-1.0])]

    def advantages(**options):
        return [a for s in MiniLLM(**options).on_step_begin(rows, 1, 1) for a in s.token_values["advantage"]]

    assert advantages(whitening=False, gamma=1.0) == pytest.approx([0.0, 2.0, 4.0])
    assert advantages(whitening=False, gamma=1.0, length_normalisation=False) == pytest.approx([0.0, 2.0, 4.0])
    assert advantages(whitening=False, gamma=0.5) == pytest.approx([-0.5, 2.0, 4.0])
    assert advantages(whitening=False, gamma=0.5, length_normalisation=False) == pytest.approx([-1.0, 2.0, 4.0])
    assert advantages(whitening=False, reward_clip=1.0, gamma=0.0, length_normalisation=False) == [-1.0, 1.0, 1.0]
    white = torch.tensor(advantages())
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white.std().item() == pytest.approx(1.0, rel=1e-4)
    unweighted = MiniLLM(importance_weights=False).on_step_begin(rows, 1, 1)
    assert all(w == 1.0 for s in unweighted for w in s.token_values["weight"])


def test_without_roll_outs_the_single_step_term_is_left():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    batch = [TokenSequence("x", (1,), (1, 2, 2))]
    objective = MiniLLM()
    losses = objective(student, teacher, torch.tensor([1, 2, 2]), objective.on_step_begin(batch, 1, 1))
    torch.testing.assert_close(losses, rkld(student, teacher))


@pytest.mark.parametrize("p", [-1e4, -1000.0, -1e-9])
@pytest.mark.parametrize("q", [-1e4, -1000.0, -1e-9])
def test_finite_whatever_the_models_say(p, q):
    objective = MiniLLM()
    batch = objective.on_step_begin([rolled_out([q, -1.0], [p, -1.0])], 1, 1)
    student = torch.tensor([[0.0, 2e4], [0.0, -math.inf]], requires_grad=True)
    losses = objective(student, torch.tensor([[0.0, 1.0], [0.0, -math.inf]]), torch.tensor([0, 0]), batch)
    (gradient,) = torch.autograd.grad(losses.mean(), student)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("teacher_mix", 1.0), ("gamma", 1.5), ("reward_scaling", 0.0), ("clip", -0.1), ("reward_clip", 0.0)],
)
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=option):
        MiniLLM(**{option: value})
    with pytest.raises(ValueError, match="nothing is left"):
        MiniLLM(policy_gradient=False, single_step=False)


# --- a bandit: two tokens, three steps, every sequence enumerated

STEPS = 3
SEQUENCES = list(itertools.product((0, 1), repeat=STEPS))
PREFIXES = [prefix for n in range(STEPS) for prefix in itertools.product((0, 1), repeat=n)]


def logits_along(table, response):
    return torch.stack([table[PREFIXES.index(response[:t])] for t in range(STEPS)])


def log_probs_along(table, response):
    return logits_along(table, response).log_softmax(-1)[range(STEPS), list(response)]


def exact_gradient(student, teacher):
    """Of KL(q || p) over sequences."""
    q = torch.stack([log_probs_along(student, y).sum() for y in SEQUENCES])
    p = torch.stack([log_probs_along(teacher, y).sum() for y in SEQUENCES])
    return torch.autograd.grad((q.exp() * (q - p)).sum(), student)[0]


def expected_gradient(objective, student, teacher, behaviour):
    """Of the objective's mean over tokens, each sequence with the probability the behaviour policy gives it."""
    total = torch.zeros_like(student)
    for y in SEQUENCES:
        old = log_probs_along(student, y).detach()
        p = log_probs_along(teacher, y)
        batch = objective.on_step_begin([rolled_out(old.tolist(), p.tolist(), y)], 1, 1)
        losses = objective(logits_along(student, y), logits_along(teacher, y), torch.tensor(y), batch)
        probability = log_probs_along(behaviour, y).detach().sum().exp()
        total += probability * torch.autograd.grad(losses.mean(), student)[0]
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_policy_gradient_is_the_exact_gradient_of_reverse_kl(seed):
    torch.manual_seed(seed)
    student = torch.randn(len(PREFIXES), 2, requires_grad=True)
    teacher = torch.randn(len(PREFIXES), 2)
    objective = MiniLLM(
        teacher_mix=0.0, gamma=1.0, length_normalisation=False, whitening=False, single_step=False, reward_scaling=0.5
    )
    expected = expected_gradient(objective, student, teacher, student)
    # mean over the tokens and rewards over 0.5: the exact gradient times (1 / 3) / 0.5
    torch.testing.assert_close(expected, exact_gradient(student, teacher) / STEPS / 0.5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_objective_still_descends_reverse_kl(seed):
    torch.manual_seed(seed)
    student = torch.randn(len(PREFIXES), 2, requires_grad=True)
    teacher = torch.randn(len(PREFIXES), 2)
    mixed = torch.stack([0.8 * student.detach().softmax(-1), 0.2 * teacher.softmax(-1)]).sum(0).log()
    expected = expected_gradient(MiniLLM(whitening=False), student, teacher, mixed)
    cosine = torch.nn.functional.cosine_similarity(expected.flatten(), exact_gradient(student, teacher).flatten(), 0)
    assert cosine > 0.7
