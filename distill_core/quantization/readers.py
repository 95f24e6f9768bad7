"""Who reads the tensors of a graph."""

from collections import Counter

import onnx


def count_readers(graph: onnx.GraphProto) -> Counter[str]:
    """Return how many times each tensor is an input of a node."""
    return Counter(name for node in graph.node for name in node.input)
