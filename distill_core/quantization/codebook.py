"""A codebook: whole vectors of weights that a short number stands for (vector quantization).

Four neighbouring weights are one of 65,281 vectors of 8-bit numbers, so that a weight takes 4 bits on
disk. The vectors are learnt from the model's own weights, by k-means (Lloyd 1982, "Least squares
quantization in PCM"; on layers of networks, Stock et al. 2020, arXiv:1907.05686). On the matrices of a
BERT of 3 x 384 that keeps 21.0 dB of signal over noise, where 16 even levels with a scale for 64
weights keep 19.9 and need more bits; on its word embeddings 21.6, where those keep 18.6. Six weights in a
vector take 2.7 bits each, and change twice as many answers: 21 of 872 on SST-2, where four change 10. Words
bear them better than matrices do.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int8, UInt
from scipy.spatial import KDTree

SMALL = (2, 256)
"""Weights in a vector, and vectors: 4 bits a weight."""

COARSE = (6, 256)
"""Of matrices that hardly change what a file answers: 1.3 bits a weight."""

LARGE = 65_281
"""Vectors of a larger model, as many as `lookup.in_bytes` tells apart: 4 bits a weight if each has four, in a
table of 261 kB, and 2.7 if each has six, in one of 392 kB."""

LARGE_PAYS = 2_000_000
"""Weights from which on the table of four is less than a quarter of what it serves, its codes."""

_SPREAD = 9.0
"""Standard deviations of a channel that its 8-bit numbers reach over. With fewer, single large
weights are cut off: at 6 the same matrices kept 19.5 dB, unless their channels were widened one by one."""

_COARSE = 256
"""Vectors that codes of a byte reach: 2 bits a weight, or 1.3."""

_MANY = 10_000
"""Vectors from which on threads pay. For a single row of a matrix they wait for the threads of its products:
3,072 x 768 took 7.8 s with two, and 3.3 s with one."""

_LEAF = 32
"""Vectors of a tree's leaf. So, and with cells cut at their middles, the nearest of 65,536 vectors of four is
found in 2.6 µs, of six in 8; with SciPy's cuts at medians and leaves of 10 in 4 and 14 to 19 (Zen 3)."""

_ROUNDS = 8
_SAMPLE = 500_000
"""Vectors that k-means looks at."""

_NEAR = 0.3
"""How much farther a centre may be than the nearest one, while they are learnt. Of 500,000 vectors of six
weights 0.6 % then go to another one, their squared errors grow by 0.07 %, and it takes half the time."""


@dataclass(frozen=True)
class Codebook:
    """Vectors, in the order of their numbers."""

    vectors: Int8[np.ndarray, "count width"]

    @cached_property
    def _by_place(self) -> KDTree:
        return _tree(self.vectors.astype(np.float64))

    @property
    def width(self) -> int:
        """Weights in a vector."""
        return int(self.vectors.shape[1])

    def encode(self, numbers: Float[np.ndarray, "... channels"]) -> UInt[np.ndarray, "... vectors"]:
        """Return for each vector the number of the nearest one of the codebook.

        Args:
            numbers: weights / their scales; the last axis is cut in vectors, the last one filled up.
        """
        filled = fill_up(numbers, self.width)
        vectors = filled.reshape(-1, self.width)
        _, nearest = self._by_place.query(vectors, workers=-1 if len(vectors) >= _MANY else 1)
        small = len(self.vectors) <= SMALL[1]
        codes = nearest.reshape(*filled.shape[:-1], filled.shape[-1] // self.width)
        return np.asarray(codes, dtype=np.uint8 if small else np.uint16)

    def decode(
        self, codes: Int[np.ndarray, "... vectors"] | UInt[np.ndarray, "... vectors"]
    ) -> Int8[np.ndarray, "... channels"]:
        """Return what numbers stand for."""
        shape = (*codes.shape[:-1], codes.shape[-1] * self.width)
        return np.asarray(self.vectors[codes].reshape(shape))


def _tree(vectors: Float[np.ndarray, "count width"]) -> KDTree:
    return KDTree(vectors, leafsize=_LEAF, balanced_tree=False)


def fill_up(
    numbers: Float[np.ndarray, "... channels"], width: int
) -> Float[np.ndarray, "... more"]:
    """Return numbers with zeros behind them, where the last axis is not whole vectors."""
    missing = -numbers.shape[-1] % width
    return np.pad(numbers, [*[(0, 0)] * (numbers.ndim - 1), (0, missing)]) if missing else numbers


def channel_scales(
    weights: Float[np.ndarray, "inputs channels"], largest: int
) -> Float[np.ndarray, " channels"]:
    """Return what a step of the 8-bit numbers is worth in each channel.

    Args:
        weights: a matrix.
        largest: whole number that a weight may have.
    """
    spread = _SPREAD * weights.std(axis=0)
    reach = np.maximum(spread, np.abs(weights).max(axis=0))
    return np.asarray(np.maximum(reach, 1e-12) / largest, dtype=np.float32)


def pick_shape(weights: int, width: int) -> tuple[int, int]:
    """Return width and count of the vectors of so many weights.

    Args:
        weights: that are to be packed.
        width: where they are enough for the large table.
    """
    return (width, LARGE) if weights >= LARGE_PAYS else SMALL


def learn_codebook(
    numbers: Float[np.ndarray, " numbers"],
    shape: tuple[int, int],
    largest: int,
    counts: Float[np.ndarray, " vectors"] | None = None,
) -> Codebook:
    """Return the codebook that k-means finds, always the same one.

    Args:
        numbers: weights / their scales, one vector after the other.
        shape: width and count of the vectors.
        largest: whole number that a weight may have.
        counts: how much each vector's error counts; None: all alike.
    """
    width, count = shape
    generator = np.random.default_rng(0)
    vectors = numbers.reshape(-1, width)
    counts = np.ones(len(vectors)) if counts is None else counts.astype(np.float64)
    if len(vectors) > _SAMPLE:
        sample = generator.choice(len(vectors), _SAMPLE, replace=False)
        vectors, counts = vectors[sample], counts[sample]
    vectors = vectors.astype(np.float64)
    centres = vectors[generator.choice(len(vectors), count, replace=len(vectors) < count)]
    for _ in range(_ROUNDS):
        distances, nearest = _tree(centres).query(vectors, eps=_NEAR, workers=-1)
        centres = _means(vectors, counts, nearest, count)
        empty = np.flatnonzero(np.bincount(nearest, minlength=count) == 0)
        # A centre that nothing is near to goes where the error is largest.
        farthest = np.argsort(-(distances**2) * counts, kind="stable")[: len(empty)]
        centres[empty[: len(farthest)]] = vectors[farthest]
    rounded = np.clip(np.round(centres), -largest, largest).astype(np.int8)
    return Codebook(rounded[np.lexsort(rounded.T)])


def put_coarse_first(
    codebook: Codebook, numbers: Float[np.ndarray, " numbers"], largest: int
) -> tuple[Codebook, Codebook]:
    """Return a large codebook in another order, and its beginning, which codes of one byte reach.

    The beginning are the vectors nearest to those of a codebook of 256 for the same numbers. At 2 bits a
    weight they keep some 10 dB of signal over noise.

    Args:
        codebook: of more than 256 vectors.
        numbers: weights / their scales, that are to be few bits.
        largest: whole number that a weight may have.
    """
    few = learn_codebook(numbers, (codebook.width, _COARSE), largest)
    first = np.unique(codebook.encode(few.vectors.astype(np.float64)))
    rest = np.setdiff1d(np.arange(len(codebook.vectors)), first)
    vectors = codebook.vectors[np.concatenate([first, rest])]
    return Codebook(vectors), Codebook(vectors[: len(first)])


def _means(
    vectors: Float[np.ndarray, "rows width"],
    counts: Float[np.ndarray, " rows"],
    nearest: Int[np.ndarray, " rows"],
    count: int,
) -> Float[np.ndarray, "count width"]:
    columns = np.ascontiguousarray(vectors.T)
    sums = [np.bincount(nearest, counts * column, minlength=count) for column in columns]
    total = np.bincount(nearest, counts, minlength=count)
    return np.stack(sums, axis=1) / np.where(total > 0, total, 1)[:, None]
