"""Codebooks: vectors of 8-bit numbers that short codes stand for, and rounding to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from distill_core.quantization.codebook import (
    LARGE,
    SMALL,
    Codebook,
    channel_scales,
    learn_codebook,
    pick_shape,
)
from distill_core.quantization.rounding import round_matrix

PAIRS = Codebook(np.asarray([[0, 0], [10, -10], [127, 127]], dtype=np.int8))


def _matrix(inputs: int, channels: int, seed: int = 0) -> Float[np.ndarray, "inputs channels"]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((inputs, channels)).astype(np.float32)


def _signal_over_noise(
    weights: Float[np.ndarray, "..."], rounded: Float[np.ndarray, "..."]
) -> float:
    """In decibels."""
    return float(10 * np.log10((weights**2).sum() / ((weights - rounded) ** 2).sum()))


def test_the_nearest_vector_is_taken() -> None:
    numbers = np.asarray([[1.0, 2.0, 9.0, -12.0], [90.0, 120.0, 4.0, -4.0]])
    assert PAIRS.encode(numbers).tolist() == [[0, 1], [2, 0]]
    assert PAIRS.decode(PAIRS.encode(numbers)).tolist() == [[0, 0, 10, -10], [127, 127, 0, 0]]


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_what_was_decoded_is_encoded_alike(rows: int, vectors: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (rows, vectors))
    numbers = PAIRS.decode(codes)
    assert numbers.shape == (rows, 2 * vectors)
    assert np.array_equal(PAIRS.encode(numbers.astype(np.float64)), codes)


def test_codes_take_no_more_bits_than_they_must() -> None:
    many = Codebook(np.zeros((257, 4), dtype=np.int8))
    assert PAIRS.encode(np.zeros((1, 2))).dtype == np.uint8
    assert many.encode(np.zeros((1, 4))).dtype == np.uint16


@pytest.mark.parametrize("largest", [64, 127])
def test_no_number_of_a_channel_is_out_of_reach(largest: int) -> None:
    weights = _matrix(64, 8)
    weights[3, 2] = 40.0  # far out
    numbers = weights / channel_scales(weights, largest)
    assert np.abs(numbers).max() <= largest * (1 + 1e-6)
    # Of an ordinary channel, nine standard deviations: room for what rounding adds.
    assert np.abs(numbers[:, 0]).max() < largest / 2


def test_a_channel_of_zeros_stays_zero() -> None:
    assert (channel_scales(np.zeros((4, 2), dtype=np.float32), 127) > 0).all()


def test_small_models_have_a_small_table() -> None:
    assert pick_shape(100_000, 6) == SMALL
    assert pick_shape(5_000_000, 6) == (6, LARGE)


def test_a_learnt_codebook_beats_sixteen_even_levels() -> None:
    weights = _matrix(512, 512)
    scales = channel_scales(weights, 127)
    codebook = learn_codebook((weights / scales).ravel(), (2, 256), 127)
    learnt = codebook.decode(codebook.encode(weights / scales)) * scales
    # 4 bits each way: even levels, the step that suits each channel best of nineteen
    steps = weights.std(axis=0) * np.linspace(0.1, 1.0, 19)[:, None, None]
    errors = [np.clip(np.round(weights / step), -8, 7) * step for step in steps]
    even = max(_signal_over_noise(weights, rounded) for rounded in errors)
    assert _signal_over_noise(weights, learnt) > even > 15


def test_the_same_numbers_give_the_same_codebook() -> None:
    numbers = _matrix(64, 64).ravel() * 20
    first, second = (learn_codebook(numbers, (2, 64), 127) for _ in range(2))
    assert np.array_equal(first.vectors, second.vectors)


def test_fewer_vectors_than_codes_are_kept_as_they_are() -> None:
    numbers = np.asarray([1.0, 2.0, 3.0, 4.0])
    codebook = learn_codebook(numbers, (2, 16), 127)
    assert np.array_equal(codebook.decode(codebook.encode(numbers)), numbers)


@pytest.fixture(scope="module")
def rounding_case() -> tuple[Float[np.ndarray, "..."], ...]:
    """Weights, scales, and inputs that depend on each other, as hidden states do."""
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((600, 12)) @ generator.standard_normal((12, 96))
    inputs += 0.3 * generator.standard_normal(inputs.shape)
    weights = _matrix(96, 32)
    return weights, channel_scales(weights, 127), inputs


def test_rounding_by_moments_keeps_products_better(
    rounding_case: tuple[Float[np.ndarray, "..."], ...],
) -> None:
    weights, scales, inputs = rounding_case
    codebook = learn_codebook((weights / scales).ravel(), (2, 256), 127)
    seen, unseen = inputs[:400], inputs[400:]
    codes = round_matrix(weights, scales, codebook, seen.T @ seen)
    alone = codebook.encode(weights / scales)
    for held in (seen, unseen):
        by_moments, by_itself = (
            _signal_over_noise(held @ weights, held @ (codebook.decode(found) * scales))
            for found in (codes, alone)
        )
        assert by_moments > by_itself + 3


def test_inputs_that_are_independent_leave_nothing_to_make_up_for(
    rounding_case: tuple[Float[np.ndarray, "..."], ...],
) -> None:
    weights, scales, _ = rounding_case
    codebook = learn_codebook((weights / scales).ravel(), (2, 256), 127)
    codes = round_matrix(weights, scales, codebook, np.eye(len(weights)))
    assert np.array_equal(codes, codebook.encode(weights / scales))


def test_inputs_that_were_never_seen_are_rounded_all_the_same(
    rounding_case: tuple[Float[np.ndarray, "..."], ...],
) -> None:
    weights, scales, inputs = rounding_case
    codebook = learn_codebook((weights / scales).ravel(), (2, 256), 127)
    silent = inputs.copy()
    silent[:, :7] = 0.0
    codes = round_matrix(weights, scales, codebook, silent.T @ silent)
    rounded = codebook.decode(codes) * scales
    assert _signal_over_noise(weights, rounded) > 8


def test_vectors_that_count_more_are_kept_better() -> None:
    numbers = np.asarray([0, 0, 10, 20], dtype=np.float32)
    (centre,) = learn_codebook(numbers, (2, 1), 127, np.asarray([3.0, 1.0])).vectors
    assert centre.tolist() == [2, 5]  # a quarter of the way, rounded to even


def test_where_all_count_alike_it_is_as_if_nothing_were_said() -> None:
    numbers = _matrix(64, 64).ravel()
    alike = learn_codebook(numbers, SMALL, 127, np.full(len(numbers) // 2, 0.5))
    assert np.array_equal(alike.vectors, learn_codebook(numbers, SMALL, 127).vectors)
