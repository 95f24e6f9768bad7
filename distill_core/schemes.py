"""Table: scheme → how the weights and activations of an ONNX file become small."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from distill_core.errors import ConfigError

LEAST_PACKED = 500_000
"""Numbers of a table, which is unpacked at each call: positions of 512 x 384 would save 98 kB, and take as
long as the words do. The same goes for rows that are to be coarser."""

RUNTIMES = ("onnxruntime", "onnxruntime-android", "onnxruntime-objc", "onnxruntime-web")
"""Packages that a file is made for, each a full build of onnxruntime for one kind of place."""

_NATIVE = ("onnxruntime", "onnxruntime-android", "onnxruntime-objc")
"""Load GatherBlockQuantized in their newest versions. onnxruntime-web 1.30 did in node (4 bits), and was
found without it in a browser: nothing is promised there."""

_NOT_ANDROID = ("onnxruntime", "onnxruntime-web")
"""Load MatMulNBits of 8 bits: onnxruntime-android 1.22, the last on some devices, does not
(microsoft/onnxruntime 24769), and onnxruntime-objc is built from the same kernels."""


class Packing(NamedTuple):
    """What a codebook serves, and how many weights of a matrix are one of its vectors."""

    packs: Literal["all", "embeddings"]
    vector: Literal[4, 6]


@dataclass(frozen=True)
class Scheme:
    """How an fp32 file becomes a smaller one.

    Matrices have a scale for each output channel, or for each block of one. The products of two
    activations (attention's own MatMuls) stay in fp32 in all schemes but fp16 and fused ones: quantizing
    them costs accuracy, and there is no weight whose bytes it would save.
    """

    name: str
    stored: Literal["8 bits", "codebook", "calibrated", "fp16", "blocks", "fused"]
    """Of a weight, and so who makes the file. 8 bits, codebook and fused take the scales of activations
    at run time, calibrated has them in the file; fp16 and blocks leave activations in floating point."""
    reduce_range: bool = False
    """7-bit weights: without VNNI, x86 adds two u8 x s8 products in 16 saturating bits, which
    8-bit weights can overflow (Intel 64 and IA-32 Architectures Software Developer's Manual,
    PMADDUBSW)."""
    packs: Literal["all", "embeddings"] = "all"
    """Of codebook: embeddings alone leave matrices as the 8-bit file has them."""
    vector: Literal[4, 6] = 4
    """Of codebook: weights of a matrix that 16 bits stand for, 4 bits a weight or 2.7, where a model is large
    enough for 65,281 vectors; a small one's files are the same."""
    calibration: Literal["min-max", "entropy", "percentile"] = "min-max"
    """Of calibrated: how the range of an activation is told from what training rows show of it."""
    weight_bits: Literal[4, 8] = 8
    """Of blocks."""
    embedding_bits: Literal[4, 8] | None = None
    """Of 8 bits and blocks: embeddings with a scale for each block of a row (GatherBlockQuantized)."""
    runtimes: tuple[str, ...] = RUNTIMES
    """Which can load it: operators outside the ONNX standard are not in every one."""

    @property
    def packing(self) -> Packing | None:
        """How words are coded, of codebook; the same for all schemes that have it alike."""
        return Packing(self.packs, self.vector) if self.stored == "codebook" else None


INT8 = Scheme("int8", "8 bits")
INT8_REDUCED = Scheme("int8-reduced-range", "8 bits", reduce_range=True)
INT4 = Scheme("int8-of-4-bits", "codebook")
INT4_REDUCED = Scheme("int8-of-4-bits-reduced-range", "codebook", reduce_range=True)
INT3 = Scheme("int8-of-3-bits", "codebook", vector=6)
INT3_REDUCED = Scheme("int8-of-3-bits-reduced-range", "codebook", reduce_range=True, vector=6)
INT8_WORDS = Scheme("int8-embeddings-of-4-bits", "codebook", packs="embeddings")
INT8_WORDS_REDUCED = replace(
    INT8_WORDS, name="int8-embeddings-of-4-bits-reduced-range", reduce_range=True
)
INT8_STATIC = Scheme("int8-static", "calibrated")
INT8_STATIC_ENTROPY = Scheme("int8-static-entropy", "calibrated", calibration="entropy")
INT8_STATIC_PERCENTILE = Scheme("int8-static-percentile", "calibrated", calibration="percentile")
INT8_FUSED = Scheme("int8-fused", "fused")
INT8_FUSED_REDUCED = Scheme("int8-fused-reduced-range", "fused", reduce_range=True)
FP16 = Scheme("fp16", "fp16")
WEIGHTS_8 = Scheme("weights-8-bits", "blocks", runtimes=_NOT_ANDROID)
WEIGHTS_4 = Scheme("weights-4-bits", "blocks", weight_bits=4)
ALL_4 = Scheme("all-4-bits", "blocks", weight_bits=4, embedding_bits=4, runtimes=_NATIVE)
INT8_EMBEDDINGS_8 = Scheme("int8-embeddings-8-bits", "8 bits", embedding_bits=8, runtimes=_NATIVE)
INT8_EMBEDDINGS_4 = Scheme("int8-embeddings-4-bits", "8 bits", embedding_bits=4, runtimes=_NATIVE)

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        INT8,
        INT8_REDUCED,
        INT4,
        INT4_REDUCED,
        INT3,
        INT3_REDUCED,
        INT8_WORDS,
        INT8_WORDS_REDUCED,
        INT8_STATIC,
        INT8_STATIC_ENTROPY,
        INT8_STATIC_PERCENTILE,
        INT8_FUSED,
        INT8_FUSED_REDUCED,
        FP16,
        WEIGHTS_8,
        WEIGHTS_4,
        ALL_4,
        INT8_EMBEDDINGS_8,
        INT8_EMBEDDINGS_4,
    )
}


def largest_weight(reduce_range: bool) -> int:
    """Return the largest whole number of a weight, its least being the negative of it."""
    return 64 if reduce_range else 127


def check_packed_words(weights: int) -> None:
    """Check that files pack a student's word embeddings.

    Args:
        weights: of the table.

    Raises:
        ConfigError: there are too few.
    """
    if weights < LEAST_PACKED:
        raise ConfigError(
            f"student.packed_words: the word embeddings have {weights:,} weights, and files hold fewer "
            f"than {LEAST_PACKED:,} in 8 bits; accepted: null"
        )
