"""Each method's objective against the divergence it names and against its definition, worked out in plain numbers."""

import math

import pytest
import torch

import baselines
import distillm
from baselines.jsd import JSD
from baselines.seqkd import SeqKD
from distillm import TokenSequence, jsd, kld, rkld, skl, srkl, tvd
from distillm.methods import SKL, SRKL

OWN = {method.name: method.objective for method in (*baselines.METHODS, *distillm.METHODS)}

# no two of the divergences agree on these rows, in either direction or for any two of the weights used here
P = [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]]
Q = [[0.3, 0.3, 0.4], [0.25, 0.7, 0.05]]
TOKENS = [2, 0]
BATCH = [TokenSequence("x", (1,), tuple(TOKENS))]


def kl(a, b):
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


def mixed(weight, a, b):
    return [weight * x + (1 - weight) * y for x, y in zip(a, b, strict=True)]


def js(p, q, beta):
    middle = mixed(beta, p, q)
    return beta * kl(p, middle) + (1 - beta) * kl(q, middle)


def cross_entropy(student, teacher):
    return torch.stack([-student.log_softmax(-1)[row, token] for row, token in enumerate(TOKENS)])


CASES = {
    "sft": (OWN["sft"](), cross_entropy, lambda p, q, token: -math.log(q[token])),
    "seqkd": (OWN["seqkd"](), cross_entropy, lambda p, q, token: -math.log(q[token])),
    "seqkd-kld": (SeqKD("kld"), kld, lambda p, q, token: kl(p, q)),
    "kld": (OWN["kld"](), kld, lambda p, q, token: kl(p, q)),
    "imitkd": (OWN["imitkd"](), kld, lambda p, q, token: kl(p, q)),
    "rkld": (OWN["rkld"](), rkld, lambda p, q, token: kl(q, p)),
    "tvd": (OWN["tvd"](), tvd, lambda p, q, token: sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2),
    "jsd": (OWN["jsd"](), lambda s, t: jsd(s, t, beta=0.1), lambda p, q, token: js(p, q, 0.1)),
    "gkd": (OWN["gkd"](), lambda s, t: jsd(s, t, beta=0.1), lambda p, q, token: js(p, q, 0.1)),
    "jsd-0.7": (JSD(0.7), lambda s, t: jsd(s, t, beta=0.7), lambda p, q, token: js(p, q, 0.7)),
    "skl": (OWN["skl"](), lambda s, t: skl(s, t, alpha=0.1), lambda p, q, token: kl(p, mixed(0.1, p, q))),
    "skl-0.3": (SKL(0.3), lambda s, t: skl(s, t, alpha=0.3), lambda p, q, token: kl(p, mixed(0.3, p, q))),
    "distillm-skl": (OWN["distillm-skl"](), lambda s, t: skl(s, t), lambda p, q, token: kl(p, mixed(0.1, p, q))),
    "srkl": (OWN["srkl"](), lambda s, t: srkl(s, t, alpha=0.1), lambda p, q, token: kl(q, mixed(0.1, q, p))),
    "srkl-0.3": (SRKL(0.3), lambda s, t: srkl(s, t, alpha=0.3), lambda p, q, token: kl(q, mixed(0.3, q, p))),
    "distillm": (OWN["distillm"](), lambda s, t: srkl(s, t), lambda p, q, token: kl(q, mixed(0.1, q, p))),
}


@pytest.mark.parametrize(("objective", "function", "definition"), CASES.values(), ids=CASES)
def test_an_objective_is_its_divergence_and_its_definition(objective, function, definition):
    student, teacher = torch.tensor(Q).log().requires_grad_(), torch.tensor(P).log()
    losses = objective(student, teacher if objective.needs_teacher else None, torch.tensor(TOKENS), BATCH)
    assert losses.tolist() == pytest.approx(list(map(definition, P, Q, TOKENS)), rel=1e-5)
    torch.testing.assert_close(losses, function(student, teacher))
    gradients = [torch.autograd.grad(value.sum(), student)[0] for value in (losses, function(student, teacher))]
    torch.testing.assert_close(*gradients)


def test_the_definitions_can_be_told_apart():
    values = {
        name: tuple(round(definition(p, q, 0), 4) for p, q in zip(P, Q, strict=True))
        for name, (*_, definition) in CASES.items()
    }
    # the same by definition, so as many fewer values as names
    same = [
        {"sft", "seqkd"},
        {"kld", "imitkd", "seqkd-kld"},
        {"jsd", "gkd"},
        {"skl", "distillm-skl"},
        {"srkl", "distillm"},
    ]
    assert len(set(values.values())) == len(values) - sum(len(group) - 1 for group in same)
