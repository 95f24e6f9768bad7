"""Embeddings of a file: which they are, and the nodes that unpack them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from distill_core.quantization.coded import CodedRows, Rows, find_rare
from distill_core.quantization.lookup import Store, add, join, look_up, put_for, widen
from distill_core.quantization.readers import count_readers
from distill_core.schemes import LEAST_PACKED
from distill_core.vocabulary import Ids

_RESHAPERS = {"Reshape", "Cast", "Flatten", "Squeeze", "Unsqueeze", "Identity"}

Named = Callable[[str], str]


@dataclass(frozen=True)
class Table:
    """8-bit embeddings, and what looks them up: a Gather, and the DequantizeLinear after it."""

    lookup: onnx.NodeProto
    widen: onnx.NodeProto
    rows: Rows
    coded: CodedRows | None
    """Codes that it stands on already."""


def find_tables(
    graph: onnx.GraphProto, used: Ids | None, words: CodedRows | None = None
) -> list[Table]:
    """Return the embeddings that are worth packing.

    Args:
        graph: of an 8-bit file.
        used: ids of the tokens that training texts use; None: of all.
        words: codes that word embeddings stand on already.
    """
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    readers = count_readers(graph)
    wideners = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for node in graph.node:
        widener = wideners.get(node.output[0])
        if node.op_type != "Gather" or node.input[0] not in arrays or widener is None:
            continue
        scale, zero = (numpy_helper.to_array(arrays[name]) for name in widener.input[1:])
        numbers = numpy_helper.to_array(arrays[node.input[0]])
        # A decoder that shares the table multiplies by it: that one stays.
        if readers[node.input[0]] == 1 and numbers.size >= LEAST_PACKED:
            weights = (numbers.astype(np.float32) - zero) * scale
            of_words = _origin(graph, node.input[1]) == "input_ids"
            rows = Rows(weights, find_rare(weights.shape, used if of_words else None))
            found.append(Table(node, widener, rows, words if of_words else None))
    return found


def _origin(graph: onnx.GraphProto, name: str) -> str:
    """Return the tensor that another one is a view of."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in _RESHAPERS:
        name = makers[name].input[0]
    return name


def unpack_table(
    graph: onnx.GraphProto,
    table: Table,
    coded: CodedRows,
    name: str,
    store: Store,
) -> None:
    """Put codes in the place of embeddings, and what unpacks the rows that a text looks up.

    Args:
        graph: changed in place.
        table: one of it.
        coded: its rows.
        name: of the initializer with their vectors.
        store: how codes are stored.
    """
    data, ids = table.lookup.input
    common = store(coded.common)
    put_for(graph, data, numpy_helper.from_array(common, f"{data}_codes"))
    add(graph, f"{data}_scales", coded.scales)
    named = f"{table.lookup.output[0]}_{{}}".format
    node = helper.make_node
    if coded.rare.any():
        add(graph, f"{data}_coarse_codes", coded.coarse)
        read = _read_both(graph, table, coded, name, store, named)
    else:
        read = [
            node("Gather", [f"{data}_codes", ids], [named("codes")]),
            *look_up(name, named("codes"), named("vectors"), common.ndim == 3),
        ]
    filled = common.shape[1] * coded.vectors.shape[1]
    nodes = [
        *read,
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


def _read_both(
    graph: onnx.GraphProto,
    table: Table,
    coded: CodedRows,
    codebook: str,
    store: Store,
    named: Named,
) -> list[onnx.NodeProto]:
    """Return what reads the vectors of rows of both kinds.

    Ids become places in an order that has the rare rows last. Each table of codes is read where its rows
    are, and anywhere (at its edge) else; the place says which of the two codes counts.
    """
    data, ids = table.lookup.input
    in_bytes = store(np.zeros(1, dtype=np.uint16)).ndim == 2
    count, rows = len(coded.common), len(coded.rare)
    places = np.empty(rows, dtype=np.uint16 if rows <= 65_536 else np.int32)
    places[np.argsort(coded.rare, kind="stable")] = np.arange(rows)
    stored = store(places)
    order = add(graph, f"{data}_order", stored)
    first_rare = add(graph, named("first_rare"), np.asarray(count, dtype=np.int32))
    last_common = add(graph, named("last_common"), np.asarray(count - 1, dtype=np.int32))
    zero = add(graph, named("zero"), np.asarray(0, dtype=np.int32))
    axis = add(graph, named("axis"), np.asarray([-1], dtype=np.int64))
    node = helper.make_node
    return [
        node("Gather", [order, ids], [named("place")]),
        *widen(named("place"), named("wide_place"), stored.ndim == 2),
        node("Min", [named("wide_place"), last_common], [named("common_row")]),
        node("Gather", [f"{data}_codes", named("common_row")], [named("common")]),
        *widen(named("common"), named("common_index"), in_bytes),
        node("Sub", [named("wide_place"), first_rare], [named("beyond")]),
        node("Max", [named("beyond"), zero], [named("rare_row")]),
        node("Gather", [f"{data}_coarse_codes", named("rare_row")], [named("coarse")]),
        *widen(named("coarse"), named("coarse_index"), False),
        node("Less", [named("wide_place"), first_rare], [named("is_common")]),
        node("Unsqueeze", [named("is_common"), axis], [named("of_row")]),
        node(
            "Where",
            [named("of_row"), named("common_index"), named("coarse_index")],
            [named("index")],
        ),
        node("Gather", [codebook, named("index")], [named("vectors")]),
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
