"""Pack the weights of an 8-bit file into codes of a codebook: 3 or 4 bits on disk, 8 bits at run time.

The codes become numbers by Cast, Gather (GatherND, if they are stored as bytes) and Reshape, which every
runtime has. Those of a matrix have constant inputs, so onnxruntime computes them once, when it loads the
file, and then multiplies as in the 8-bit file; of the embeddings only the rows of a text are unpacked, at
each call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from jaxtyping import Int8

from distill_core.quantization.books import learn_books, learn_coarse, of_matrix
from distill_core.quantization.calibration import input_moments, one_of_a_text, set_apart
from distill_core.quantization.codebook import SMALL, pick_shapes
from distill_core.quantization.coded import CodedRows, encode
from distill_core.quantization.lookup import (
    COARSE_CODEBOOK,
    CODEBOOK,
    WORDS_CODEBOOK,
    Store,
    add_codebooks,
    as_bytes,
    as_they_are,
)
from distill_core.quantization.matrices import (
    CodedMatrix,
    Matrix,
    code_matrix,
    find_matrices,
    halve,
    unpack_matrix,
)
from distill_core.quantization.rounding import Moments
from distill_core.quantization.spare import pick_coarse
from distill_core.quantization.tables import Table, find_tables, unpack_table
from distill_core.schemes import Scheme, largest_weight
from distill_core.vocabulary import Ids

Vectors = dict[str, Int8[np.ndarray, "count width"]]
"""Codebooks, by the names of their initializers."""

_LEAST_WEIGHTS = 16_384
"""Of a matrix: a smaller one would save less than 8 kB."""

_LARGEST = largest_weight(reduce_range=False)


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
    found = find_matrices(graph) if scheme.packs == "all" else []
    matrices = [matrix for matrix in found if matrix.numbers.size >= _LEAST_WEIGHTS]
    tables = find_tables(graph, used, words)
    if not (matrices or tables):
        return False
    store = as_bytes if scheme.byte_codes else as_they_are
    open_tables = [table for table in tables if table.coded is None]
    vectors: Vectors = {}
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
                halve(graph, matrix)
    _forget_names(graph)
    return True


def _forget_names(graph: onnx.GraphProto) -> None:
    """Leave out what a graph says of its nodes and tensors to people: 39 kB in a file of 6 MB."""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")


def _pack_by_books(
    model: onnx.ModelProto,
    matrices: Sequence[Matrix],
    tables: Sequence[Table],
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    store: Store,
) -> Vectors:
    """Pack matrices and embeddings with codebooks that are learnt from them, and return those by name."""
    largest = largest_weight(scheme.reduce_range)
    shapes = pick_shapes(
        sum(matrix.numbers.size for matrix in matrices),
        sum(table.rows.weights.size for table in tables),
        scheme.vector,
    )
    embeddings = [table.rows.whole() if SMALL in shapes else table.rows for table in tables]
    read, judged = set_apart(rows)
    moments = input_moments(model, [matrix.activation for matrix in matrices], read)
    parts = [of_matrix(m.weights, m.scales(largest), moments[m.activation]) for m in matrices]
    books = learn_books(parts, embeddings, shapes, largest)
    rounded = [
        code_matrix(m, largest, books.matrices, CODEBOOK, moments[m.activation]) for m in matrices
    ]
    coarse = _find_coarse(model, rounded, moments, largest, judged)
    vectors: Vectors = {}
    for entry in rounded:
        coded = coarse.get(entry.matrix.name, entry)
        unpack_matrix(model.graph, coded, store)
        vectors[coded.codebook_name] = coded.codebook.vectors
    for table, embedding in zip(tables, embeddings, strict=True):
        coded_rows = encode(embedding, (books.tables, books.coarse), largest)
        unpack_table(model.graph, table, coded_rows, books.of_tables, store)
        vectors[books.of_tables] = books.tables.vectors
    return vectors


def _find_coarse(
    model: onnx.ModelProto,
    rounded: Sequence[CodedMatrix],
    moments: Mapping[str, Moments],
    largest: int,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, CodedMatrix]:
    """Return by name the matrices of one vector a text that are as good in fewer bits, in those bits."""
    once = one_of_a_text(model, list(moments), rows)
    spare = [entry.matrix for entry in rounded if entry.matrix.activation in once]
    if not spare:
        return {}
    parts = [of_matrix(m.weights, m.scales(largest), moments[m.activation]) for m in spare]
    book = learn_coarse(parts, largest)
    coarse = [code_matrix(m, largest, book, COARSE_CODEBOOK, moments[m.activation]) for m in spare]
    return {entry.matrix.name: entry for entry in pick_coarse(model, rounded, coarse, rows)}
