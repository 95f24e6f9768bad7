"""Nodes that read vectors of a codebook, and the form in which codes are stored."""

from collections.abc import Mapping

import numpy as np
import onnx
from jaxtyping import Int8, UInt, UInt8
from onnx import helper, numpy_helper

CODEBOOK = "codebook"
"""Name of the initializer that codes of matrices point into."""

WORDS_CODEBOOK = "codebook_of_words"
"""Name of the initializer that codes of words point into."""

COARSE_CODEBOOK = "codebook_of_coarse_matrices"
"""Name of the initializer that codes of matrices point into which need no more than a byte for a vector."""

_PLACES = "byte_places"
"""Name of the initializer with what the two bytes of a code count for."""

FIRST_BYTE = 255
"""What the first of two bytes counts for, a byte as MatMulInteger wants it: 65,281 codes are reached."""

Stored = UInt8[np.ndarray, "... vectors"] | UInt8[np.ndarray, "... two vectors"]
"""Codes of a byte, or of two: the first bytes of all vectors of a row, then the second ones."""


def in_bytes(codes: UInt[np.ndarray, "... vectors"]) -> Stored:
    """Return codes as bytes.

    The WebGPU build of onnxruntime-web, which transformers.js loads, has no Cast from 16 bits (1.30.0). Nor
    is one faster. A file of 34 million weights loads in 0.21 s either way, and in onnxruntime-web, in node,
    in 0.70 s where Cast takes 0.78. GatherND, which takes two bytes as row and column, wants each in 64
    bits: 0.93 s, and 100 MB more at the peak.
    """
    if codes.dtype == np.uint8:
        return codes
    first = np.minimum(codes // FIRST_BYTE, FIRST_BYTE)
    return np.stack([first, codes - FIRST_BYTE * first], axis=-2).astype(np.uint8)


def add_codebooks(
    graph: onnx.GraphProto, codebooks: Mapping[str, Int8[np.ndarray, "count width"]]
) -> None:
    """Add codebooks by their names, and what the bytes of codes count for."""
    for name, vectors in codebooks.items():
        add(graph, name, vectors)
    if any(_PLACES in node.input for node in graph.node):
        add(graph, _PLACES, np.asarray([[FIRST_BYTE, 1]], dtype=np.uint8))


def look_up(codebook: str, codes: str, vectors: str, two_bytes: bool) -> list[onnx.NodeProto]:
    """Return what reads vectors of a codebook.

    Args:
        codebook: its name.
        codes: name of the stored codes.
        vectors: name of what comes out; in the place of the axis of two bytes is one of length 1.
        two_bytes: codes have two bytes each.
    """
    index, node = f"{codes}_index", helper.make_node
    widen = (
        node("MatMulInteger", [_PLACES, codes], [index])
        if two_bytes
        else node("Cast", [codes], [index], to=onnx.TensorProto.INT32)
    )
    return [widen, node("Gather", [codebook, index], [vectors])]


def join(
    graph: onnx.GraphProto, vectors: str, shape: str, joined: str, lengths: tuple[int, int]
) -> list[onnx.NodeProto]:
    """Return what makes rows of vectors.

    Args:
        graph: may get initializers.
        vectors: name of what comes in.
        shape: name of the shape of whole vectors, for Reshape.
        joined: name of what comes out.
        lengths: of a row, filled up to whole vectors and as it is meant to be.
    """
    filled, length = lengths
    if filled == length:
        return [helper.make_node("Reshape", [vectors, shape], [joined])]
    places = {"start": 0, "end": length, "axis": -1}
    read = [add(graph, f"{joined}_{k}", np.asarray([v], dtype=np.int64)) for k, v in places.items()]
    return [
        helper.make_node("Reshape", [vectors, shape], [f"{joined}_filled"]),
        helper.make_node("Slice", [f"{joined}_filled", *read], [joined]),
    ]


def add(graph: onnx.GraphProto, name: str, array: np.ndarray) -> str:
    """Add an initializer and return its name."""
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def put_for(graph: onnx.GraphProto, name: str, tensor: onnx.TensorProto) -> None:
    """Put an initializer, of whatever name, in the place of another."""
    drop(graph, name)
    graph.initializer.append(tensor)


def drop(graph: onnx.GraphProto, name: str) -> None:
    """Take an initializer out that nothing reads: onnxruntime warns of it wherever the file is loaded."""
    graph.initializer.remove(next(entry for entry in graph.initializer if entry.name == name))
