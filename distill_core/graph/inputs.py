"""Inputs of 32 bits, and shapes that are fixed."""

import onnx
from onnx import TensorProto

_INDICES = {"Gather": 1, "GatherElements": 1}
"""Operator → which of its inputs are indices, which may have 32 bits as well as 64."""


def take_int32(model: onnx.ModelProto) -> None:
    """Change a model's inputs of 64 bits to 32, with a Cast behind each, in place.

    What reads an input as indices alone reads it without the Cast: NNAPI takes such a Gather, and leaves one
    with indices of 64 bits to the CPU.
    """
    graph, casts = model.graph, []
    for entry in graph.input:
        if entry.type.tensor_type.elem_type != TensorProto.INT64:
            continue
        entry.type.tensor_type.elem_type = TensorProto.INT32
        wide = f"{entry.name}_int64"
        if _read_wide(graph, entry.name, wide):
            casts.append(
                onnx.helper.make_node(
                    "Cast", [entry.name], [wide], name=f"{wide}/Cast", to=TensorProto.INT64
                )
            )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _read_wide(graph: onnx.GraphProto, name: str, wide: str) -> bool:
    """Let what reads a tensor as numbers read another; tell whether anything does."""
    changed = False
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == name and _INDICES.get(node.op_type) != place:
                node.input[place], changed = wide, True
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                changed |= _read_wide(attribute.g, name, wide)
    return changed


def fix_length(model: onnx.ModelProto, length: int) -> None:
    """Fix a model's inputs to one text of so many tokens, and its outputs to what follows, in place."""
    # Here, since it imports torch, which takes seconds and which no bundle is verified with.
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

    for entry in list(model.graph.input):
        make_input_shape_fixed(model.graph, entry.name, [1, length])
    del model.graph.value_info[:]  # what was inferred for any length
    fix_output_shapes(model)
