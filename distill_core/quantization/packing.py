"""Pack the weights of an 8-bit file into codes of a codebook: 4 bits on disk, 8 bits at run time.

The codes become numbers by Cast, Gather and Reshape (and MatMul, if they are stored as bytes), which every
runtime has. Those of a matrix have constant inputs, so onnxruntime computes them once, when it loads the
file, and then multiplies as in the 8-bit file; of the embeddings only the rows of a text are unpacked, at
each call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float, Int8, UInt, UInt8
from onnx import helper, numpy_helper

from distill_core.quantization.calibration import input_moments
from distill_core.quantization.codebook import (
    channel_scales,
    learn_codebook,
    pick_shape,
)
from distill_core.quantization.readers import count_readers
from distill_core.quantization.rounding import round_matrix

CODEBOOK = "codebook"
"""Name of the initializer that all codes point into."""

_PLACES = "byte_places"
"""Name of the initializer with what the two bytes of a code count for."""

_LEAST_WEIGHTS = 16_384
"""Of a matrix: a smaller one would save less than 8 kB."""

_LEAST_EMBEDDINGS = 500_000
"""Of a table, which is unpacked at each call: positions of 512 x 384 would save 98 kB, and take as long as
the words do."""


Stored = UInt[np.ndarray, "rows vectors"] | UInt8[np.ndarray, "rows vectors two"]
"""Codes, or their two bytes."""


@dataclass(frozen=True)
class _Matrix:
    """An 8-bit weight of a product, and the fp32 activation that it multiplies."""

    name: str
    scale_name: str
    activation: str
    numbers: Int8[np.ndarray, "inputs channels"]
    steps: Float[np.ndarray, "..."]

    @property
    def weights(self) -> Float[np.ndarray, "inputs channels"]:
        """As the 8-bit file has them."""
        return np.asarray(self.numbers * self.steps, dtype=np.float32)


@dataclass(frozen=True)
class _Table:
    """8-bit embeddings, and what looks them up: a Gather, and the DequantizeLinear after it."""

    lookup: onnx.NodeProto
    widen: onnx.NodeProto
    weights: Float[np.ndarray, "rows channels"]


def pack(
    model: onnx.ModelProto,
    rows: Sequence[Mapping[str, Any]],
    largest: int,
    byte_codes: bool = False,
) -> None:
    """Pack matrices and embeddings of a file in place; what is small, or of an odd width, stays.

    Args:
        model: as `dynamic.quantize_dynamically` writes it, at its full range.
        rows: training texts, token ids and masks, whose products are to stay what they are.
        largest: whole number that an unpacked weight may have.
        byte_codes: codes of 16 bits are stored as two bytes, for runtimes that read no 16 bits.
    """
    matrices, tables = _find_matrices(model.graph), _find_tables(model.graph)
    weights = [part.weights for part in matrices] + [part.weights for part in tables]
    shape = pick_shape(sum(array.size for array in weights))
    matrices = [matrix for matrix in matrices if matrix.numbers.shape[1] % shape[0] == 0]
    tables = [table for table in tables if table.weights.shape[1] % shape[0] == 0]
    if not (matrices or tables):
        return
    moments = input_moments(model, [matrix.activation for matrix in matrices], rows)
    scales = {matrix.name: channel_scales(matrix.weights, largest) for matrix in matrices}
    codebook = learn_codebook(_numbers(matrices, scales, tables, largest), shape, largest)
    model.graph.initializer.append(numpy_helper.from_array(codebook.vectors, CODEBOOK))
    store = _as_bytes if byte_codes and len(codebook.vectors) > 256 else np.asarray
    if store is _as_bytes:
        places = np.asarray([1, 256], dtype=np.int32)
        model.graph.initializer.append(numpy_helper.from_array(places, _PLACES))
    for matrix in matrices:
        scale = scales[matrix.name]
        codes = round_matrix(matrix.weights, scale, codebook, moments[matrix.activation])
        _unpack_matrix(model.graph, matrix, store(codes), scale)
    for table in tables:
        row_scales = _row_scales(table, largest)
        found = codebook.encode(table.weights / row_scales.astype(np.float32))
        _unpack_table(model.graph, table, store(found), row_scales)


def _find_matrices(graph: onnx.GraphProto) -> list[_Matrix]:
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = {
        node.output[0]: node for node in graph.node if node.op_type == "DynamicQuantizeLinear"
    }
    found = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger" or node.input[1] not in arrays:
            continue
        name = node.input[1]
        scale_name = f"{name.removesuffix('_quantized')}_scale"
        matrix = _Matrix(
            name,
            scale_name,
            quantizers[node.input[0]].input[0],
            numpy_helper.to_array(arrays[name]),
            numpy_helper.to_array(arrays[scale_name]),
        )
        if matrix.numbers.ndim == 2 and matrix.numbers.size >= _LEAST_WEIGHTS:
            found[name] = matrix
    return list(found.values())


def _find_tables(graph: onnx.GraphProto) -> list[_Table]:
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    readers = count_readers(graph)
    wideners = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for node in graph.node:
        widen = wideners.get(node.output[0])
        if node.op_type != "Gather" or node.input[0] not in arrays or widen is None:
            continue
        scale, zero = (numpy_helper.to_array(arrays[name]) for name in widen.input[1:])
        numbers = numpy_helper.to_array(arrays[node.input[0]])
        # A decoder that shares the table multiplies by it: that one stays.
        if readers[node.input[0]] == 1 and numbers.size >= _LEAST_EMBEDDINGS:
            found.append(_Table(node, widen, (numbers.astype(np.float32) - zero) * scale))
    return found


def _row_scales(table: _Table, largest: int) -> Float[np.ndarray, "rows 1"]:
    scales = channel_scales(table.weights.T, largest)[:, None]
    # A row of zeros, as padding's often is, would have none.
    least = np.finfo(np.float16).smallest_subnormal
    return np.asarray(np.maximum(scales, least), dtype=np.float16)


def _numbers(
    matrices: Sequence[_Matrix],
    scales: Mapping[str, Float[np.ndarray, " channels"]],
    tables: Sequence[_Table],
    largest: int,
) -> Float[np.ndarray, " numbers"]:
    """Return what the codebook is learnt from: as much of the tables as there is of the matrices."""
    parts = [(matrix.weights / scales[matrix.name]).ravel() for matrix in matrices]
    of_matrices = np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
    rows = [
        row / scale
        for table in tables
        for row, scale in zip(table.weights, _row_scales(table, largest), strict=True)
    ]
    width = max((len(row) for row in rows), default=1)
    wanted = len(of_matrices) // width if parts else len(rows)
    picked = np.random.default_rng(0).permutation(len(rows))[: max(wanted, 1)]
    return np.concatenate([of_matrices, *[rows[number] for number in picked]])


def _unpack_matrix(
    graph: onnx.GraphProto,
    matrix: _Matrix,
    codes: Stored,
    scale: Float[np.ndarray, " channels"],
) -> None:
    """Put codes in the place of a matrix, and what turns them into its name."""
    named = f"{matrix.name}_{{}}".format
    _replace(graph, matrix.scale_name, numpy_helper.from_array(scale, matrix.scale_name))
    _replace(graph, matrix.name, numpy_helper.from_array(codes, named("codes")))
    shape = np.asarray(matrix.numbers.shape, dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(shape, named("shape")))
    nodes = [
        *_look_up(named("codes"), named("vectors"), codes),
        helper.make_node("Reshape", [named("vectors"), named("shape")], [matrix.name]),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _unpack_table(
    graph: onnx.GraphProto, table: _Table, codes: Stored, scales: Float[np.ndarray, "rows 1"]
) -> None:
    """Put codes in the place of embeddings, and what unpacks the rows that a text looks up."""
    data, ids = table.lookup.input
    _replace(graph, data, numpy_helper.from_array(codes, f"{data}_codes"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{data}_scales"))
    named = f"{table.lookup.output[0]}_{{}}".format
    node = helper.make_node
    nodes = [
        node("Gather", [f"{data}_codes", ids], [named("codes")]),
        *_look_up(named("codes"), named("vectors"), codes),
        node("Cast", [named("vectors")], [named("numbers")], to=onnx.TensorProto.FLOAT),
        *_join_vectors(graph, ids, table.weights.shape[1], named),
        node("Gather", [f"{data}_scales", ids], [named("scales")]),
        node("Cast", [named("scales")], [named("wide_scales")], to=onnx.TensorProto.FLOAT),
        node("Mul", [named("rows"), named("wide_scales")], list(table.widen.output)),
    ]
    place = list(graph.node).index(table.lookup)
    for entry in reversed(nodes):
        graph.node.insert(place, entry)
    graph.node.remove(table.lookup)
    graph.node.remove(table.widen)


def _join_vectors(
    graph: onnx.GraphProto, ids: str, width: int, named: Callable[[str], str]
) -> list[onnx.NodeProto]:
    """Return what makes rows of vectors, by a constant shape if the ids are a batch of texts."""
    ranks = {entry.name: len(entry.type.tensor_type.shape.dim) for entry in graph.input}
    constant = [0, 0, width] if ranks.get(ids) == 2 else [width]  # 0 keeps what is there
    shape = numpy_helper.from_array(np.asarray(constant, dtype=np.int64), named("width"))
    graph.initializer.append(shape)
    if ranks.get(ids) == 2:
        return [helper.make_node("Reshape", [named("numbers"), shape.name], [named("rows")])]
    return [
        helper.make_node("Shape", [ids], [named("counts")]),
        helper.make_node("Concat", [named("counts"), shape.name], [named("shape")], axis=0),
        helper.make_node("Reshape", [named("numbers"), named("shape")], [named("rows")]),
    ]


def _as_bytes(codes: UInt[np.ndarray, "rows vectors"]) -> UInt8[np.ndarray, "rows vectors two"]:
    """Return codes of 16 bits as two bytes each, the low one first."""
    return codes.astype("<u2")[..., None].view(np.uint8)


def _look_up(codes: str, vectors: str, stored: Stored) -> list[onnx.NodeProto]:
    """Return what reads vectors of the codebook; Gather takes no shorter whole numbers than 32 bits."""
    index, node = f"{codes}_index", helper.make_node
    if stored.ndim == 2:
        return [
            node("Cast", [codes], [index], to=onnx.TensorProto.INT32),
            node("Gather", [CODEBOOK, index], [vectors]),
        ]
    return [
        node("Cast", [codes], [f"{codes}_bytes"], to=onnx.TensorProto.INT32),
        node("MatMul", [f"{codes}_bytes", _PLACES], [index]),
        node("Gather", [CODEBOOK, index], [vectors]),
    ]


def _replace(graph: onnx.GraphProto, name: str, tensor: onnx.TensorProto) -> None:
    old = next(entry for entry in graph.initializer if entry.name == name)
    graph.initializer.remove(old)
    graph.initializer.append(tensor)
