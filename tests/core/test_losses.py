"""The losses of answers against values worked out by hand and their formulas in numpy, and the total."""

from math import log
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy, mse_loss
from torch.testing import assert_close

from distill_core.focal import focal_loss
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.layer_losses import attention_loss, cosine_loss, hidden_loss, relation_loss
from distill_core.loss_weights import LOSSES, LossWeights
from distill_core.losses import Losses, Objective, Output, Pair, combine, reads, task_only
from distill_core.soft_targets import logit_loss, soft_target_loss

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


@given(seeds, temperatures)
def test_logit_loss_is_its_formula_in_numpy(seed: int, scale: float) -> None:
    student, teacher = scale * draw(seed, 4, 5), draw(seed + 1, 4, 5)
    expected = ((student.numpy() - teacher.numpy()) ** 2).mean()
    assert logit_loss(student, teacher).item() == pytest.approx(expected)


@given(seeds)
def test_logit_loss_is_twice_what_soft_targets_tend_to_at_a_high_temperature(seed: int) -> None:
    student, teacher = draw(seed, 4, 5), draw(seed + 1, 4, 5)
    student, teacher = (z - z.mean(dim=-1, keepdim=True) for z in (student, teacher))
    divergence = soft_target_loss(student, teacher, 1e4) - soft_target_loss(teacher, teacher, 1e4)
    assert_close(logit_loss(student, teacher), 2 * divergence, rtol=1e-2, atol=1e-4)


def objective(**weights: Any) -> Objective:
    return Objective(HEAD, LossWeights(**weights), relation_heads=2)


def pair(seed: int) -> Pair:
    """Return what student and teacher say of a batch of 4 texts of up to 6 tokens."""
    student, teacher = (
        Output(
            draw(part, 4, 3),
            draw(part + 2, 4, 6, 2, 8),
            draw(part + 4, 4, 6, 8),
            draw(part + 6, 4, 2, 2, 6, 6).softmax(-1),
            draw(part + 8, 4, 6, 3, 8, scale=1),
        )
        for part in (seed, seed + 1)
    )
    for field in FIELDS:
        getattr(student, field).requires_grad_()
    mask = (torch.arange(6) < tensor([[6], [3], [2], [4]])).long()
    return Pair(student, teacher, tensor([0, 2, 1, 1]), mask)


FIELDS = ("logits", "hidden", "embeddings", "attentions", "relations")
READS = {
    "distillation": "logits",
    "task": "logits",
    "cosine": "hidden",
    "hidden": "hidden",
    "embeddings": "embeddings",
    "attention": "attentions",
    "relation": "relations",
}
"""What each loss is between."""


@given(seeds, st.floats(0, 9), st.floats(0, 9), st.floats(0.1, 9), temperatures)
def test_the_total_is_the_weighted_sum_of_the_three_losses(
    seed: int, alpha: float, beta: float, gamma: float, theta: float
) -> None:
    said = pair(seed)
    weights = {"distillation": alpha, "task": beta, "cosine": gamma, "temperature": theta}
    student, teacher = said.student, said.teacher
    expected = (
        alpha * soft_target_loss(student.logits, teacher.logits, theta)
        + beta * cross_entropy(student.logits, said.labels)
        + gamma * cosine_loss(student.hidden, teacher.hidden, said.attention_mask)
    )
    assert_close(combine(said, objective(**weights)).total, expected)


def test_every_weight_weighs_its_own_loss() -> None:
    weights = dict(zip(LOSSES, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), strict=True))
    said = pair(0)
    student, teacher, mask = said.student, said.teacher, said.attention_mask
    losses = combine(said, objective(**weights))
    assert_close(
        dict(losses.named),
        {
            "distillation": soft_target_loss(student.logits, teacher.logits, 2.0),
            "task": cross_entropy(student.logits, said.labels),
            "cosine": cosine_loss(student.hidden, teacher.hidden, mask),
            "hidden": hidden_loss(student.hidden, teacher.hidden, mask),
            "embeddings": hidden_loss(student.embeddings, teacher.embeddings, mask),
            "attention": attention_loss(student.attentions, teacher.attentions, mask),
            "relation": relation_loss(student.relations, teacher.relations, mask, 2),
        },
    )
    assert_close(losses.total, sum(weights[name] * loss for name, loss in losses.named.items()))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_teaches_its_part_of_the_student(name: str) -> None:
    said = pair(0)
    combine(said, objective(**{name: 1.0})).named[name].backward()
    taught = [field for field in FIELDS if getattr(said.student, field).grad is not None]
    assert taught == [READS[name]]
    assert all(getattr(said.teacher, field).grad is None for field in FIELDS)


@pytest.mark.parametrize("name", LOSSES[3:])
def test_a_loss_that_never_counts_is_not_computed_and_not_read(name: str) -> None:
    assert list(combine(pair(0), objective()).named) == ["distillation", "task", "cosine"]
    assert reads(LossWeights()) == {"logits", "hidden"}
    rising = LossWeights(**{name: {"from": 0.0, "to": 1.0}})
    assert reads(rising) == {"logits", "hidden", READS[name]}
    assert name in combine(pair(0), Objective(HEAD, rising, relation_heads=2), 0.0).named


def test_distilberts_losses_are_told_even_where_their_weight_is_nothing() -> None:
    losses = combine(pair(0), objective(distillation=0.0, cosine=0.0, task=2.0))
    assert losses.named["cosine"] > 0
    assert_close(losses.total, 2 * losses.named["task"])


@pytest.mark.parametrize(("share", "weight"), [(0.0, 0.5), (0.25, 1.0), (0.5, 1.5), (1.0, 2.5)])
def test_a_weight_goes_along_a_line(share: float, weight: float) -> None:
    falling = {"from": 3.0, "to": 0.0}
    changing = objective(task={"from": 0.5, "to": 2.5}, cosine=falling, distillation=0.0)
    losses = combine(pair(0), changing, share)
    expected = weight * losses.named["task"] + (1 - share) * 3 * losses.named["cosine"]
    assert_close(losses.total, expected)


def test_soft_answers_may_be_compared_as_logits() -> None:
    said = pair(0)
    losses = combine(said, objective(soft="mse", temperature=9.0))
    assert_close(losses.named["distillation"], mse_loss(said.student.logits, said.teacher.logits))


def test_a_students_logits_are_compared_where_the_head_compares_them() -> None:
    tags = TokenClassification(("O", "B-X"))
    mask = tensor([[1, 1, 1], [1, 0, 0]])
    student, teacher = (Output(draw(n, 2, 3, 2), draw(n, 2, 3, 8)) for n in (0, 1))
    labels = torch.full((2, 3), -100).index_fill(1, tensor([1]), 1)
    weights = LossWeights(soft="mse")
    named = combine(Pair(student, teacher, labels, mask), Objective(tags, weights)).named
    tokens = mask.bool()
    assert_close(named["distillation"], mse_loss(student.logits[tokens], teacher.logits[tokens]))


def test_rows_and_classes_may_count_unlike_in_the_tasks_loss() -> None:
    said, factors = pair(0), tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    plain, focal = objective(), objective(focal_gamma=2.0)
    weighted = Objective(HEAD, LossWeights(), factors)
    task = {
        name: combine(said, chosen).named["task"]
        for name, chosen in (("plain", plain), ("focal", focal), ("weighted", weighted))
    }
    logits = said.student.logits
    assert_close(task["plain"], cross_entropy(logits, said.labels))
    assert_close(task["focal"], focal_loss(logits, said.labels, 2.0))
    assert_close(task["weighted"], focal_loss(logits, said.labels, 0.0, factors))
    alone = task_only(said.student, said.labels, focal)
    assert_close(alone.total, task["focal"])


def test_without_a_teacher_the_total_is_the_tasks_own_loss() -> None:
    said = pair(0)
    losses = task_only(said.student, said.labels, objective(task=0.25))
    assert torch.equal(losses.total, cross_entropy(said.student.logits, said.labels))
    assert list(losses.named) == ["distillation", "task", "cosine"]
    assert losses.values().tolist() == [0.0, losses.total.item(), 0.0, losses.total.item()]


def test_the_values_of_losses_are_in_the_order_of_their_names_and_leave_the_graph() -> None:
    one, two, three = (tensor(x, requires_grad=True) for x in (1.0, 2.0, 3.0))
    values = Losses({"task": one, "relation": two}, three).values()
    assert (values.tolist(), values.requires_grad) == ([1.0, 2.0, 3.0], False)


def test_tests_check_the_shapes_that_annotations_promise() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="teacher_logits"):
        soft_target_loss(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
    with pytest.raises(jaxtyping.TypeCheckError, match="embeddings"):
        Output(torch.zeros(2, 3), torch.zeros(2, 4, 1, 8), embeddings=torch.zeros(3, 4, 8))
