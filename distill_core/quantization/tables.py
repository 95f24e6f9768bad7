"""Embeddings as codes: those of tokens that the training texts use in 16 bits, the others' in 8.

Most of a vocabulary is never met in one domain: of BERT's 30,522 tokens the 67,349 training texts of SST-2
use 11,572. A row that is read once in a hundred texts may be coarser than one that is read in each. Of a
student of 3 x 384, its vectors of four weights, that takes 1.7 of 9.3 MB; KL from its fp32 file over 872
texts went from 0.0029 to 0.0031.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from jaxtyping import Bool, Float
from onnx import helper, numpy_helper

from distill_core.quantization.codebook import Codebook, channel_scales
from distill_core.quantization.lookup import Store, add, join, look_up, put_for, widen
from distill_core.quantization.readers import count_readers
from distill_core.vocabulary import Ids

_LEAST = 500_000
"""Numbers of a table, which is unpacked at each call: positions of 512 x 384 would save 98 kB, and take as
long as the words do. The same goes for rows that are to be coarser."""

_RESHAPERS = {"Reshape", "Cast", "Flatten", "Squeeze", "Unsqueeze", "Identity"}

Named = Callable[[str], str]


@dataclass(frozen=True)
class Table:
    """8-bit embeddings, and what looks them up: a Gather, and the DequantizeLinear after it."""

    lookup: onnx.NodeProto
    widen: onnx.NodeProto
    weights: Float[np.ndarray, "rows channels"]
    rare: Bool[np.ndarray, " rows"]
    """Of which tokens no training text makes use; none, where that is not known or would save too little."""

    def whole(self) -> "Table":
        """Return it with no row rare."""
        return replace(self, rare=np.zeros_like(self.rare))

    def numbers(self, largest: int) -> Float[np.ndarray, "rows channels"]:
        """Return the weights / the scales of their rows."""
        return np.asarray(self.weights / self.scales(largest).astype(np.float32))

    def scales(self, largest: int) -> Float[np.ndarray, "rows 1"]:
        """Return what a step of the 8-bit numbers is worth in each row."""
        scales = channel_scales(self.weights.T, largest)[:, None]
        # A row of zeros, as padding's often is, would have none.
        least = np.finfo(np.float16).smallest_subnormal
        return np.asarray(np.maximum(scales, least), dtype=np.float16)


def find_tables(graph: onnx.GraphProto, used: Ids | None) -> list[Table]:
    """Return the embeddings that are worth packing.

    Args:
        graph: of an 8-bit file.
        used: ids of the tokens that training texts use; None: of all.
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
        if readers[node.input[0]] == 1 and numbers.size >= _LEAST:
            weights = (numbers.astype(np.float32) - zero) * scale
            of_words = _origin(graph, node.input[1]) == "input_ids"
            rare = _rare_rows(weights.shape, used if of_words else None)
            found.append(Table(node, widener, weights, rare))
    return found


def _origin(graph: onnx.GraphProto, name: str) -> str:
    """Return the tensor that another one is a view of."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in _RESHAPERS:
        name = makers[name].input[0]
    return name


def _rare_rows(shape: tuple[int, int], used: Ids | None) -> Bool[np.ndarray, " rows"]:
    none = np.zeros(shape[0], dtype=bool)
    if used is None:
        return none
    rare = ~np.isin(np.arange(shape[0]), used)
    worth_it = rare.sum() * shape[1] >= _LEAST and not rare.all()
    return rare if worth_it else none


def unpack_table(
    graph: onnx.GraphProto,
    table: Table,
    codebooks: tuple[Codebook, Codebook],
    name: str,
    store: Store,
    largest: int,
) -> None:
    """Put codes in the place of embeddings, and what unpacks the rows that a text looks up.

    Args:
        graph: changed in place.
        table: one of it.
        codebooks: the whole one, and the beginning of it for rare rows.
        name: of its initializer.
        store: how codes are stored.
        largest: whole number that an unpacked weight may have.
    """
    data, ids = table.lookup.input
    channels = table.weights.shape[1]
    scales, numbers = table.scales(largest), table.numbers(largest)
    common = store(codebooks[0].encode(numbers[~table.rare]))
    put_for(graph, data, numpy_helper.from_array(common, f"{data}_codes"))
    add(graph, f"{data}_scales", scales)
    named = f"{table.lookup.output[0]}_{{}}".format
    node = helper.make_node
    if table.rare.any():
        rare = codebooks[1].encode(numbers[table.rare])
        add(graph, f"{data}_coarse_codes", rare)
        read = _read_both(graph, table, name, store, named)
    else:
        read = [
            node("Gather", [f"{data}_codes", ids], [named("codes")]),
            *look_up(name, named("codes"), named("vectors"), common.ndim == 3),
        ]
    nodes = [
        *read,
        node("Cast", [named("vectors")], [named("numbers")], to=onnx.TensorProto.FLOAT),
        *_join_vectors(graph, ids, (common.shape[1] * codebooks[0].width, channels), named),
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
    graph: onnx.GraphProto, table: Table, codebook: str, store: Store, named: Named
) -> list[onnx.NodeProto]:
    """Return what reads the vectors of rows of both kinds.

    Ids become places in an order that has the rare rows last. Each table of codes is read where its rows
    are, and anywhere (at its edge) else; the place says which of the two codes counts.
    """
    data, ids = table.lookup.input
    in_bytes = store(np.zeros(1, dtype=np.uint16)).ndim == 2
    count = int((~table.rare).sum())
    places = np.empty(len(table.rare), dtype=np.uint16 if len(table.rare) <= 65_536 else np.int32)
    places[np.argsort(table.rare, kind="stable")] = np.arange(len(table.rare))
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
