"""Table: scheme → how the weights and activations of an ONNX file become small."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scheme:
    """How an fp32 file becomes a smaller one.

    Matrices have a scale for each output channel. The products of two activations (attention's own
    MatMuls) stay in fp32 in all schemes: quantizing them costs accuracy, and there is no weight whose
    bytes it would save.
    """

    name: str
    stored: Literal["8 bits", "codebook"]
    """Of a weight. Activations are 8 bits everywhere, by scales that are taken at run time."""
    reduce_range: bool = False
    """7-bit weights: without VNNI, x86 adds two u8 x s8 products in 16 saturating bits, which
    8-bit weights can overflow (Intel 64 and IA-32 Architectures Software Developer's Manual,
    PMADDUBSW)."""
    byte_codes: bool = False
    """Of codebook: no number of 16 bits is in the file. onnxruntime-web's WebGPU build, which transformers.js
    loads, has no Cast from them (1.30.0); elsewhere bytes cost a third of the load time."""


INT8 = Scheme("int8", "8 bits")
INT8_REDUCED = Scheme("int8-reduced-range", "8 bits", reduce_range=True)
INT4 = Scheme("int8-of-4-bits", "codebook")
INT4_REDUCED = Scheme("int8-of-4-bits-reduced-range", "codebook", reduce_range=True)
INT4_WEB = Scheme("int8-of-4-bits-web", "codebook", reduce_range=True, byte_codes=True)

SCHEMES = {scheme.name: scheme for scheme in (INT8, INT8_REDUCED, INT4, INT4_REDUCED, INT4_WEB)}


def largest_weight(reduce_range: bool) -> int:
    """Return the largest whole number of a weight, its least being the negative of it."""
    return 64 if reduce_range else 127
