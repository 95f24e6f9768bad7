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
from distill_core.quantization.coded import CodedRows, encode
from distill_core.quantization.lookup import (
    CODEBOOK,
    WORDS_CODEBOOK,
    Store,
    Stored,
    add,
    add_codebooks,
    as_bytes,
    as_they_are,
    join,
    look_up,
    put_for,
)
from distill_core.quantization.rounding import round_matrix
from distill_core.quantization.tables import Table, find_tables, unpack_table
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
    words: CodedRows | None = None,
) -> bool:
    """Pack matrices and embeddings of a file in place; what is small stays in 8 bits.

    Args:
        model: of 8 bits, its activations quantized as they come; at its full range, if matrices are packed.
        scheme: how large numbers are, how many a code stands for, and how it is stored.
        rows: training texts, token ids and masks, whose products are to stay what they are.
        used: ids of the tokens that training texts use, the others being coarser; None: of all.
        words: codes that word embeddings stand on already.

    Returns:
        Whether there was anything to pack; else the file is as it was.
    """
    graph, largest = model.graph, largest_weight(scheme.reduce_range)
    found = _find_matrices(graph) if scheme.packs == "all" else []
    matrices = [matrix for matrix in found if matrix.numbers.size >= _LEAST_WEIGHTS]
    tables = find_tables(graph, used, words)
    if not (matrices or tables):
        return False
    store = as_bytes if scheme.byte_codes else as_they_are
    open_tables = [table for table in tables if table.coded is None]
    vectors: dict[str, Int8[np.ndarray, "count width"]] = {}
    if matrices or open_tables:
        vectors |= _pack_by_books(model, matrices, open_tables, scheme, rows, store)
    for table in tables:
        if table.coded:
            unpack_table(graph, table, table.coded, WORDS_CODEBOOK, store)
            vectors[WORDS_CODEBOOK] = table.coded.vectors
    add_codebooks(graph, vectors, scheme.byte_codes)
    if largest < _LARGEST:
        for matrix in found:
            if matrix.numbers.size < _LEAST_WEIGHTS:
                _halve(graph, matrix)
    _forget_names(graph)
    return True


def _forget_names(graph: onnx.GraphProto) -> None:
    """Leave out what a graph says of its nodes and tensors to people: 39 kB in a file of 6 MB."""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")


def _pack_by_books(
    model: onnx.ModelProto,
    matrices: Sequence[_Matrix],
    tables: Sequence[Table],
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    store: Store,
) -> dict[str, Int8[np.ndarray, "count width"]]:
    """Pack matrices and embeddings with codebooks that are learnt from them, and return those by name."""
    graph, largest = model.graph, largest_weight(scheme.reduce_range)
    shapes = pick_shapes(
        sum(matrix.numbers.size for matrix in matrices),
        sum(table.rows.weights.size for table in tables),
        scheme.vector,
    )
    embeddings = [table.rows.whole() if SMALL in shapes else table.rows for table in tables]
    scales = {matrix.name: channel_scales(matrix.weights, largest) for matrix in matrices}
    moments = input_moments(model, [matrix.activation for matrix in matrices], rows)
    parts = [of_matrix(m.weights, scales[m.name], moments[m.activation]) for m in matrices]
    books = learn_books(parts, embeddings, shapes, largest)
    for matrix in matrices:
        scale = scales[matrix.name]
        codes = round_matrix(matrix.weights, scale, books.matrices, moments[matrix.activation])
        _unpack_matrix(graph, matrix, store(codes), scale, books.matrices.width)
    for table, embedding in zip(tables, embeddings, strict=True):
        coded = encode(embedding, (books.tables, books.coarse), largest)
        unpack_table(graph, table, coded, books.of_tables, store)
    return books.named


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
