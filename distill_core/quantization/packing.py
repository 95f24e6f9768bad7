"""Pack the weights of an 8-bit file into codes of a codebook: 3 or 4 bits on disk, 8 bits at run time.

The codes become numbers by MatMulInteger or Cast, Gather and Reshape, which every runtime has. Those of a
matrix have constant inputs, so onnxruntime computes them once, when it loads the file, and then multiplies
as in the 8-bit file; of the embeddings only the rows of a text are unpacked, at each call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from jaxtyping import Int8

from distill_core.quantization.books import Part, learn_book, of_matrix
from distill_core.quantization.calibration import input_moments, one_of_a_text, set_apart
from distill_core.quantization.codebook import COARSE, SMALL, Codebook, pick_shape
from distill_core.quantization.coded import CodedRows
from distill_core.quantization.lookup import (
    COARSE_CODEBOOK,
    CODEBOOK,
    WORDS_CODEBOOK,
    add_codebooks,
)
from distill_core.quantization.matrices import (
    CodedMatrix,
    Matrix,
    code_matrices,
    find_matrices,
    halve,
    unpack_matrix,
)
from distill_core.quantization.rounding import Moments
from distill_core.quantization.spare import pick_coarse
from distill_core.quantization.tables import find_table, unpack_table
from distill_core.schemes import Scheme, largest_weight

Vectors = dict[str, Int8[np.ndarray, "count width"]]
"""Codebooks, by the names of their initializers."""

_LEAST_WEIGHTS = 16_384
"""Of a matrix: a smaller one would save less than 8 kB."""

_LARGEST = largest_weight(reduce_range=False)


def pack(
    model: onnx.ModelProto,
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    words: CodedRows | None,
) -> bool:
    """Pack matrices and word embeddings of a file in place; what is small stays in 8 bits.

    Args:
        model: of 8 bits, its activations quantized as they come; at its full range, if matrices are packed.
        scheme: how large numbers are, and how many a code stands for.
        rows: training texts, token ids and masks, whose products are to stay what they are.
        words: codes of the word embeddings; None where they stay in 8 bits.

    Returns:
        Whether there was anything to pack; else the file is as it was.
    """
    graph, largest = model.graph, largest_weight(scheme.reduce_range)
    found = find_matrices(graph) if scheme.packs == "all" else []
    matrices = [matrix for matrix in found if matrix.numbers.size >= _LEAST_WEIGHTS]
    table = find_table(graph) if words else None
    if not (matrices or table):
        return False
    shared = None
    if table and words and words.vectors.shape[::-1] == _shape(matrices, scheme) != SMALL:
        words = words.within(largest)
        shared = Codebook(words.vectors)
    vectors = _pack_matrices(model, matrices, scheme, rows, shared) if matrices else {}
    if table and words:
        unpack_table(graph, table, words)
        vectors[WORDS_CODEBOOK] = words.vectors
    add_codebooks(graph, vectors)
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


def _pack_matrices(
    model: onnx.ModelProto,
    matrices: Sequence[Matrix],
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    shared: Codebook | None,
) -> Vectors:
    """Pack matrices with the codebook of the words, or one that is learnt from them.

    Returns:
        The codebooks by name.
    """
    largest = largest_weight(scheme.reduce_range)
    read, judged = set_apart(rows)
    moments = input_moments(model, [matrix.activation for matrix in matrices], read)
    book, name = shared, WORDS_CODEBOOK
    if book is None:
        parts, name = _parts(matrices, moments, largest), CODEBOOK
        book = learn_book(parts, _shape(matrices, scheme), largest)
    rounded = code_matrices(matrices, largest, book, name, moments)
    coarse = _find_coarse(model, rounded, moments, largest, judged)
    vectors: Vectors = {}
    for entry in rounded:
        coded = coarse.get(entry.matrix.name, entry)
        unpack_matrix(model.graph, coded)
        vectors[coded.codebook_name] = coded.codebook.vectors
    return vectors


def _shape(matrices: Sequence[Matrix], scheme: Scheme) -> tuple[int, int]:
    """Return width and count of the vectors of matrices."""
    return pick_shape(sum(matrix.numbers.size for matrix in matrices), scheme.vector)


def _parts(matrices: Sequence[Matrix], moments: Mapping[str, Moments], largest: int) -> list[Part]:
    return [of_matrix(m.weights, m.scales(largest), moments[m.activation]) for m in matrices]


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
    book = learn_book(_parts(spare, moments, largest), COARSE, largest)
    coarse = code_matrices(spare, largest, book, COARSE_CODEBOOK, moments)
    return {entry.matrix.name: entry for entry in pick_coarse(model, rounded, coarse, rows)}
