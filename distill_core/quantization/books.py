"""The codebooks of a file, learnt from its matrices and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from distill_core.quantization.codebook import (
    COARSE,
    Codebook,
    fill_up,
    learn_codebook,
    put_coarse_first,
)
from distill_core.quantization.coded import Rows
from distill_core.quantization.lookup import CODEBOOK, TABLE_CODEBOOK
from distill_core.quantization.rounding import Moments

_DAMPING = 0.01
"""Share of the mean square of a matrix's inputs that each counts for at least."""


@dataclass(frozen=True)
class Books:
    """What the codes of a file point into."""

    matrices: Codebook
    tables: Codebook
    """The same one, or one of wider vectors."""
    coarse: Codebook
    """The beginning of it, which rows of rare tokens take their vectors from."""

    @property
    def of_tables(self) -> str:
        """Name of the initializer for embeddings."""
        return CODEBOOK if self.tables is self.matrices else TABLE_CODEBOOK


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
    moments: Moments,
) -> Part:
    """Return a matrix, whose errors count by what they are multiplied with.

    As the roots of the inputs' squares, and of those of the scales; by the squares themselves, which is what
    the products' errors are made of, single vectors outweigh the rest.

    Args:
        weights: multiplied from the right.
        scales: of each channel.
        moments: of the inputs.
    """
    squares = np.diag(moments)
    loud = np.sqrt(np.maximum(squares, max(_DAMPING * squares.mean(), 1e-12)))
    return Part(weights / scales, loud, scales.astype(np.float64))


def _of_table(table: Rows, largest: int) -> Part:
    """Return the rows of an embedding that are not rare."""
    common = ~table.rare
    scales = table.scales(largest)[common, 0].astype(np.float64)
    return Part(table.numbers(largest)[common], scales, np.ones(table.weights.shape[1]))


def learn_books(
    matrices: Sequence[Part],
    tables: Sequence[Rows],
    shapes: tuple[tuple[int, int], tuple[int, int]],
    largest: int,
) -> Books:
    """Return one codebook for all, or where both are packed in other shapes one for each.

    Args:
        matrices: of `of_matrix`; may be none.
        tables: embeddings; may be none where there are matrices.
        shapes: width and count of the vectors of matrices and of embeddings.
        largest: whole number that an unpacked weight may have.
    """
    of_matrices, of_tables = shapes
    embeddings = [_of_table(table, largest) for table in tables]

    def learn(parts: Sequence[Part], rows: Sequence[Part], shape: tuple[int, int]) -> Codebook:
        numbers, counts = _vectors(parts, rows, shape[0])
        return learn_codebook(numbers, shape, largest, counts)

    shared = of_matrices == of_tables or not matrices
    learnt = learn(matrices if shared else [], embeddings, of_tables)
    tables_book, coarse = _set_apart(learnt, tables, largest)
    return Books(tables_book if shared else learn(matrices, [], of_matrices), tables_book, coarse)


def learn_coarse(matrices: Sequence[Part], largest: int) -> Codebook:
    """Return the codebook of matrices that a byte for a vector is enough for.

    Args:
        matrices: of `of_matrix`.
        largest: whole number that an unpacked weight may have.
    """
    numbers, counts = _vectors(matrices, [], COARSE[0])
    return learn_codebook(numbers, COARSE, largest, counts)


def _set_apart(
    codebook: Codebook, tables: Sequence[Rows], largest: int
) -> tuple[Codebook, Codebook]:
    """Return a codebook in the order that rare rows ask for, and the part that they take vectors from."""
    numbers = [table.numbers(largest)[table.rare] for table in tables if table.rare.any()]
    if not numbers:
        return codebook, codebook
    rare = np.concatenate([fill_up(rows, codebook.width).ravel() for rows in numbers])
    return put_coarse_first(codebook, rare, largest)


def _vectors(
    matrices: Sequence[Part], tables: Sequence[Part], width: int
) -> tuple[Float[np.ndarray, " numbers"], Float[np.ndarray, " vectors"]]:
    """Return what a codebook is learnt from: as much of the tables as there is of the matrices."""
    found = [part.vectors(width) for part in matrices]
    wanted = sum(numbers.size for numbers, _ in found)
    rows = [row for part in tables for row in zip(*part.vectors(width), strict=True)]
    if found and rows:
        count = max(wanted // len(rows[0][0]), 1)
        rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:count]]
    found += rows
    numbers, counts = zip(*found, strict=True)
    return np.concatenate([n.ravel() for n in numbers]), np.concatenate([c.ravel() for c in counts])
