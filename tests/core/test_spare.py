"""Coarse matrices: those that one vector a text meets, where the answers hardly change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from datasets import Dataset

from distill_core.quantization.books import learn_book, of_matrix
from distill_core.quantization.calibration import input_moments, one_of_a_text
from distill_core.quantization.codebook import COARSE, Codebook
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.matrices import CodedMatrix, Matrix, code_matrices, find_matrices
from distill_core.quantization.spare import pick_coarse

ONCE = 5
"""Of the exported model's last layer queries, output and both feed-forward matrices; the pooler."""


@pytest.fixture(scope="module")
def eight(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    file = tmp_path_factory.mktemp("eight") / "model.onnx"
    quantize_dynamically(exported, False, file)
    return onnx.load(file)


@pytest.fixture(scope="module")
def texts(rows: Any) -> list[dict[str, Any]]:
    train: Dataset = rows["train"]
    return train.to_list()[:16]


@pytest.fixture(scope="module")
def matrices(eight: onnx.ModelProto) -> list[Matrix]:
    return find_matrices(eight.graph)


def _exact(matrix: Matrix) -> CodedMatrix:
    """Return a matrix as it is: each number a vector of its own."""
    book = Codebook(np.arange(-127, 128, dtype=np.int8)[:, None])
    codes = (matrix.numbers.astype(np.int16) + 127).astype(np.uint8)
    return CodedMatrix(matrix, codes, matrix.steps, book, "book")


def _off_by(matrix: Matrix, share: float) -> CodedMatrix:
    """Return a matrix that is so much larger than it was."""
    return replace(_exact(matrix), scales=matrix.steps * np.float32(1 + share))


def test_the_last_layer_and_the_pooler_meet_one_vector_of_a_text(eight, matrices, texts) -> None:
    once = one_of_a_text(eight, [m.activation for m in matrices], texts)
    layers = [m.name for m in matrices if m.activation in once and m.numbers.shape[1] > 2]
    assert len(layers) == ONCE
    assert layers == [m.name for m in matrices if m.numbers.shape[1] > 2][-ONCE:]


def test_what_changes_nothing_is_coarse_and_what_changes_much_is_not(
    eight, matrices, texts
) -> None:
    pooler, classifier = matrices[-2:]
    rounded = [_exact(pooler), _off_by(classifier, 0.1)]
    much, little, nothing = _off_by(classifier, 1.0), _off_by(classifier, 0.001), _exact(pooler)
    first, second = pick_coarse(eight, rounded, [much, little, nothing], texts)
    assert first is nothing
    assert second is little


def test_changes_are_added_up(eight, matrices, texts) -> None:
    """Each of ten would be within the limit, and together they are beyond it."""
    classifier = matrices[-1]
    coarse = [_off_by(classifier, 0.1)] * 10
    # A fifth of the square of this is 5.5 times the square of that.
    rounded = [_off_by(classifier, 0.1 * np.sqrt(5.5 * 5))]
    assert len(pick_coarse(eight, rounded, coarse, texts)) == 5


def test_where_rounding_changes_nothing_nothing_may(eight, matrices, texts) -> None:
    rounded = [_exact(matrix) for matrix in matrices]
    assert pick_coarse(eight, rounded, [_off_by(matrices[-2], 0.1)], texts) == []


def test_the_file_is_left_as_it_was(eight, matrices, texts) -> None:
    before = eight.SerializeToString(deterministic=True)
    pick_coarse(eight, [_off_by(m, 0.1) for m in matrices], [_exact(matrices[0])], texts)
    assert eight.SerializeToString(deterministic=True) == before


def test_a_coarse_matrix_keeps_its_products_with_the_vectors_that_it_meets(
    eight, matrices, texts
) -> None:
    """Sixteen texts' first tokens are few directions, which 1.3 bits a weight are enough for."""
    once = one_of_a_text(eight, [m.activation for m in matrices], texts)
    matrix = next(m for m in matrices if m.activation in once)
    all_moments = input_moments(eight, [matrix.activation], texts)
    moments = all_moments[matrix.activation]
    book = learn_book([of_matrix(matrix.weights, matrix.scales(127), moments)], COARSE, 127)
    (coded,) = code_matrices([matrix], 127, book, "book", all_moments)
    assert coded.codes.dtype == np.uint8
    assert book.vectors.shape == COARSE[::-1]
    numbers = coded.unpacked[matrix.name] * coded.unpacked[matrix.scale_name]
    error = numbers - matrix.weights
    of_products = np.trace(error.T @ moments @ error) / np.trace(
        matrix.weights.T @ moments @ matrix.weights
    )
    of_weights = np.square(error).sum() / np.square(matrix.weights).sum()
    assert of_products < 0.1 * of_weights


def test_matrices_rounded_at_the_same_time_are_what_each_is_alone(eight, matrices, texts) -> None:
    moments = input_moments(eight, [m.activation for m in matrices], texts)
    book = learn_book([of_matrix(m.weights, m.scales(127)) for m in matrices], COARSE, 127)
    together = code_matrices(matrices, 127, book, "book", moments)
    for matrix, coded in zip(matrices, together, strict=True):
        (alone,) = code_matrices([matrix], 127, book, "book", moments)
        assert coded.matrix is matrix
        assert np.array_equal(coded.codes, alone.codes)
