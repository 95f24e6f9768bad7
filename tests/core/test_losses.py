"""The losses against values worked out by hand, and against their formulas in numpy."""

from math import log, sqrt

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from distill_core.config import LossWeights
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.losses import Losses, Output, combine, cosine_loss, task_only
from distill_core.soft_targets import soft_target_loss

HEAD = SequenceClassification(("negative", "neutral", "positive"))
seeds = st.integers(0, 2**32 - 1)
temperatures = st.floats(1.0, 20.0)


def draw(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return tensor(np.random.default_rng(seed).normal(0.0, scale, shape))


def test_soft_target_loss_of_two_classes_is_what_the_formula_gives_by_hand() -> None:
    # θ = 2 halves the logits: t/θ = (ln 3, 0), so p = (3/4, 1/4); s/θ = (0, ln 3), so
    # q = (1/4, 3/4). −Σ p·ln q = 3/4·ln 4 + 1/4·(ln 4 − ln 3) = ln 4 − 1/4·ln 3, times θ² = 4.
    teacher_logits = tensor([[2 * log(3), 0.0]], dtype=torch.float64)
    student_logits = tensor([[0.0, 2 * log(3)]], dtype=torch.float64)
    expected = tensor(4 * log(4) - log(3), dtype=torch.float64)
    assert_close(soft_target_loss(student_logits, teacher_logits, 2.0), expected)


def test_soft_target_loss_of_an_undecided_student_is_the_log_of_its_choices() -> None:
    # q = 1/3 everywhere, so −Σ p·ln q = ln 3 whatever p is; θ² = 9.
    loss = soft_target_loss(torch.zeros(5, 3), draw(0, 5, 3).float(), 3.0)
    assert_close(loss, tensor(9 * log(3)))


@given(seeds, st.integers(1, 6), st.integers(2, 7), temperatures)
def test_soft_target_loss_is_its_formula_in_numpy(
    seed: int, batch: int, classes: int, temperature: float
) -> None:
    student, teacher = draw(seed, batch, classes), draw(seed + 1, batch, classes)

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    rows = -(softmax(teacher.numpy()) * np.log(softmax(student.numpy()))).sum(axis=1)
    loss = soft_target_loss(student, teacher, temperature)
    assert loss.item() == pytest.approx(temperature**2 * rows.mean(), rel=1e-9)


@given(seeds, temperatures)
def test_soft_target_loss_at_equal_logits_is_the_teachers_entropy(
    seed: int, temperature: float
) -> None:
    logits = draw(seed, 4, 5)
    entropy = Categorical(logits=logits / temperature).entropy().mean()
    assert_close(soft_target_loss(logits, logits, temperature), temperature**2 * entropy)


@given(seeds, temperatures)
def test_soft_target_loss_is_least_where_the_student_says_what_the_teacher_says(
    seed: int, temperature: float
) -> None:
    teacher, step = draw(seed, 4, 5), draw(seed + 1, 4, 5)
    least = soft_target_loss(teacher, teacher, temperature)
    assert soft_target_loss(teacher + step, teacher, temperature) >= least - 1e-12


@given(seeds, temperatures)
def test_the_gradient_of_the_soft_target_loss_is_theta_times_the_difference_of_probabilities(
    seed: int, temperature: float
) -> None:
    # d/ds of −Σ p·log softmax(s/θ) is (q − p)/θ; times θ², over a batch of 4.
    student, teacher = draw(seed, 4, 5).requires_grad_(), draw(seed + 1, 4, 5)
    soft_target_loss(student, teacher, temperature).backward()
    difference = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    assert_close(student.grad, temperature * difference.detach() / 4)


def test_gradients_keep_their_size_when_the_temperature_rises() -> None:
    # Without θ² they would fall to a hundredth from θ = 10 to θ = 100.
    norms = []
    for temperature in (10.0, 100.0):
        student, teacher = draw(0, 64, 5).requires_grad_(), draw(1, 64, 5)
        soft_target_loss(student, teacher, temperature).backward()
        norms.append(student.grad.norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


def test_cosine_loss_is_what_the_angles_give_by_hand() -> None:
    # 45°: 1 − 1/√2; opposite: 1 − (−1) = 2; the third token is padding. Their mean over two.
    student = tensor([[[1.0, 0.0], [1.0, 0.0], [5.0, 5.0]]])
    teacher = tensor([[[1.0, 1.0], [-2.0, 0.0], [-5.0, 5.0]]])
    loss = cosine_loss(student, teacher, tensor([[1, 1, 0]]))
    assert_close(loss, tensor((1 - 1 / sqrt(2) + 2) / 2))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(2, 6))
def test_cosine_loss_is_its_formula_in_numpy(
    seed: int, batch: int, tokens: int, width: int
) -> None:
    student, teacher = draw(seed, batch, tokens, width), draw(seed + 1, batch, tokens, width)
    lengths = np.random.default_rng(seed).integers(1, tokens + 1, batch)
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    angles = [
        1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t))
        for s, t in zip(student.numpy()[mask == 1], teacher.numpy()[mask == 1], strict=True)
    ]
    loss = cosine_loss(student, teacher, torch.from_numpy(mask))
    assert loss.item() == pytest.approx(np.mean(angles), abs=1e-9)


@given(seeds, st.floats(0.01, 100.0))
def test_cosine_loss_ignores_norms(seed: int, factor: float) -> None:
    student, teacher = draw(seed, 2, 3, 8), draw(seed + 1, 2, 3, 8)
    mask = torch.ones(2, 3, dtype=torch.int64)
    before = cosine_loss(student, teacher, mask)
    assert_close(cosine_loss(factor * student, teacher / factor, mask), before)


@given(seeds)
def test_cosine_loss_ignores_padding(seed: int) -> None:
    student, teacher = draw(seed, 2, 4, 8), draw(seed + 1, 2, 4, 8)
    mask = tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    before = cosine_loss(student, teacher, mask)
    student[mask == 0] = draw(seed + 2, 4, 8)
    assert torch.equal(cosine_loss(student, teacher, mask), before)


@given(seeds)
def test_cosine_loss_of_several_layers_is_the_mean_of_theirs(seed: int) -> None:
    student, teacher = draw(seed, 2, 4, 3, 8), draw(seed + 1, 2, 4, 3, 8)
    mask = tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    each = [cosine_loss(student[:, :, n], teacher[:, :, n], mask) for n in range(3)]
    assert_close(cosine_loss(student, teacher, mask), torch.stack(each).mean())


def outputs(seed: int) -> tuple[Output, Output, Tensor, Tensor]:
    """Student, teacher, labels and attention mask of a batch of 4."""
    student = Output(draw(seed, 4, 3).requires_grad_(), draw(seed + 1, 4, 6, 8).requires_grad_())
    teacher = Output(draw(seed + 2, 4, 3), draw(seed + 3, 4, 6, 8))
    mask = (torch.arange(6) < tensor([[6], [3], [1], [4]])).long()
    return student, teacher, tensor([0, 2, 1, 1]), mask


@given(seeds, st.floats(0, 9), st.floats(0, 9), st.floats(0.1, 9), temperatures)
def test_the_total_is_the_weighted_sum_of_the_three_losses(
    seed: int, alpha: float, beta: float, gamma: float, theta: float
) -> None:
    student, teacher, labels, mask = outputs(seed)
    weights = LossWeights(distillation=alpha, task=beta, cosine=gamma, temperature=theta)
    losses = combine(student, teacher, labels, mask, HEAD, weights)
    expected = (
        alpha * soft_target_loss(student.logits, teacher.logits, theta)
        + beta * cross_entropy(student.logits, labels)
        + gamma * cosine_loss(student.hidden, teacher.hidden, mask)
    )
    assert_close(losses.total, expected)


@pytest.mark.parametrize(
    ("name", "logits", "hidden"),
    [("distillation", True, False), ("task", True, False), ("cosine", False, True)],
)
def test_each_loss_teaches_its_part_of_the_student(name: str, logits: bool, hidden: bool) -> None:
    student, teacher, labels, mask = outputs(0)
    losses = combine(student, teacher, labels, mask, HEAD, LossWeights())
    getattr(losses, name).backward()
    assert (student.logits.grad is not None, student.hidden.grad is not None) == (logits, hidden)
    assert teacher.logits.grad is None
    assert teacher.hidden.grad is None


def test_padding_tokens_get_no_gradient_from_the_cosine_loss() -> None:
    student, teacher, labels, mask = outputs(0)
    combine(student, teacher, labels, mask, HEAD, LossWeights()).cosine.backward()
    touched = student.hidden.grad.abs().sum(dim=-1) > 0
    assert torch.equal(touched, mask.bool())


def test_without_a_teacher_the_total_is_the_tasks_own_loss() -> None:
    student, _, labels, _ = outputs(0)
    losses = task_only(student, labels, HEAD)
    assert torch.equal(losses.total, cross_entropy(student.logits, labels))
    assert losses.distillation == losses.cosine == 0


def test_the_values_of_losses_are_in_order_and_off_the_graph() -> None:
    one, two, three, four = (tensor(x, requires_grad=True) for x in (1.0, 2.0, 3.0, 4.0))
    values = Losses(distillation=one, task=two, cosine=three, total=four).values()
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert not values.requires_grad


def test_tests_check_the_shapes_that_annotations_promise() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="teacher_logits"):
        soft_target_loss(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
    with pytest.raises(jaxtyping.TypeCheckError, match="attention_mask"):
        cosine_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(2, 3))
