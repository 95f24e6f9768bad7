"""What of a file stays in fp32, and what that costs."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

_PRODUCTS = ("MatMul", "Gemm")
"""Operators that are counted without weights too: products of two activations, as attention has them."""

_LEAST_MB = 0.001


def fp32_left(file: Path) -> list[dict[str, Any]]:
    """Return the operators of a file that compute products in fp32, or read fp32 weights.

    Args:
        file: an ONNX file.

    Returns:
        operator, nodes, and mb (10^6 bytes of the fp32 weights they read), the heaviest first. Weights of
        less than 1 kB in all, such as GELU's constants, are not there.
    """
    graph = onnx.load(file).graph
    sizes = {
        tensor.name: numpy_helper.to_array(tensor).nbytes / 1e6
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    nodes: defaultdict[str, int] = defaultdict(int)
    mb: defaultdict[str, float] = defaultdict(float)
    for node in graph.node:
        read = [name for name in node.input if name in sizes]
        if read or node.op_type in _PRODUCTS:
            nodes[node.op_type] += 1
        # Weights that several read are counted with the first.
        mb[node.op_type] += sum(sizes.pop(name) for name in dict.fromkeys(read))
    kept = [kind for kind in nodes if kind in _PRODUCTS or mb[kind] >= _LEAST_MB]
    ordered = sorted(kept, key=lambda kind: (-mb[kind], kind))
    return [{"operator": kind, "nodes": nodes[kind], "mb": round(mb[kind], 3)} for kind in ordered]
