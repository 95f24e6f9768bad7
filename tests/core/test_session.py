"""What a file answers on x86 without VNNI, where two products of bytes do not fit 16 bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill_core.session import open_session, run_row
from distill_core.verifiers import VERIFIERS, Asked, Question, ask, find_verifiers
from distill_core.verifiers.tools import this_machine

WIDTH, LARGEST_BYTE, LARGEST_WEIGHT = 64, 255, 127
ROW = {"input_ids": [1] * WIDTH, "attention_mask": [1] * WIDTH}
PRODUCT = WIDTH * LARGEST_BYTE * LARGEST_WEIGHT


@pytest.fixture
def loudest(tmp_path: Path) -> Path:
    """Write a file of one matrix of 8 bits, whose inputs and weights are as large as bytes can be."""
    weights = np.full((WIDTH, 8), LARGEST_WEIGHT, np.int8)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("DynamicQuantizeLinear", ["numbers"], ["bytes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", "weights", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "loudest",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.INT32, ["batch", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "loudest.onnx")
    return tmp_path / "loudest.onnx"


def test_products_do_not_saturate_whatever_the_processor(loudest: Path) -> None:
    assert (run_row(open_session(loudest), ROW)["logits"] == PRODUCT).all()
    answers = ask(VERIFIERS["native"], this_machine(), Asked(loudest), [Question(ROW, ("",))])
    assert (answers.outputs[0]["logits"] == PRODUCT).all()


@pytest.mark.integration
def test_they_do_where_a_place_without_vnni_is_asked(loudest: Path) -> None:
    places, _ = find_verifiers(["x86-64-no-vnni"])
    if not places:
        pytest.skip("no x86-64-no-vnni here: `make verifiers` brings what can be had")
    name, place = places.popitem()
    answers = ask(VERIFIERS[name], place, Asked(loudest), [Question(ROW, ("",))])
    assert (answers.outputs[0]["logits"] < PRODUCT).all()
