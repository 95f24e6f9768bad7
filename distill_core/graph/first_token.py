"""Leave out of a file what its head does not read: behind the last attention, all tokens but the first."""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import onnx
from onnx import NodeProto

from distill_core.graph.probed import INSIDE, ProbedGraph, attribute


def keep_first_token(model: onnx.ModelProto) -> bool:
    """Compute for the first token alone what is read of no other, in place; tell whether there was any.

    A classifier of texts reads the last layer's first token (Devlin et al. 2019, arXiv:1810.04805, section
    3: the final hidden state of [CLS]). So of that layer keys and values are needed of all tokens, but
    queries and the feed-forward part of one: of the 12 h² weights of a layer of width h, ten are multiplied
    by one vector instead of one a token. The answers are the same but for the order of sums.

    Args:
        model: an fp32 file with dynamic shapes, as the exporter leaves it.
    """
    graph = ProbedGraph(model)
    if not any(map(graph.takes_first_token, model.graph.node)):
        return False
    narrowed = _narrowed(graph)
    for node in list(model.graph.node):
        if node.output[0] in narrowed:
            _narrow(graph, node, narrowed)
    if narrowed:
        graph.clean(narrowed)
    return bool(narrowed)


def _narrowed(graph: ProbedGraph) -> dict[str, int]:
    """Return the tensors of which one entry is read alone, and along which axis."""
    found: dict[str, int] = {}
    for node in reversed(graph.proto.node):
        readers = [reader for name in node.output for reader in graph.readers[name]]
        wanted = {_wanted(graph, found, *reader) for reader in readers} - {_NOTHING}
        if graph.outputs.intersection(node.output) or len(wanted) != 1:
            continue
        (axis,) = wanted
        if axis is not None and _inputs_along(graph, node, axis) is not None:
            found |= dict.fromkeys(node.output, axis)
    return found


_NOTHING = -1
"""The axis of a reader that is served by constants, or no longer read itself."""


def _wanted(
    graph: ProbedGraph, narrowed: Mapping[str, int], reader: NodeProto, place: int
) -> int | None:
    """Return the axis along which a reader reads the first entry alone; None if it reads all."""
    if graph.takes_first_token(reader):
        return 1 if place == 0 and len(graph.dims(reader.input[0]) or ()) == _HIDDEN else None
    if reader.op_type == "Shape":
        return None if _fixed_sizes(graph, reader, narrowed) is None else _NOTHING
    axis = narrowed.get(reader.output[0])
    return None if axis is None else (_inputs_along(graph, reader, axis) or {}).get(place)


_HIDDEN = 3
"""Axes of hidden states: texts, tokens, numbers."""


def _narrow(graph: ProbedGraph, node: NodeProto, narrowed: Mapping[str, int]) -> None:
    """Let a node compute the first entries of its outputs alone."""
    axis = narrowed[node.output[0]]
    for name in node.output:
        _fix_sizes(graph, name, narrowed)
    for place, along in (_inputs_along(graph, node, axis) or {}).items():
        if node.input[place] not in narrowed:
            node.input[place] = graph.first_of(node.input[place], along)
    if node.op_type == "Reshape":
        shape = np.asarray(_new_shape(graph, node, axis))
        node.input[1] = graph.add_constant(f"{node.output[0]}_shape", shape)


def _fix_sizes(graph: ProbedGraph, tensor: str, narrowed: Mapping[str, int]) -> None:
    """Put constants in the place of what is read of a tensor's sizes."""
    for shape, _ in graph.readers[tensor]:
        sizes = _fixed_sizes(graph, shape, narrowed) if shape.op_type == "Shape" else None
        for name, value in (sizes or {}).items():
            constant = graph.add_constant(f"{name}_fixed", value)
            for user, place in graph.readers[name]:
                user.input[place] = constant


def _fixed_sizes(
    graph: ProbedGraph, shape: NodeProto, narrowed: Mapping[str, int]
) -> dict[str, np.ndarray] | None:
    """Return what is read of a tensor's sizes, by name; None where some of it depends on the texts."""
    dims, found = graph.dims(shape.input[0]), {}
    if shape.attribute:  # of some axes alone
        return None
    for reader, _ in graph.readers[shape.output[0]]:
        if _shapes_what_is_narrowed(graph, reader, narrowed):
            continue
        inside = any(place == INSIDE for _, place in graph.readers[reader.output[0]])
        picked = None if dims is None or inside else graph.picked(reader, np.asarray(dims))
        if picked is None or (picked[..., 0] != picked[..., 1]).any():
            return None
        found[reader.output[0]] = picked[..., 0]
    return found


def _shapes_what_is_narrowed(
    graph: ProbedGraph, node: NodeProto, narrowed: Mapping[str, int]
) -> bool:
    """Tell whether sizes end in the shapes of such tensors alone, which become constants."""
    if node.op_type not in ("Gather", "Slice", "Unsqueeze", "Concat", "Cast"):
        return False
    readers = graph.readers[node.output[0]]
    return all(
        (reader.op_type == "Reshape" and place == 1 and reader.output[0] in narrowed)
        or _shapes_what_is_narrowed(graph, reader, narrowed)
        for reader, place in readers
    )


Along = dict[int, int]
"""Place of an input → the axis along which its first entry is enough; other inputs are read as they are."""


def _inputs_along(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    """Return what a node reads of its inputs for the first entry of its output; None if that is not known."""
    rule = _RULES.get(node.op_type)
    return rule(graph, node, axis) if rule else None


def _of_numbers(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    """Every number of the output comes of those in the same place."""
    all_dims = [graph.dims(name) for name in (*node.input, node.output[0])]
    if None in all_dims:
        return None
    *inputs, output = (dims or () for dims in all_dims)
    places = {place: axis - len(output) + len(dims) for place, dims in enumerate(inputs)}
    return {n: own for n, own in places.items() if own >= 0 and inputs[n][own] != (1, 1)}


def _of_last_axis(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    """Vectors along the last axis become others, each on its own."""
    rank = len(graph.dims(node.output[0]) or ())
    over = attribute(node, "axis", -1)
    return {0: axis} if over in (-1, rank - 1) and axis < rank - 1 else None


def _of_mean(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    axes, rank = graph.constants.get(node.input[-1]), len(graph.dims(node.output[0]) or ())
    over_last = axes is not None and axes.tolist() in ([-1], [rank - 1])
    return {0: axis} if over_last and attribute(node, "keepdims", 1) and axis < rank - 1 else None


def _of_slice(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    rank = len(graph.dims(node.output[0]) or ())
    axes = graph.constants.get(next(iter(node.input[3:4]), ""))
    return None if axes is None or {axis, axis - rank} & set(axes.tolist()) else {0: axis}


def _of_split(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    rank = len(graph.dims(node.output[0]) or ())
    return None if attribute(node, "axis", 0) in (axis, axis - rank) else {0: axis}


def _of_product(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    """Rows of the output come of the left factor's rows."""
    left, output = (len(graph.dims(name) or ()) for name in (node.input[0], node.output[0]))
    return {0: axis} if left == output and axis == output - 2 else None


def _of_transpose(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    order = attribute(node, "perm", None)
    return None if order is None else {0: order[axis]}


def _of_reshape(graph: ProbedGraph, node: NodeProto, axis: int) -> Along | None:
    """An axis stays one where as many numbers stand before it as before."""
    old, new = (graph.dims(name) for name in (node.input[0], node.output[0]))
    if old is None or new is None or _new_shape(graph, node, axis) is None:
        return None
    before = _numbers(new[:axis])
    kept = [n for n, size in enumerate(old) if size == new[axis] and _numbers(old[:n]) == before]
    return {0: kept[0]} if kept else None


def _numbers(dims: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    return prod(size[0] for size in dims), prod(size[1] for size in dims)


def _new_shape(graph: ProbedGraph, node: NodeProto, axis: int) -> list[int] | None:
    """Return the shape a node gives, one long along an axis; None where two sizes depend on the texts."""
    sizes = graph.dims(node.output[0]) or ()
    shape = [first if first == second else -1 for first, second in sizes]
    shape[axis] = 1
    return shape if shape.count(-1) <= 1 else None


_RULES: Mapping[str, Callable[[ProbedGraph, NodeProto, int], Along | None]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Cast"), _of_numbers),
    **dict.fromkeys(("Erf", "Tanh", "Sigmoid", "Relu", "Gelu"), _of_numbers),
    **dict.fromkeys(("LayerNormalization", "Softmax"), _of_last_axis),
    "ReduceMean": _of_mean,
    "Slice": _of_slice,
    "Split": _of_split,
    "MatMul": _of_product,
    "Transpose": _of_transpose,
    "Reshape": _of_reshape,
}
"""Table: operator → what it reads for the first entry of its output."""
