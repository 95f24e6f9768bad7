"""Codebooks, learnt from the weights of matrices and words, and from how much errors in them count."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from distill_core.quantization.codebook import Codebook, fill_up, learn_codebook
from distill_core.quantization.rounding import Moments

_DAMPING = 0.01
"""Share of the mean square of a matrix's inputs that each counts for at least."""


@dataclass(frozen=True)
class Part:
    """Weights / their scales, and how much an error in each of them counts."""

    numbers: Float[np.ndarray, "rows channels"]
    of_rows: Float[np.ndarray, " rows"]
    of_channels: Float[np.ndarray, " channels"]

    def vectors(
        self, width: int
    ) -> tuple[Float[np.ndarray, "rows more"], Float[np.ndarray, "rows vectors"]]:
        """Return its vectors, one after the other in each row, and how much each counts, 1 in the mean."""
        steps = fill_up(self.of_channels, width).reshape(-1, width).mean(axis=1)
        counts = np.outer(self.of_rows, steps)
        return fill_up(self.numbers, width), counts / counts.mean()


def of_matrix(
    weights: Float[np.ndarray, "inputs channels"],
    scales: Float[np.ndarray, " channels"],
    moments: Moments | None = None,
) -> Part:
    """Return a matrix, whose errors count by what they are multiplied with.

    As the roots of the inputs' squares, and of those of the scales; by the squares themselves, which is what
    the products' errors are made of, single vectors outweigh the rest.

    Args:
        weights: multiplied from the right.
        scales: of each channel.
        moments: of the inputs; None: all inputs count alike.
    """
    squares = np.ones(len(weights)) if moments is None else np.diag(moments)
    loud = np.sqrt(np.maximum(squares, max(_DAMPING * squares.mean(), 1e-12)))
    return Part(weights / scales, loud, scales.astype(np.float64))


def learn_book(parts: Sequence[Part], shape: tuple[int, int], largest: int) -> Codebook:
    """Return one codebook for all of these weights.

    Args:
        parts: matrices, words, or both.
        shape: width and count of the vectors.
        largest: whole number that an unpacked weight may have.
    """
    numbers, counts = zip(*(part.vectors(shape[0]) for part in parts), strict=True)
    return learn_codebook(
        np.concatenate([n.ravel() for n in numbers]),
        shape,
        largest,
        np.concatenate([c.ravel() for c in counts]),
    )
