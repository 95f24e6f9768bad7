"""Nodes of a graph in the order that ONNX asks for: what a node reads is made before it.

onnxruntime's quantizer sorts them by their own inputs, and not by what the branches of an If read from
outside, as DeBERTa's do. onnxruntime loads such a file, and ONNX's checker refuses it.
"""

from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import onnx


def put_in_order(file: Path) -> None:
    """Write an ONNX file anew, if a node of it stands before what it reads.

    Args:
        file: replaced, if need be.
    """
    model = onnx.load(file)
    if sort_nodes(model.graph):
        onnx.save(model, file)


def sort_nodes(graph: onnx.GraphProto) -> bool:
    """Sort the nodes of a graph in place, and tell whether they had to be.

    Also behind what is read within their branches and bodies (ONNX, "Open Neural Network Exchange
    Intermediate Representation", graphs: nodes are topologically sorted).
    """
    nodes = list(graph.node)
    # An output that is left out has no name.
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    before = {
        place: {makers[name] for name in _read_by(node) if name in makers}
        for place, node in enumerate(nodes)
    }
    if all(maker < place for place, those in before.items() for maker in those):
        return False
    ordered = [nodes[place] for place in TopologicalSorter(before).static_order()]
    del graph.node[:]
    graph.node.extend(ordered)
    return True


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read_by(inner)
