"""Pack the weights of an 8-bit file into codes of a codebook: 3 or 4 bits on disk, 8 bits at run time.

The codes become numbers by Cast, Gather (GatherND, if they are stored as bytes) and Reshape, which every
runtime has. Those of a matrix have constant inputs, so onnxruntime computes them once, when it loads the
file, and then multiplies as in the 8-bit file; of the embeddings only the rows of a text are unpacked, at
each call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float, Int8
from onnx import numpy_helper

from distill_core.quantization.books import learn_books, of_matrix
from distill_core.quantization.calibration import input_moments
from distill_core.quantization.codebook import (
    SMALL,
    channel_scales,
    pick_shapes,
)
from distill_core.quantization.lookup import (
    CODEBOOK,
    Stored,
    add,
    add_byte_codebooks,
    as_bytes,
    as_they_are,
    join,
    look_up,
    put_for,
)
from distill_core.quantization.rounding import round_matrix
from distill_core.quantization.tables import find_tables, unpack_table
from distill_core.schemes import Scheme, largest_weight
from distill_core.vocabulary import Ids

_LEAST_WEIGHTS = 16_384
"""Of a matrix: a smaller one would save less than 8 kB."""

_LARGEST = largest_weight(reduce_range=False)


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


def pack(
    model: onnx.ModelProto,
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    used: Ids | None = None,
) -> bool:
    """Pack matrices and embeddings of a file in place; what is small stays in 8 bits.

    Args:
        model: of 8 bits, its activations quantized as they come; at its full range, if matrices are packed.
        scheme: how large numbers are, how many a code stands for, and how it is stored.
        rows: training texts, token ids and masks, whose products are to stay what they are.
        used: ids of the tokens that training texts use, the others being coarser; None: of all.

    Returns:
        Whether there was anything to pack; else the file is as it was.
    """
    graph, largest = model.graph, largest_weight(scheme.reduce_range)
    found = _find_matrices(graph) if scheme.packs == "all" else []
    tables = find_tables(graph, used)
    matrices = [matrix for matrix in found if matrix.numbers.size >= _LEAST_WEIGHTS]
    if not (matrices or tables):
        return False
    shapes = pick_shapes(
        sum(matrix.numbers.size for matrix in matrices),
        sum(table.weights.size for table in tables),
        scheme.vector,
    )
    small = SMALL in shapes
    if small:
        tables = [table.whole() for table in tables]
    scales = {matrix.name: channel_scales(matrix.weights, largest) for matrix in matrices}
    moments = input_moments(model, [matrix.activation for matrix in matrices], rows)
    parts = [of_matrix(m.weights, scales[m.name], moments[m.activation]) for m in matrices]
    books = learn_books(parts, tables, shapes, largest)
    in_bytes = scheme.byte_codes and not small
    store = as_bytes if in_bytes else as_they_are
    for matrix in matrices:
        scale = scales[matrix.name]
        codes = round_matrix(matrix.weights, scale, books.matrices, moments[matrix.activation])
        _unpack_matrix(graph, matrix, store(codes), scale, books.matrices.width)
    for table in tables:
        unpack_table(graph, table, (books.tables, books.coarse), books.of_tables, store, largest)
    if in_bytes:
        add_byte_codebooks(graph, books.named)
    else:
        for name, vectors in books.named.items():
            add(graph, name, vectors)
    if largest < _LARGEST:
        for matrix in found:
            if matrix.name not in scales:
                _halve(graph, matrix)
    return True


def _find_matrices(graph: onnx.GraphProto) -> list[_Matrix]:
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = {
        node.output[0]: node for node in graph.node if node.op_type == "DynamicQuantizeLinear"
    }
    found = {}
    for node in graph.node:
        if node.op_type not in ("MatMulInteger", "QAttention") or node.input[1] not in arrays:
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
        if matrix.numbers.ndim == 2:
            found[name] = matrix
    return list(found.values())


def _halve(graph: onnx.GraphProto, matrix: _Matrix) -> None:
    """Bring a matrix that stays in 8 bits to 7, its steps being twice as large."""
    numbers = np.rint(matrix.numbers / 2).astype(np.int8)
    put_for(graph, matrix.name, numpy_helper.from_array(numbers, matrix.name))
    steps = np.asarray(2 * matrix.steps, dtype=matrix.steps.dtype)
    put_for(graph, matrix.scale_name, numpy_helper.from_array(steps, matrix.scale_name))


def _unpack_matrix(
    graph: onnx.GraphProto,
    matrix: _Matrix,
    codes: Stored,
    scale: Float[np.ndarray, " channels"],
    width: int,
) -> None:
    """Put codes in the place of a matrix, and what turns them into its name."""
    named = f"{matrix.name}_{{}}".format
    put_for(graph, matrix.scale_name, numpy_helper.from_array(scale, matrix.scale_name))
    put_for(graph, matrix.name, numpy_helper.from_array(codes, named("codes")))
    inputs, channels = matrix.numbers.shape
    filled = codes.shape[1] * width
    shape = add(graph, named("shape"), np.asarray([inputs, filled], dtype=np.int64))
    nodes = [
        *look_up(CODEBOOK, named("codes"), named("vectors"), codes.ndim == 3),
        *join(graph, named("vectors"), shape, matrix.name, (filled, channels)),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
