"""Pack the weights of an 8-bit file into codes of a codebook: 3 or 4 bits on disk, 8 bits at run time.

The codes become numbers by MatMulInteger or Cast, Gather and Reshape, which every runtime has. Those of a
matrix have constant inputs, so onnxruntime computes them once, when it loads the file, and then multiplies
as in the 8-bit file; of the embeddings only the rows of a text are unpacked, at each call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

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
from distill_core.quantization.spare import pick_coarse, pick_whole
from distill_core.quantization.tables import find_table, unpack_table
from distill_core.schemes import Scheme, largest_weight

_LEAST_WEIGHTS = 16_384
"""Of a matrix: a smaller one would save less than 8 kB."""

_LARGEST = largest_weight(reduce_range=False)


def pack(
    model: onnx.ModelProto,
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    words: CodedRows | None,
    most_bytes: int | None = None,
) -> bool:
    """Pack matrices and word embeddings of a file in place; what is small stays in 8 bits.

    Args:
        model: of 8 bits, its activations quantized as they come; at its full range, if matrices are packed.
        scheme: how large numbers are, and how many a code stands for.
        rows: training texts, token ids and masks, whose products are to stay what they are.
        words: codes of the word embeddings; None where they stay in 8 bits.
        most_bytes: that the file may have: as long as there is room, matrices stay in 8 bits, those first of
            whose codes the answers suffer most; None packs all.

    Returns:
        Whether there was anything to pack; else the file is as it was.
    """
    largest = largest_weight(scheme.reduce_range)
    found = find_matrices(model.graph) if scheme.packs == "all" else []
    matrices = [matrix for matrix in found if matrix.numbers.size >= _LEAST_WEIGHTS]
    words = words if find_table(model.graph) else None
    if not (matrices or words):
        return False
    shared = None
    if words and words.vectors.shape[::-1] == _shape(matrices, scheme) != SMALL:
        words = words.within(largest)
        shared = Codebook(words.vectors)
    packed = _code_matrices(model, matrices, scheme, rows, shared) if matrices else []
    if packed and most_bytes is not None:
        smallest = onnx.ModelProto()
        smallest.CopyFrom(model)
        _write(smallest, found, packed, words, largest)
        _, judged = set_apart(rows)
        whole = pick_whole(model, packed, judged, most_bytes - smallest.ByteSize())
        packed = [entry for entry in packed if entry.matrix.name not in whole]
    _write(model, found, packed, words, largest)
    return True


def _write(
    model: onnx.ModelProto,
    found: Sequence[Matrix],
    packed: Sequence[CodedMatrix],
    words: CodedRows | None,
    largest: int,
) -> None:
    """Put codes in the place of some matrices and of words; other matrices get the range of the scheme."""
    graph, vectors = model.graph, {}
    for entry in packed:
        unpack_matrix(graph, entry)
        vectors[entry.codebook_name] = entry.codebook.vectors
    table = find_table(graph)
    if table and words:
        unpack_table(graph, table, words)
        vectors[WORDS_CODEBOOK] = words.vectors
    add_codebooks(graph, vectors)
    if largest < _LARGEST:
        coded = {entry.matrix.name for entry in packed}
        for matrix in found:
            if matrix.name not in coded:
                halve(graph, matrix)
    _forget_names(graph)


def _forget_names(graph: onnx.GraphProto) -> None:
    """Leave out what a graph says of its nodes and tensors to people: 39 kB in a file of 6 MB."""
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")


def _code_matrices(
    model: onnx.ModelProto,
    matrices: Sequence[Matrix],
    scheme: Scheme,
    rows: Sequence[Mapping[str, Any]],
    shared: Codebook | None,
) -> list[CodedMatrix]:
    """Return the codes of matrices, in the codebook of the words, or one that is learnt from them."""
    largest = largest_weight(scheme.reduce_range)
    read, judged = set_apart(rows)
    moments = input_moments(model, [matrix.activation for matrix in matrices], read)
    book, name = shared, WORDS_CODEBOOK
    if book is None:
        parts, name = _parts(matrices, moments, largest), CODEBOOK
        book = learn_book(parts, _shape(matrices, scheme), largest)
    rounded = code_matrices(matrices, largest, book, name, moments)
    coarse = _find_coarse(model, rounded, moments, largest, judged)
    return [coarse.get(entry.matrix.name, entry) for entry in rounded]


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
