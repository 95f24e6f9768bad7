"""What is scored, and what several heads' scores are made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True)
class Labels:
    """What the units of a data set should be answered; a unit is a row, or a word of one.

    Where several rows are read for one answer, as the windows of a long text are, a unit here is an answer.
    """

    values: Shaped[np.ndarray, "units ..."]
    """A class number of each unit; of several labels 0 or 1 each; or a score."""
    rows: Int[np.ndarray, " units"]
    """The row of the data set that each unit is in, rising from 0."""


def sum_by_row(
    values: Float[np.ndarray, "units parts"], labels: Labels
) -> Float[np.ndarray, "rows parts"]:
    """Return the sums of what the units of each row have."""
    sums = np.zeros((int(labels.rows[-1]) + 1, values.shape[1]))
    np.add.at(sums, labels.rows, values)
    return sums


def count_right(
    predictions: Shaped[np.ndarray, " units"], labels: Labels
) -> Float[np.ndarray, "rows parts"]:
    """Return the right answers and the answers of each row; their `ratio` is accuracy."""
    right = predictions == labels.values
    return sum_by_row(np.stack([right, np.ones(len(right))], axis=1).astype(float), labels)


def ratio(sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
    """Return the first of two sums / the second."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def f1(counts: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
    """Return F1 = 2·TP / (2·TP + FP + FN) of true positives, false positives, false negatives."""
    true, false, missed = np.moveaxis(counts, -1, 0)
    return np.asarray(2 * true / np.maximum(2 * true + false + missed, 1e-12))
