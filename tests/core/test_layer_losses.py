"""The losses between layers against values worked out by hand, and against their formulas in numpy."""

from math import log, sqrt

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from distill_core.layer_losses import attention_loss, cosine_loss, hidden_loss, relation_loss

seeds = st.integers(0, 2**32 - 1)
MASK = tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def draw(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return tensor(np.random.default_rng(seed).normal(0.0, scale, shape))


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


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


def test_hidden_loss_is_what_the_squares_give_by_hand() -> None:
    # Differences 1 and −3, then 0 and 2; the third token is padding: (1 + 9 + 0 + 4) / 4.
    student = tensor([[[2.0, 0.0], [1.0, 1.0], [9.0, 9.0]]])
    teacher = tensor([[[1.0, 3.0], [1.0, -1.0], [0.0, 0.0]]])
    assert_close(hidden_loss(student, teacher, tensor([[1, 1, 0]])), tensor(3.5))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_hidden_loss_is_its_formula_in_numpy(
    seed: int, batch: int, tokens: int, layers: int
) -> None:
    student, teacher = (draw(seed + n, batch, tokens, layers, 6) for n in (0, 1))
    lengths = np.random.default_rng(seed).integers(1, tokens + 1, batch)
    mask = np.arange(tokens) < lengths[:, None]
    expected = ((student.numpy() - teacher.numpy())[mask] ** 2).mean()
    loss = hidden_loss(student, teacher, torch.from_numpy(mask.astype(np.int64)))
    assert loss.item() == pytest.approx(expected)


def test_attention_loss_is_what_two_heads_give_by_hand() -> None:
    # Of three tokens the last is padding. Head 0 differs by 1/2 in each of its four pairs, head 1 in
    # none: (4 · 1/4 + 4 · 0) / 8. What stands in the row of the padding does not count.
    even, own = tensor([[0.5, 0.5, 0.0]] * 3), torch.eye(3)
    student = torch.stack([even, own])[None, None]
    teacher = torch.stack([own, own])[None, None]
    assert_close(attention_loss(student, teacher, tensor([[1, 1, 0]])), tensor(1 / 8))


@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_attention_loss_is_its_formula_in_numpy(seed: int, layers: int, heads: int) -> None:
    student, teacher = (draw(seed + n, 2, layers, heads, 4, 4).softmax(-1) for n in (0, 1))
    squares = [
        (student[row, :, :, :n, :n] - teacher[row, :, :, :n, :n]).numpy() ** 2
        for row, n in enumerate((3, 1))
    ]
    expected = np.concatenate([square.ravel() for square in squares]).mean()
    assert attention_loss(student, teacher, MASK).item() == pytest.approx(expected)


def test_relation_loss_is_what_two_tokens_give_by_hand() -> None:
    # One part of width 1, so √d = 1. Teacher: v = (a, 0) with a² = ln 3, so the first token's scores
    # are (ln 3, 0) and its relations (3/4, 1/4), the second's (0, 0) and (1/2, 1/2). Student: all 0,
    # so 1/2 everywhere. KL = 3/4·ln(3/2) + 1/4·ln(1/2) = 3/4·ln 3 − ln 2 and 0; mean of two tokens,
    # and the same from queries, keys and values.
    teacher = tensor([[sqrt(log(3))], [0.0]], dtype=torch.float64)[None, :, None].expand(1, 2, 3, 1)
    loss = relation_loss(torch.zeros_like(teacher), teacher, tensor([[1, 1]]), heads=1)
    assert_close(loss, tensor(3 * (0.75 * log(3) - log(2)) / 2, dtype=torch.float64))


@given(seeds, st.sampled_from([1, 2, 3, 6]))
def test_relation_loss_is_its_formula_in_numpy_whatever_the_widths(seed: int, heads: int) -> None:
    student, teacher = draw(seed, 2, 4, 3, 6, scale=1), draw(seed + 1, 2, 4, 3, 12, scale=1)
    expected = 0.0
    for kind in range(3):
        by_token = []
        for row, n in enumerate((3, 1)):
            divergence = np.zeros(n)
            for part in range(heads):
                relations = []
                for vectors in (teacher, student):
                    d = vectors.shape[-1] // heads
                    v = vectors[row, :n, kind, part * d : (part + 1) * d].numpy()
                    relations.append(softmax(v @ v.T / np.sqrt(d)))
                p, q = relations
                divergence += (p * np.log(p / q)).sum(axis=1) / heads
            by_token.extend(divergence)
        expected += np.mean(by_token)
    assert relation_loss(student, teacher, MASK, heads).item() == pytest.approx(expected, rel=1e-6)


@given(seeds)
def test_relations_do_not_feel_a_rotation_of_a_parts_vectors(seed: int) -> None:
    student, teacher = draw(seed, 2, 4, 3, 8, scale=1), draw(seed + 1, 2, 4, 3, 8, scale=1)
    turn = torch.linalg.qr(draw(seed + 2, 4, 4)).Q
    turned = (teacher.unflatten(-1, (2, 4)) @ turn).flatten(-2)
    assert_close(relation_loss(turned, teacher, MASK, 2), tensor(0.0, dtype=torch.float64))
    before = relation_loss(student, teacher, MASK, 2)
    assert_close(relation_loss(student, turned, MASK, 2), before)


def inside(seed: int) -> dict[str, Tensor]:
    """Return what each loss is between, for two texts of four tokens."""
    return {
        "cosine": draw(seed, 2, 4, 2, 8),
        "hidden": draw(seed, 2, 4, 2, 8),
        "attention": draw(seed, 2, 2, 3, 4, 4).softmax(-1),
        "relation": draw(seed, 2, 4, 3, 8, scale=1),
    }


LOSSES = {
    "cosine": cosine_loss,
    "hidden": hidden_loss,
    "attention": attention_loss,
    "relation": lambda student, teacher, mask: relation_loss(student, teacher, mask, 4),
}
names = st.sampled_from(list(LOSSES))


@given(names, seeds)
def test_a_loss_is_nothing_between_a_model_and_itself_and_something_to_another(
    name: str, seed: int
) -> None:
    one, other = inside(seed)[name], inside(seed + 1)[name]
    assert_close(LOSSES[name](one, one, MASK), tensor(0.0, dtype=torch.float64))
    assert LOSSES[name](one, other, MASK) > 1e-4


@given(names, seeds)
def test_a_loss_ignores_padding(name: str, seed: int) -> None:
    one, other, third = (inside(seed + n)[name] for n in range(3))
    before = LOSSES[name](one, other, MASK)
    padding = MASK == 0
    if (
        name == "attention"
    ):  # as a model would have it: nothing attends to padding, which attends at will
        third = torch.where(padding[:, None, None, None, :], one, third)
        one = torch.where(padding[:, None, None, :, None], third, one)
    else:
        one[padding] = third[padding]
    assert torch.equal(LOSSES[name](one, other, MASK), before)


@given(names, seeds)
def test_a_loss_ignores_how_wide_the_batch_is_padded(name: str, seed: int) -> None:
    one, other = inside(seed)[name], inside(seed + 1)[name]
    before = LOSSES[name](one, other, MASK)
    sides = (0, 2, 0, 2) if name == "attention" else (0, 0, 0, 0, 0, 2)
    wider = [torch.nn.functional.pad(tensor, sides) for tensor in (one, other)]
    after = LOSSES[name](*wider, torch.nn.functional.pad(MASK, (0, 2)))
    assert_close(after, before)


@given(names, seeds)
def test_tokens_are_taught_and_padding_is_not(name: str, seed: int) -> None:
    student, teacher = inside(seed)[name].requires_grad_(), inside(seed + 1)[name]
    LOSSES[name](student, teacher, MASK).backward()
    rows = student.grad.movedim(-2, 1) if name == "attention" else student.grad
    taught = rows.flatten(2).abs().sum(-1) > 0
    # A lone token is related to itself alone, whatever its vectors are.
    expected = MASK.bool() & (MASK.sum(1, keepdim=True) > 1) if name == "relation" else MASK.bool()
    assert torch.equal(taught, expected)
    assert teacher.grad is None


@pytest.mark.parametrize("name", ["hidden", "attention"])
def test_a_loss_of_several_layers_is_the_mean_of_theirs(name: str) -> None:
    one, other = inside(3)[name], inside(4)[name]
    layers = 1 if name == "attention" else 2
    each = [
        LOSSES[name](one.narrow(layers, n, 1), other.narrow(layers, n, 1), MASK) for n in range(2)
    ]
    assert_close(LOSSES[name](one, other, MASK), torch.stack(each).mean())


def test_tests_check_the_shapes_that_annotations_promise() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="attention_mask"):
        cosine_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(jaxtyping.TypeCheckError, match="teacher_hidden"):
        hidden_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 8), torch.ones(2, 3).long())
