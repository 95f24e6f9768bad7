"""Rows of embeddings as codes: those of tokens that training texts make use of in 16 bits, others in 8.

Most of a vocabulary is never met in one domain: of BERT's 30,522 tokens the 67,349 training texts of SST-2
use 11,572. A row that is read once in a hundred texts may be coarser than one that is read in each. Of a
student of 3 x 384, its vectors of four weights, that takes 1.7 of 9.3 MB; KL from its fp32 file over 872
texts went from 0.0029 to 0.0031.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt

from distill_core.quantization.codebook import Codebook, channel_scales
from distill_core.schemes import LEAST_PACKED
from distill_core.vocabulary import Ids


@dataclass(frozen=True)
class Rows:
    """Embeddings that are to be coded."""

    weights: Float[np.ndarray, "rows channels"]
    rare: Bool[np.ndarray, " rows"]
    """Of which tokens no training text makes use; none, where that is not known or would save too little."""

    def whole(self) -> "Rows":
        """Return them with none rare."""
        return replace(self, rare=np.zeros_like(self.rare))

    def numbers(self, largest: int) -> Float[np.ndarray, "rows channels"]:
        """Return the weights / the scales of their rows."""
        return np.asarray(self.weights / self.scales(largest).astype(np.float32))

    def scales(self, largest: int) -> Float[np.ndarray, "rows 1"]:
        """Return what a step of the 8-bit numbers is worth in each row."""
        scales = channel_scales(self.weights.T, largest)[:, None]
        # A row of zeros, as padding's often is, would have none.
        least = np.finfo(np.float16).smallest_subnormal
        return np.asarray(np.maximum(scales, least), dtype=np.float16)


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

    def weights(self) -> Float[np.ndarray, "rows channels"]:
        """Return what the codes stand for, in fp32."""
        book = Codebook(self.vectors)
        numbers = np.empty((len(self.rare), self.channels), dtype=np.float32)
        numbers[~self.rare] = book.decode(self.common)[:, : self.channels]
        numbers[self.rare] = book.decode(self.coarse)[:, : self.channels]
        return numbers * self.scales.astype(np.float32)

    def pick(self, rows: Ids) -> "CodedRows":
        """Return some of the rows, in the order that is asked for."""
        places = np.empty(len(self.rare), dtype=np.int64)
        places[~self.rare] = np.arange(len(self.common))
        places[self.rare] = np.arange(len(self.coarse))
        rare = self.rare[rows]
        common, coarse = self.common[places[rows[~rare]]], self.coarse[places[rows[rare]]]
        return replace(self, common=common, coarse=coarse, rare=rare, scales=self.scales[rows])


def encode(rows: Rows, codebooks: tuple[Codebook, Codebook], largest: int) -> CodedRows:
    """Return the codes of the nearest vectors.

    Args:
        rows: of an embedding.
        codebooks: the whole one, and the beginning of it for rare rows.
        largest: whole number that an unpacked weight may have.
    """
    numbers, (whole, beginning) = rows.numbers(largest), codebooks
    return CodedRows(
        whole.encode(numbers[~rows.rare]),
        beginning.encode(numbers[rows.rare]),
        rows.rare,
        rows.scales(largest),
        whole.vectors,
        rows.weights.shape[1],
    )
