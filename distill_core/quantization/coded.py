"""Rows of embeddings as codes: those of tokens that training texts make use of in 16 bits, others in 8.

Most of a vocabulary is never met in one domain: of BERT's 30,522 tokens the 67,349 training texts of SST-2
use 11,572. A row that is read once in a hundred texts may be coarser than one that is read in each. Of a
student of 3 x 384, its vectors of four weights, that takes 1.7 of 9.3 MB; KL from its fp32 file over 872
texts went from 0.0029 to 0.0031.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt

from distill_core.quantization.books import Part, learn_book, of_matrix
from distill_core.quantization.codebook import (
    SMALL,
    Codebook,
    channel_scales,
    fill_up,
    pick_shape,
    put_coarse_first,
)
from distill_core.schemes import LEAST_PACKED, largest_weight
from distill_core.vocabulary import Ids

_LARGEST = largest_weight(reduce_range=False)
"""Embeddings are no factors of sums that could saturate."""


def find_rare(shape: tuple[int, int], used: Ids | None) -> Bool[np.ndarray, " rows"]:
    """Tell which rows of an embedding are worth being coarser than others.

    Args:
        shape: rows and channels.
        used: ids of the tokens that training texts use; None: of all.
    """
    none = np.zeros(shape[0], dtype=bool)
    if used is None:
        return none
    rare = ~np.isin(np.arange(shape[0]), used)
    worth_it = rare.sum() * shape[1] >= LEAST_PACKED and not rare.all()
    return rare if worth_it else none


@dataclass(frozen=True)
class CodedRows:
    """Embeddings: vectors of 8-bit numbers, and a scale for each row."""

    common: UInt[np.ndarray, "common vectors"]
    """Codes of the rows that are not rare, in their order."""
    coarse: UInt[np.ndarray, "coarse vectors"]
    """Codes of the others, which reach the beginning of the codebook."""
    rare: Bool[np.ndarray, " rows"]
    scales: Float[np.ndarray, "rows 1"]
    """In fp16."""
    vectors: Int8[np.ndarray, "count width"]
    channels: int
    """Numbers in a row, which may end within a vector."""

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and vectors."""
        stored = (self.common, self.coarse, self.scales, self.vectors)
        return sum(array.nbytes for array in stored)

    def weights(self) -> Float[np.ndarray, "rows channels"]:
        """Return what the codes stand for, in fp32."""
        book = Codebook(self.vectors)
        numbers = np.empty((len(self.rare), self.channels), dtype=np.float32)
        numbers[~self.rare] = book.decode(self.common)[:, : self.channels]
        numbers[self.rare] = book.decode(self.coarse)[:, : self.channels]
        return numbers * self.scales.astype(np.float32)

    def within(self, largest: int) -> "CodedRows":
        """Return them with vectors of no larger whole numbers, and scales that make up for it.

        Args:
            largest: that a number of a vector may be.
        """
        share = largest / _LARGEST
        vectors = np.rint(self.vectors * share).astype(np.int8)
        return replace(self, vectors=vectors, scales=(self.scales / share).astype(np.float16))

    def pick(self, rows: Ids) -> "CodedRows":
        """Return some of the rows, in the order that is asked for."""
        places = np.empty(len(self.rare), dtype=np.int64)
        places[~self.rare] = np.arange(len(self.common))
        places[self.rare] = np.arange(len(self.coarse))
        rare = self.rare[rows]
        common, coarse = self.common[places[rows[~rare]]], self.coarse[places[rows[rare]]]
        return replace(self, common=common, coarse=coarse, rare=rare, scales=self.scales[rows])


def code_rows(
    weights: Float[np.ndarray, "rows channels"],
    used: Ids | None,
    width: int,
    matrices: Sequence[Float[np.ndarray, "_ _"]] = (),
) -> CodedRows:
    """Return embeddings in codes of a codebook that is learnt from them.

    Args:
        weights: of a table.
        used: rows that training texts use, the others being coarser; None: all.
        width: weights in a vector, where they are enough for the large table; else two.
        matrices: what a large codebook is learnt from too.
    """
    shape = pick_shape(weights.size, width)
    rare = find_rare(weights.shape, None if shape == SMALL else used)
    scales = _row_scales(weights)
    numbers = fill_up(weights / scales.astype(np.float32), shape[0])
    rows = Part(numbers[~rare], scales[~rare, 0].astype(np.float64), np.ones(numbers.shape[1]))
    beside = () if shape == SMALL else matrices
    parts = [rows, *(of_matrix(m, channel_scales(m, _LARGEST)) for m in beside)]
    whole = learn_book(parts, shape, _LARGEST)
    beginning = whole
    if rare.any():
        whole, beginning = put_coarse_first(whole, numbers[rare].ravel(), _LARGEST)
    return CodedRows(
        whole.encode(numbers[~rare]),
        beginning.encode(numbers[rare]),
        rare,
        scales,
        whole.vectors,
        weights.shape[1],
    )


def _row_scales(weights: Float[np.ndarray, "rows channels"]) -> Float[np.ndarray, "rows 1"]:
    """Return what a step of the 8-bit numbers is worth in each row, in fp16."""
    scales = channel_scales(weights.T, _LARGEST)[:, None]
    # A row of zeros, as padding's often is, would have none.
    least = np.finfo(np.float16).smallest_subnormal
    return np.asarray(np.maximum(scales, least), dtype=np.float16)
