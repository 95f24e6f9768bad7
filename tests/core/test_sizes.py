"""Sizes that no text changes are constants of a file, and only those."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from distill_core.graph.sizes import settle_sizes
from tests.core.exports import answers, kinds_at_run_time
from tests.core.family_models import GRAPHS

LENGTHS = (40, 57)
"""Tokens; BigBird's attention to blocks takes no fewer than the first."""


@pytest.mark.parametrize("family", GRAPHS)
def test_a_file_answers_as_before_to_texts_of_other_lengths(family: str, export_small: Any) -> None:
    model = export_small(family, "ForTokenClassification", "token-classification")
    before = onnx.ModelProto()
    before.CopyFrom(model)
    assert settle_sizes(model)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) < len(before.graph.node)
    for batch, length in zip((1, 3), LENGTHS, strict=True):
        ours, theirs = (answers(file, batch, length)[0] for file in (model, before))
        assert np.abs(ours - theirs).max() < 1e-5


def test_a_text_of_one_token_and_several_choices_are_answered_too(export_small: Any) -> None:
    model = export_small("bert", "ForMultipleChoice", "multiple-choice")
    before = onnx.ModelProto()
    before.CopyFrom(model)
    assert settle_sizes(model)
    for shape in ((1, 2, 1), (2, 4, 9)):
        ours, theirs = (answers(file, *shape)[0] for file in (model, before))
        assert np.allclose(ours, theirs, atol=1e-6)


def test_heads_have_constant_shapes_and_the_scale_goes_into_the_product(
    export_small: Any, tmp_path: Any
) -> None:
    model = export_small("bert", "ForTokenClassification", "token-classification")
    assert settle_sizes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    layers, of_heads = 4, 4  # queries, keys, values, and what attention gives
    shapes = [node.input[1] for node in model.graph.node if node.op_type == "Reshape"]
    assert sum(shape in constants for shape in shapes) >= layers * of_heads
    kinds = kinds_at_run_time(model, tmp_path)
    assert kinds["Sqrt"] == 0
    assert kinds["FusedMatMul"] == layers


def test_what_is_filled_up_to_whole_blocks_keeps_its_sizes() -> None:
    """Texts of 7 and of 11 tokens both fill one block of 16, which those of 17 do not."""
    model = _blocks_of(16)
    settle_sizes(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for length, blocks in ((5, 1), (16, 1), (17, 2), (40, 3)):
        ids = np.arange(2 * length, dtype=np.int64).reshape(2, length)
        (found,) = session.run(None, {"input_ids": ids})
        assert found.shape == (2, blocks, 16)
        assert (found.reshape(2, -1)[:, :length] == ids).all()


def _blocks_of(size: int) -> onnx.ModelProto:
    """Return a graph that fills texts up to whole blocks, and asks for the sizes of what it filled up."""
    constants = {"one": 1, "zero": 0, "size": size, "most": size - 1}
    node = helper.make_node
    nodes = [
        node("Shape", ["input_ids"], ["sizes"]),
        node("Gather", ["sizes", "one"], ["tokens"]),
        node("Add", ["tokens", "most"], ["more"]),
        node("Div", ["more", "size"], ["blocks"]),
        node("Mul", ["blocks", "size"], ["whole"]),
        node("Sub", ["whole", "tokens"], ["missing"]),
        node("Concat", ["zero", "zero", "zero", "missing"], ["places"], axis=0),
        node("Pad", ["input_ids", "places"], ["filled"]),
        node("Shape", ["filled"], ["filled_sizes"]),
        node("Gather", ["filled_sizes", "zero"], ["texts"]),
        node("Gather", ["filled_sizes", "one"], ["filled_tokens"]),
        node("Div", ["filled_tokens", "size"], ["count"]),
        node("Concat", ["texts", "count", "size"], ["shape"], axis=0),
        node("Reshape", ["filled", "shape"], ["in_blocks"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("in_blocks", TensorProto.INT64, None)],
        [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
