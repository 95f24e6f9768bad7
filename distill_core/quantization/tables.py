"""Word embeddings of a file: which they are, what their codes are, and the nodes that unpack them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from jaxtyping import Float, Int32, UInt8
from onnx import helper, numpy_helper

from distill_core.quantization.codebook import LARGE
from distill_core.quantization.coded import CodedRows, code_rows
from distill_core.quantization.lookup import (
    FIRST_BYTE,
    WORDS_CODEBOOK,
    add,
    drop,
    in_bytes,
    join,
    look_up,
    put_for,
)
from distill_core.quantization.readers import count_readers
from distill_core.schemes import LEAST_PACKED, Packing
from distill_core.vocabulary import Ids

_RESHAPERS = {"Reshape", "Cast", "Flatten", "Squeeze", "Unsqueeze", "Identity"}

_WIDTHS: Mapping[str, int] = {"all": 6, "embeddings": 4}
"""Weights that a code stands for, where the vocabulary is large. Embeddings lose less by wide vectors than
matrices do: of a student of 6 x 768, SST-2, 5 % of the answers change with six weights in all vectors, and
2.4 % where matrices have four. Where embeddings alone are packed, fewer bits are not the point."""

Named = Callable[[str], str]


@dataclass(frozen=True)
class Table:
    """8-bit word embeddings, and what looks them up: a Gather, and the DequantizeLinear after it."""

    lookup: onnx.NodeProto
    widen: onnx.NodeProto


def find_table(graph: onnx.GraphProto) -> Table | None:
    """Return the word embeddings of an 8-bit file, if they are worth packing."""
    lookup = _find_lookup(graph)
    if lookup is None:
        return None
    wideners = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    widener = wideners.get(lookup.output[0])
    return None if widener is None else Table(lookup, widener)


def code_table(model: onnx.ModelProto, used: Ids | None, packing: Packing) -> CodedRows | None:
    """Return the word embeddings of an fp32 file as codes; None where they are not worth packing.

    Args:
        model: the file.
        used: ids of the tokens that training texts use, the others being coarser; None: of all.
        packing: of the scheme. Beside matrices with vectors as wide, their codebook is learnt from those too,
            and both share it.
    """
    lookup = _find_lookup(model.graph)
    if lookup is None:
        return None
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = numpy_helper.to_array(arrays[lookup.input[0]])
    width = _WIDTHS[packing.packs]
    shared = packing.packs == "all" and packing.vector == width
    return code_rows(weights, used, width, _matrices(model.graph) if shared else [])


def _matrices(graph: onnx.GraphProto) -> list[Float[np.ndarray, "_ _"]]:
    arrays = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    read = (node.input[1] for node in graph.node if node.op_type == "MatMul")
    return [numpy_helper.to_array(arrays[name]) for name in dict.fromkeys(read) if name in arrays]


def _find_lookup(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """Return the Gather that looks up words, if nothing else reads their table, and it is large enough."""
    sizes: dict[str, int] = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    readers = count_readers(graph)
    found: list[onnx.NodeProto] = [
        node
        for node in graph.node
        if node.op_type == "Gather"
        and sizes.get(node.input[0], 0) >= LEAST_PACKED
        # A decoder that shares the table multiplies by it: that one stays.
        and readers[node.input[0]] == 1
        and _origin(graph, node.input[1]) == "input_ids"
    ]
    return found[0] if found else None


def _origin(graph: onnx.GraphProto, name: str) -> str:
    """Return the tensor that another one is a view of."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in _RESHAPERS:
        name = makers[name].input[0]
    return name


def unpack_table(graph: onnx.GraphProto, table: Table, coded: CodedRows) -> None:
    """Put codes in the place of embeddings, and what unpacks the rows that a text looks up.

    Args:
        graph: changed in place.
        table: one of it.
        coded: its rows.
    """
    data, ids = table.lookup.input
    add(graph, f"{data}_scales", coded.scales)
    named = f"{table.lookup.output[0]}_{{}}".format
    node = helper.make_node
    codes = in_bytes(coded.common)
    two_bytes = codes.ndim == 3
    read = [node("Gather", [f"{data}_codes", ids], [named("codes")])]
    if coded.rare.any():
        codes, read = _part_bytes(graph, table, coded, named)
    put_for(graph, data, numpy_helper.from_array(codes, f"{data}_codes"))
    filled = coded.common.shape[1] * coded.vectors.shape[1]
    nodes = [
        *read,
        *look_up(WORDS_CODEBOOK, named("codes"), named("vectors"), two_bytes),
        node("Cast", [named("vectors")], [named("numbers")], to=onnx.TensorProto.FLOAT),
        *_join_vectors(graph, ids, (filled, coded.channels), named),
        node("Gather", [f"{data}_scales", ids], [named("scales")]),
        node("Cast", [named("scales")], [named("wide_scales")], to=onnx.TensorProto.FLOAT),
        node("Mul", [named("rows"), named("wide_scales")], list(table.widen.output)),
    ]
    place = list(graph.node).index(table.lookup)
    for entry in reversed(nodes):
        graph.node.insert(place, entry)
    graph.node.remove(table.lookup)
    graph.node.remove(table.widen)
    for name in table.widen.input[1:]:
        drop(graph, name)


def _part_bytes(
    graph: onnx.GraphProto, table: Table, coded: CodedRows, named: Named
) -> tuple[UInt8[np.ndarray, "rows 1 vectors"], list[onnx.NodeProto]]:
    """Return the second bytes of all codes, and what reads both bytes of a row.

    Codes of rare rows have a byte alone, their first one being 0. First bytes are in a table of their own,
    which ends with a row of zeros for all of those.
    """
    data, ids = table.lookup.input
    both, count = in_bytes(coded.common), len(coded.common)
    second = np.empty((len(coded.rare), 1, both.shape[2]), dtype=np.uint8)
    second[~coded.rare], second[coded.rare] = both[:, 1:], coded.coarse[:, None]
    add(graph, f"{data}_first_bytes", np.pad(both[:, 0], [(0, 1), (0, 0)]))
    places = np.full(len(coded.rare), count, dtype=np.int32)
    places[~coded.rare] = np.arange(count)
    node = helper.make_node
    return second, [
        *_read_places(graph, places, ids, named),
        node("Gather", [f"{data}_first_bytes", named("place")], [named("first_bytes")]),
        node("Gather", [f"{data}_codes", ids], [named("second_bytes")]),
        node("Concat", [named("first_bytes"), named("second_bytes")], [named("codes")], axis=-2),
    ]


def _read_places(
    graph: onnx.GraphProto, places: Int32[np.ndarray, " rows"], ids: str, named: Named
) -> list[onnx.NodeProto]:
    """Return what finds the places of ids, for which two bytes are enough in most vocabularies."""
    node = helper.make_node
    if places.max() >= LARGE:
        add(graph, named("places"), places[:, None])
        return [node("Gather", [named("places"), ids], [named("place")])]
    add(graph, named("places"), in_bytes(places.astype(np.uint16)).T)
    add(graph, named("counts_for"), np.asarray([[FIRST_BYTE], [1]], dtype=np.uint8))
    return [
        node("Gather", [named("places"), ids], [named("bytes_of_place")]),
        node("MatMulInteger", [named("bytes_of_place"), named("counts_for")], [named("place")]),
    ]


def _join_vectors(
    graph: onnx.GraphProto, ids: str, lengths: tuple[int, int], named: Named
) -> list[onnx.NodeProto]:
    """Return what makes rows of vectors, by a constant shape if the ids are a batch of texts."""
    ranks = {entry.name: len(entry.type.tensor_type.shape.dim) for entry in graph.input}
    filled, _ = lengths
    constant = [0, 0, filled] if ranks.get(ids) == 2 else [filled]  # 0 keeps what is there
    shape = add(graph, named("width"), np.asarray(constant, dtype=np.int64))
    if ranks.get(ids) == 2:
        return join(graph, named("numbers"), shape, named("rows"), lengths)
    return [
        helper.make_node("Shape", [ids], [named("counts")]),
        helper.make_node("Concat", [named("counts"), shape], [named("shape")], axis=0),
        *join(graph, named("numbers"), named("shape"), named("rows"), lengths),
    ]
