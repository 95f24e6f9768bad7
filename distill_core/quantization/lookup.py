"""Nodes that read vectors of a codebook, and the form in which codes are stored."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from jaxtyping import Int8, UInt, UInt8
from onnx import helper, numpy_helper

from distill_core.quantization.codebook import LARGE

CODEBOOK = "codebook"
"""Name of the initializer that codes of matrices point into."""

WORDS_CODEBOOK = "codebook_of_words"
"""Name of the initializer that codes of words point into."""

COARSE_CODEBOOK = "codebook_of_coarse_matrices"
"""Name of the initializer that codes of matrices point into which need no more than a byte for a vector."""

_PLACES = "byte_places"
"""Name of the initializer with what the two bytes of a code count for."""

Stored = UInt[np.ndarray, "..."] | UInt8[np.ndarray, "... two"]
"""Whole numbers of 8, 16 or 32 bits, or the two bytes of 16 bits."""

Store = Callable[[UInt[np.ndarray, "..."]], Stored]


def as_they_are(numbers: UInt[np.ndarray, "..."]) -> Stored:
    """Store numbers as they are."""
    return numbers


def as_bytes(numbers: UInt[np.ndarray, "..."]) -> Stored:
    """Store numbers of 16 bits as two bytes each, the high one first; others as they are."""
    if numbers.dtype != np.uint16:
        return numbers
    return numbers.astype(">u2")[..., None].view(np.uint8)


def add_codebooks(
    graph: onnx.GraphProto, codebooks: Mapping[str, Int8[np.ndarray, "count width"]], in_bytes: bool
) -> None:
    """Add codebooks, by their names.

    Where codes are two bytes, GatherND takes them as row and column. That loads faster than adding them up:
    nine matrices of 1,536 x 384 in 43 ms natively and 209 in onnxruntime-web where MatMul took 55 and 265,
    and codes of 16 bits 33 and 160.

    Args:
        graph: gets initializers, and nodes that see them as squares.
        codebooks: vectors by names.
        in_bytes: codes of 16 bits are stored as two bytes.
    """
    for name, vectors in codebooks.items():
        add(graph, name, vectors)
    squares = [name for name, vectors in codebooks.items() if len(vectors) == LARGE]
    if not (in_bytes and squares):
        return
    add(graph, _PLACES, np.asarray([256, 1], dtype=np.int32))
    for name in squares:
        shape = add(graph, f"{_square(name)}_shape", np.asarray([256, 256, -1], dtype=np.int64))
        graph.node.insert(0, helper.make_node("Reshape", [name, shape], [_square(name)]))


def _square(codebook: str) -> str:
    """Return the name of a codebook as 256 x 256 vectors, which two bytes find as they are."""
    return f"{codebook}_by_bytes"


def widen(name: str, wide: str, bytes_of: bool) -> list[onnx.NodeProto]:
    """Return what turns stored numbers into the 32 bits that Gather asks for.

    Args:
        name: of the stored numbers.
        wide: name of what comes out.
        bytes_of: they are two bytes each.
    """
    int32 = onnx.TensorProto.INT32
    if not bytes_of:
        return [helper.make_node("Cast", [name], [wide], to=int32)]
    return [
        helper.make_node("Cast", [name], [f"{name}_bytes"], to=int32),
        helper.make_node("MatMul", [f"{name}_bytes", _PLACES], [wide]),
    ]


def look_up(codebook: str, codes: str, vectors: str, bytes_of: bool) -> list[onnx.NodeProto]:
    """Return what reads vectors of a codebook.

    Args:
        codebook: its name.
        codes: name of the stored codes.
        vectors: name of what comes out.
        bytes_of: codes are two bytes each.
    """
    index, node = f"{codes}_index", helper.make_node
    if bytes_of:
        return [
            node("Cast", [codes], [index], to=onnx.TensorProto.INT64),
            node("GatherND", [_square(codebook), index], [vectors]),
        ]
    return [*widen(codes, index, False), node("Gather", [codebook, index], [vectors])]


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
    old = next(entry for entry in graph.initializer if entry.name == name)
    graph.initializer.remove(old)
    graph.initializer.append(tensor)
