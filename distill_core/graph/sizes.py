"""Sizes that no text changes, written into a file, so that nothing computes them at each call."""

from collections.abc import Mapping

import numpy as np
import onnx
from jaxtyping import Int
from onnx import NodeProto

from distill_core.graph.probed import INSIDE, ProbedGraph, attribute

Sizes = Mapping[str, Int[np.ndarray, " axes"]]
"""Of each axis of a tensor, by its name; -1 of what is not known before a text comes."""


def settle_sizes(model: onnx.ModelProto) -> bool:
    """Put constants in the place of sizes that are read at run time, in place; tell whether there were any.

    Exporters let a graph ask a tensor for its sizes, a head's width as well as a text's length, and compute
    new shapes and attention's scale of them. onnxruntime fuses what it knows the shapes of: with constants
    it takes the scale into the product, for one.

    Args:
        model: an fp32 file with dynamic shapes.
    """
    graph, known = ProbedGraph(model), _known_sizes(model)
    settled = [
        _SETTLERS[node.op_type](graph, node, known)
        for node in list(model.graph.node)
        if node.op_type in _SETTLERS
    ]
    if any(settled):
        graph.clean({})
    return any(settled)


def _known_sizes(model: onnx.ModelProto) -> Sizes:
    """Return the sizes that follow from the file alone, whatever the texts."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    tensors = [entry for entry in graph.value_info if entry.type.tensor_type.HasField("shape")]
    return {
        entry.name: np.asarray(
            [
                size.dim_value if size.HasField("dim_value") else -1
                for size in entry.type.tensor_type.shape.dim
            ],
            dtype=np.int64,
        )
        for entry in tensors
    }


def _settle_reads(graph: ProbedGraph, shape: NodeProto, known: Sizes) -> bool:
    """Give constants to those who read sizes of a tensor that are known."""
    sizes = known.get(shape.input[0])
    if sizes is None or shape.attribute:  # of some axes alone
        return False
    settled = False
    for reader, _ in graph.readers[shape.output[0]]:
        picked = graph.picked(reader, sizes)
        users = graph.readers[reader.output[0]]
        if picked is None or (picked < 0).any() or any(place == INSIDE for _, place in users):
            continue
        constant = graph.add_constant(f"{reader.output[0]}_settled", picked)
        for user, place in users:
            user.input[place] = constant
        settled = True
    return settled


def _settle_reshape(graph: ProbedGraph, node: NodeProto, known: Sizes) -> bool:
    """Make the shape that a node gives a constant.

    An axis whose size depends on the texts is 0, which is the size of what is reshaped along the same axis,
    where both of the graph's runs have it so, and else -1, which is what is left of all numbers (ONNX,
    Reshape-14). Two runs prove little, but a Reshape neither loses numbers nor makes any: of one unknown size
    no 0 is wrong, of two none but where they change places.
    """
    old, new, sizes = (
        graph.dims(node.input[0]),
        graph.dims(node.output[0]),
        known.get(node.output[0]),
    )
    if old is None or new is None or sizes is None or attribute(node, "allowzero", 0):
        return False
    if node.input[1] in graph.constants:
        return False
    alike = [place < len(old) and old[place] == size for place, size in enumerate(new)]
    shape = np.where(sizes < 0, np.where(alike, 0, -1), sizes)
    if (shape == -1).sum() > 1:
        return False
    node.input[1] = graph.add_constant(f"{node.output[0]}_settled", shape)
    return True


_SETTLERS = {"Shape": _settle_reads, "Reshape": _settle_reshape}
"""Table: operator → what makes constants of what it reads or gives."""
