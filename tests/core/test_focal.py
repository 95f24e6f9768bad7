"""Focal loss and weights of classes, against torch, scikit-learn, and values worked out by hand."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from distill_core.focal import balanced_weights, focal_loss

seeds = st.integers(0, 2**32 - 1)
gammas = st.floats(0.0, 5.0)


def draw(seed: int, *shape: int) -> Tensor:
    return tensor(np.random.default_rng(seed).normal(0.0, 3.0, shape))


def test_focal_loss_is_what_the_formula_gives_by_hand() -> None:
    # Logits (ln 3, 0): p is 3/4 of class 0 and 1/4 of class 1. γ = 2 and α = (1, 2):
    # 1 · (1/4)² · ln(4/3) for a row of class 0, 2 · (3/4)² · ln 4 for one of class 1.
    logits = tensor([[log(3), 0.0]] * 2, dtype=torch.float64)
    loss = focal_loss(logits, tensor([0, 1]), 2.0, tensor([1.0, 2.0], dtype=torch.float64))
    expected = (log(4 / 3) / 16 + 2 * 9 / 16 * log(4)) / 2
    assert_close(loss, tensor(expected, dtype=torch.float64))


@given(seeds, gammas)
def test_focal_loss_is_its_formula_over_torchs_cross_entropy(seed: int, gamma: float) -> None:
    logits, labels = draw(seed, 6, 4), torch.arange(6) % 4
    weights = draw(seed + 1, 4).abs()
    plain = cross_entropy(logits, labels, reduction="none")
    expected = (weights[labels] * (1 - (-plain).exp()) ** gamma * plain).mean()
    assert_close(focal_loss(logits, labels, gamma, weights), expected)


@given(seeds)
def test_without_gamma_and_weights_it_is_the_cross_entropy(seed: int) -> None:
    logits, labels = draw(seed, 6, 4), torch.arange(6) % 4
    assert_close(focal_loss(logits, labels, 0.0), cross_entropy(logits, labels))


@given(seeds, gammas)
def test_tokens_that_no_word_starts_with_are_left_out(seed: int, gamma: float) -> None:
    logits, labels = draw(seed, 2, 3, 4), tensor([[-100, 1, 2], [3, -100, -100]])
    counted = labels != -100
    expected = focal_loss(logits[counted], labels[counted], gamma)
    assert_close(focal_loss(logits, labels, gamma), expected)


@given(seeds, st.floats(0.1, 5.0))
def test_a_row_that_is_answered_right_loses_more_of_its_loss_than_one_that_is_not(
    seed: int, gamma: float
) -> None:
    logits = draw(seed, 8, 2)
    plain, focal = (
        torch.stack([focal_loss(row[None], tensor([0]), g) for row in logits]) for g in (0.0, gamma)
    )
    order = plain.argsort()
    kept = (focal / plain)[order]
    assert (kept.diff() >= -1e-12).all()
    assert (kept <= 1).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradients_are_numbers_where_an_answer_is_certain(gamma: float) -> None:
    logits = tensor([[200.0, -200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    focal_loss(logits, tensor([0, 1, 0]), gamma).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_class_keeps_its_weight_in_a_batch_of_its_own() -> None:
    logits, labels = draw(0, 3, 2), tensor([1, 1, 1])
    twice = focal_loss(logits, labels, 0.0, tensor([1.0, 2.0], dtype=torch.float64))
    assert_close(twice, 2 * cross_entropy(logits, labels))


def test_a_batch_without_labels_teaches_nothing() -> None:
    assert focal_loss(draw(0, 2, 3, 4), torch.full((2, 3), -100), 2.0) == 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_balanced_weights_are_scikit_learns_of_the_classes_that_there_are(
    labels: list[int],
) -> None:
    there = np.unique(labels)
    expected = compute_class_weight("balanced", classes=there, y=labels)
    weights = balanced_weights(np.asarray(labels), 5)
    assert weights[there] == pytest.approx(expected)
    assert (np.delete(weights, there) == 1).all()


def test_rows_without_a_label_are_of_no_class() -> None:
    # 2 and 1 of 3 rows that count: 3 / (2 · 2) and 3 / (2 · 1).
    assert balanced_weights(np.array([0, -100, 0, 1, -1]), 2).tolist() == [0.75, 1.5]
