"""The order of a file's nodes: what is read is made before, within the branches of an If too."""

import random

import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from distill_core.quantization.order import put_in_order, sort_nodes


def branching(order: list[int]) -> onnx.ModelProto:
    """Return a file of a chain of nodes in some order; the last one's branches read the others."""
    floats = TensorProto.FLOAT
    chain = [helper.make_node("Neg", [f"x{n}"], [f"x{n + 1}"]) for n in range(len(order) - 1)]
    last = f"x{len(chain)}"
    branches = {
        name: helper.make_graph(
            [helper.make_node("Add", [last, read], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, floats, [2])],
        )
        for name, read in (("then_branch", "x0"), ("else_branch", last))
    }
    nodes = [*chain, helper.make_node("If", ["chosen"], ["y"], **branches)]
    graph = helper.make_graph(
        [nodes[place] for place in order],
        "branching",
        [
            helper.make_tensor_value_info("x0", floats, [2]),
            helper.make_tensor_value_info("chosen", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", floats, [2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@given(st.integers(2, 9).flatmap(lambda count: st.permutations(range(count))))
def test_nodes_in_any_order_are_sorted(order):
    model = branching(order)
    in_order = order == sorted(order)
    assert sort_nodes(model.graph) is not in_order
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == len(order)
    assert sort_nodes(model.graph) is False


def test_outputs_and_inputs_that_are_left_out_are_none_of_each_other():
    norms = [
        helper.make_node("LayerNormalization", [read, "scale", ""], [made, "", ""])
        for read, made in (("x1", "x2"), ("x0", "x1"))
    ]
    graph = helper.make_graph(norms, "norms", [], [])
    assert sort_nodes(graph)
    assert [node.output[0] for node in graph.node] == ["x1", "x2"]


def test_a_file_in_order_is_left_as_it_is(tmp_path):
    order = list(range(5))
    onnx.save(branching(order), tmp_path / "sorted.onnx")
    before = (tmp_path / "sorted.onnx").read_bytes()
    put_in_order(tmp_path / "sorted.onnx")
    assert (tmp_path / "sorted.onnx").read_bytes() == before
    random.Random(0).shuffle(order)
    onnx.save(branching(order), tmp_path / "mixed.onnx")
    put_in_order(tmp_path / "mixed.onnx")
    assert (tmp_path / "mixed.onnx").read_bytes() == before
