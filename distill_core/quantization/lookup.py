"""Nodes that read vectors of a codebook, and the form in which codes are stored."""

from collections.abc import Callable

import numpy as np
import onnx
from jaxtyping import UInt, UInt8
from onnx import helper, numpy_helper

CODEBOOK = "codebook"
"""Name of the initializer that all codes point into."""

PLACES = "byte_places"
"""Name of the initializer with what the two bytes of a code count for."""

Stored = UInt[np.ndarray, "..."] | UInt8[np.ndarray, "... two"]
"""Whole numbers of 8, 16 or 32 bits, or the two bytes of 16 bits."""

Store = Callable[[UInt[np.ndarray, "..."]], Stored]


def as_they_are(numbers: UInt[np.ndarray, "..."]) -> Stored:
    """Store numbers as they are."""
    return numbers


def as_bytes(numbers: UInt[np.ndarray, "..."]) -> Stored:
    """Store numbers of 16 bits as two bytes each, the low one first; others as they are."""
    if numbers.dtype != np.uint16:
        return numbers
    return numbers.astype("<u2")[..., None].view(np.uint8)


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
        helper.make_node("MatMul", [f"{name}_bytes", PLACES], [wide]),
    ]


def look_up(codes: str, vectors: str, bytes_of: bool) -> list[onnx.NodeProto]:
    """Return what reads vectors of the codebook.

    Args:
        codes: name of the stored codes.
        vectors: name of what comes out.
        bytes_of: codes are two bytes each.
    """
    index = f"{codes}_index"
    return [
        *widen(codes, index, bytes_of),
        helper.make_node("Gather", [CODEBOOK, index], [vectors]),
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
