"""Divergences against the authors' numbers, closed forms, float64 and their own definitions."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from distillm.divergences import DIVERGENCES, LOG_PROBABILITY_FLOOR, jsd, kld, rkld, skl, srkl, tvd

GOLDEN = Path(__file__).parents[1] / "golden"
INF = math.inf
# Every divergence at its default and at options away from it.
VARIANTS = {
    **DIVERGENCES,
    **{f"jsd-{beta}": partial(jsd, beta=beta) for beta in (0.1, 0.9)},
    **{f"{f.__name__}-{alpha}": partial(f, alpha=alpha) for f in (skl, srkl) for alpha in (0.5, 0.9)},
}
every_divergence = pytest.mark.parametrize("divergence", VARIANTS.values(), ids=VARIANTS.keys())


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small lose far more by waiting for a second thread on a busy machine than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def logits(*shape: int, seed: int = 0, scale: float = 3.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def value_and_gradient(divergence, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = divergence(student, teacher)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value.detach(), gradient


def reference(name: str, option: float, student: Tensor, teacher: Tensor) -> Tensor:
    """The definitions read aloud, in probabilities: right in float64 for moderate logits."""
    p, q = teacher.double().softmax(-1), student.double().softmax(-1)

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(-1)

    match name:
        case "kld":
            return kl(p, q)
        case "rkld":
            return kl(q, p)
        case "tvd":
            return 0.5 * (p - q).abs().sum(-1)
        case "skl":
            return kl(p, option * p + (1 - option) * q)
        case "srkl":
            return kl(q, (1 - option) * p + option * q)
        case "jsd":
            mixture = option * p + (1 - option) * q
            return option * kl(p, mixture) + (1 - option) * kl(q, mixture)
    raise AssertionError(name)


def with_option(name: str, option: float):
    if name in ("kld", "rkld", "tvd"):
        return DIVERGENCES[name]
    return partial(DIVERGENCES[name], **{"beta" if name == "jsd" else "alpha": option})


def golden_divergence(name: str):
    """The function behind a name of the golden files, and whether they leave out the teacher's entropy."""
    plain = {"forward_kl": (kld, True), "reverse_kl": (rkld, False), "tvd": (tvd, False)}
    if name in plain:
        return plain[name]
    prefix, option = name.rsplit("_", 1)
    return {
        "skew_kl_alpha": (partial(skl, alpha=float(option)), True),
        "skew_reverse_kl_alpha": (partial(srkl, alpha=float(option)), False),
        "jsd_student_weight": (partial(jsd, beta=1 - float(option)), False),
    }[prefix]


@pytest.mark.parametrize("case", ["plain", "sharp", "near", "disjoint"])
def test_golden_values_and_gradients(case):
    tensors = load_file(GOLDEN / "divergences.safetensors")
    student, teacher = tensors[f"{case}.student_logits"], tensors[f"{case}.teacher_logits"]
    counted = tensors[f"{case}.labels"] != -100
    entropy = torch.distributions.Categorical(logits=teacher).entropy()
    expected = json.loads((GOLDEN / "divergences.json").read_text())[case]
    assert len(expected) == 16
    for name, loss in expected.items():
        divergence, without_entropy = golden_divergence(name)
        leaf = student.clone().requires_grad_()
        value = divergence(leaf, teacher)
        mean = value[counted].mean()
        mean.backward()
        golden = loss - (entropy[counted].mean().item() if without_entropy else 0.0)
        torch.testing.assert_close(mean.item(), golden, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(leaf.grad, tensors[f"{case}.grad.{name}"], rtol=1e-4, atol=1e-5)


def test_closed_forms_of_two_outcomes():
    # p = (3/4, 1/4), q = (1/4, 3/4), worked out by hand; at β = ½ the mixture is (½, ½).
    teacher, student = torch.tensor([3.0, 1.0]).log(), torch.tensor([1.0, 3.0]).log()
    log2, log3 = math.log(2), math.log(3)
    assert kld(student, teacher).item() == pytest.approx(log3 / 2, abs=1e-6)
    assert rkld(student, teacher).item() == pytest.approx(log3 / 2, abs=1e-6)
    assert tvd(student, teacher).item() == pytest.approx(0.5, abs=1e-6)
    half = 0.75 * log3 - log2
    for divergence in (jsd, partial(skl, alpha=0.5), partial(srkl, alpha=0.5)):
        assert divergence(student, teacher).item() == pytest.approx(half, abs=1e-6)
    # α = 0.1: the mixture is (0.3, 0.7) for both skews, by symmetry of p and q.
    skewed = 0.75 * math.log(0.75 / 0.3) + 0.25 * math.log(0.25 / 0.7)
    assert skl(student, teacher).item() == pytest.approx(skewed, abs=1e-6)
    assert srkl(student, teacher).item() == pytest.approx(skewed, abs=1e-6)


def test_closed_forms_of_disjoint_supports():
    # The teacher says only the first token, the student only the second.
    teacher, student = torch.tensor([0.0, -INF]), torch.tensor([-INF, 0.0])
    assert tvd(student, teacher).item() == 1.0
    assert skl(student, teacher, alpha=0.1).item() == pytest.approx(-math.log(0.1))
    assert srkl(student, teacher, alpha=0.1).item() == pytest.approx(-math.log(0.1))
    assert jsd(student, teacher, beta=0.5).item() == pytest.approx(math.log(2))
    # Infinite by definition: finite and large instead.
    assert kld(student, teacher).item() == rkld(student, teacher).item() == -LOG_PROBABILITY_FLOOR


def test_gradient_of_kld_is_q_minus_p():
    student, teacher = logits(4, 7), logits(4, 7, seed=1)
    _, gradient = value_and_gradient(kld, student, teacher)
    torch.testing.assert_close(gradient, student.softmax(-1) - teacher.softmax(-1))


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("option", [0.05, 0.1, 0.5, 0.9])
def test_float32_agrees_with_the_definition_in_float64(name, option):
    student, teacher = logits(3, 5, 50, dtype=torch.float32), logits(3, 5, 50, seed=1, dtype=torch.float32)
    value, gradient = value_and_gradient(with_option(name, option), student, teacher)
    leaf = student.double().requires_grad_()
    expected = reference(name, option, leaf, teacher)
    expected.sum().backward()
    assert value.shape == (3, 5)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected.detach().float(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(gradient, leaf.grad.float(), rtol=1e-4, atol=1e-6)


@every_divergence
def test_gradcheck_of_both_sides(divergence):
    student, teacher = logits(2, 3, 6, scale=1.0), logits(2, 3, 6, scale=1.0, seed=1)
    assert torch.autograd.gradcheck(divergence, (student.requires_grad_(), teacher.requires_grad_()))


@every_divergence
def test_gradcheck_beside_masked_entries(divergence):
    """The gradient is that of the value returned, also where the floor stands in for infinity."""
    free = logits(3, 4, scale=1.0).requires_grad_()
    masked = torch.full((3, 1), -INF, dtype=torch.float64)
    for mask_teacher in (False, True):
        teacher = logits(3, 5, scale=1.0, seed=1)
        teacher[:, 4] = -INF if mask_teacher else 0.0
        assert torch.autograd.gradcheck(lambda z, t=teacher: divergence(torch.cat([z, masked], dim=-1), t), (free,))


@every_divergence
def test_no_gradient_where_none_is_asked_for(divergence):
    student, teacher = logits(2, 6).requires_grad_(), logits(2, 6, seed=1)
    assert divergence(student, teacher).requires_grad
    assert not divergence(student.detach(), teacher).requires_grad
    with torch.no_grad():
        assert not divergence(student, teacher).requires_grad


@every_divergence
def test_inputs_are_left_as_they_were(divergence):
    student, teacher = logits(2, 6), logits(2, 6, seed=1)
    value_and_gradient(divergence, student, teacher)
    assert torch.equal(student, logits(2, 6))
    assert torch.equal(teacher, logits(2, 6, seed=1))


@every_divergence
def test_masking_an_entry_in_both_models_is_leaving_it_out(divergence):
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    expected, expected_gradient = value_and_gradient(divergence, student[:, :6], teacher[:, :6])
    student[:, 6:] = teacher[:, 6:] = -INF
    value, gradient = value_and_gradient(divergence, student, teacher)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, :6], expected_gradient)
    assert (gradient[:, 6:] == 0).all()


@pytest.mark.parametrize("mask", [-INF, torch.finfo(torch.float32).min, -1e9])
@pytest.mark.parametrize("where", [("student",), ("teacher",), ("student", "teacher")])
@every_divergence
def test_masks_of_any_kind_leave_value_and_gradient_finite(divergence, where, mask):
    student, teacher = logits(4, 9, dtype=torch.float32), logits(4, 9, seed=1, dtype=torch.float32)
    if "student" in where:
        student[:, 2:5] = mask
    if "teacher" in where:
        teacher[:, 2:5] = mask
    value, gradient = value_and_gradient(divergence, student, teacher)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_kld_of_what_the_student_masks_is_large():
    student, teacher = torch.tensor([0.0, -INF]), torch.zeros(2)
    assert kld(student, teacher).item() == pytest.approx(-LOG_PROBABILITY_FLOOR / 2, rel=1e-4)
    assert rkld(teacher, student).item() == pytest.approx(-LOG_PROBABILITY_FLOOR / 2, rel=1e-4)


@every_divergence
def test_a_token_far_below_the_rest_in_both_models(divergence):
    """The mixture of two underflowed probabilities is 0, and its logarithm is where nan came from."""
    student, teacher = logits(3, 8, dtype=torch.float32), logits(3, 8, seed=1, dtype=torch.float32)
    student[:, 0] = teacher[:, 0] = -200.0
    value, gradient = value_and_gradient(divergence, student, teacher)
    expected, expected_gradient = value_and_gradient(divergence, student.double(), teacher.double())
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient.float(), rtol=1e-4, atol=1e-6)


@every_divergence
@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e4),
    seed=st.integers(0, 2**16),
    masked=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=11, max_size=11),
)
def test_finite_non_negative_and_as_in_float64(divergence, scale, seed, masked):
    student = logits(2, 12, seed=seed, dtype=torch.float32).clamp(-3, 3) * (scale / 3)
    teacher = logits(2, 12, seed=seed + 1, dtype=torch.float32).clamp(-3, 3) * (scale / 3)
    for entry, (in_student, in_teacher) in enumerate(masked):  # the last entry stays
        student[:, entry] += -INF if in_student else 0.0
        teacher[:, entry] += -INF if in_teacher else 0.0
    if divergence is tvd:  # its gradient jumps where p = q: there rounding decides on which side it is
        p, q = (side.double().softmax(-1) for side in (teacher, student))
        assume((((p - q).abs() > 1e-6) | (q < 1e-7)).all())
    value, gradient = value_and_gradient(divergence, student, teacher)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (value >= 0).all()
    expected, expected_gradient = value_and_gradient(divergence, student.double(), teacher.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    # A gradient of rkld is a difference of terms as large as the value, and no more exact than these.
    tolerance = 1e-5 * max(1.0, expected.max().item())
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=tolerance)


@every_divergence
@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e4), seed=st.integers(0, 2**16))
def test_zero_and_stationary_where_the_models_agree(divergence, scale, seed):
    same = logits(3, 40, seed=seed, scale=scale / 3, dtype=torch.float32)
    value, gradient = value_and_gradient(divergence, same, same)
    assert value.abs().max().item() <= 1e-6
    assert gradient.abs().max().item() <= 1e-6


@every_divergence
@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-1e3, 1e3), seed=st.integers(0, 2**16))
def test_adding_a_constant_to_the_logits_changes_nothing(divergence, shift, seed):
    student, teacher = logits(3, 10, seed=seed), logits(3, 10, seed=seed + 1)
    value, gradient = value_and_gradient(divergence, student, teacher)
    shifted, shifted_gradient = value_and_gradient(divergence, student + shift, teacher - shift)
    torch.testing.assert_close(shifted, value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shifted_gradient, gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_limits_of_alpha_and_beta(masked):
    student, teacher = logits(4, 9, dtype=torch.float32), logits(4, 9, seed=1, dtype=torch.float32)
    if masked:
        student[:, 0], teacher[:, 1] = -INF, -INF
    for skewed, plain in ((skl, kld), (srkl, rkld)):
        at_zero = value_and_gradient(partial(skewed, alpha=0.0), student, teacher)
        expected = value_and_gradient(plain, student, teacher)
        assert torch.equal(at_zero[0], expected[0])
        assert torch.equal(at_zero[1], expected[1])
    zeros = (
        partial(skl, alpha=1.0),
        partial(srkl, alpha=1.0),
        partial(jsd, beta=0.0),
        partial(jsd, beta=1.0),
    )
    for divergence in zeros:
        value, gradient = value_and_gradient(divergence, student, teacher)
        assert (value == 0).all()
        assert (gradient == 0).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), weight=st.floats(0.0, 1.0))
def test_relations_within_the_family(seed, weight):
    student, teacher = logits(3, 10, seed=seed), logits(3, 10, seed=seed + 1)
    torch.testing.assert_close(rkld(student, teacher), kld(teacher, student))
    torch.testing.assert_close(srkl(student, teacher, alpha=weight), skl(teacher, student, alpha=weight))
    torch.testing.assert_close(
        jsd(student, teacher, beta=weight),
        weight * skl(student, teacher, alpha=weight) + (1 - weight) * srkl(student, teacher, alpha=1 - weight),
    )
    assert (skl(student, teacher, alpha=weight) <= kld(student, teacher) + 1e-9).all()
    assert (tvd(student, teacher) ** 2 <= 0.5 * kld(student, teacher) + 1e-9).all()  # Pinsker's inequality


def test_student_weight_is_one_minus_beta():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    p, q = teacher.softmax(-1), student.softmax(-1)
    mixture = 0.1 * p + 0.9 * q  # student weight 0.9
    expected = 0.9 * (q * (q / mixture).log()).sum(-1) + 0.1 * (p * (p / mixture).log()).sum(-1)
    torch.testing.assert_close(jsd(student, teacher, beta=0.1), expected)
    assert not torch.allclose(jsd(student, teacher, beta=0.9), expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_divergence
def test_half_precision_logits_are_computed_in_float32(divergence, dtype):
    student, teacher = logits(3, 40, dtype=dtype), logits(3, 40, seed=1, dtype=dtype)
    value, gradient = value_and_gradient(divergence, student, teacher)
    expected, expected_gradient = value_and_gradient(divergence, student.float(), teacher.float())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient.to(dtype))


def test_float64_logits_are_computed_in_float64():
    value = kld(logits(3, 5), logits(3, 5, seed=1, dtype=torch.float32))
    assert value.dtype == torch.float64


@pytest.mark.parametrize("weight", [-0.01, 1.01, math.nan])
@pytest.mark.parametrize(("divergence", "name"), [(skl, "alpha"), (srkl, "alpha"), (jsd, "beta")])
def test_weights_out_of_range_are_refused(divergence, name, weight):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got {weight}"):
        divergence(torch.zeros(3), torch.zeros(3), **{name: weight})


@every_divergence
def test_shapes_that_differ_are_refused(divergence):
    with pytest.raises(ValueError, match=r"same shape.*got \(2, 5\) and \(2, 1\)"):
        divergence(torch.zeros(2, 5), torch.zeros(2, 1))
