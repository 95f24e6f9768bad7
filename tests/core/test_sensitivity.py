"""How far answers move when sums are rounded otherwise."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.sensitivity import hold_steady, measure_movement

LABEL = SequenceClassification(("negative", "positive"))

ROW = {"input_ids": [1, 2], "attention_mask": [1, 1]}


def write_model(file: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    """Write a model whose logits are made of its token ids."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, 2])
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    cast = helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast, *nodes], "made", inputs, [logits], arrays)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file


def test_numbers_move_by_a_millionth_where_nothing_is_rounded_to_steps(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["ids", "scale"], ["logits"])]
    scale = np.array([0.5, 1000.0], np.float32)
    file = write_model(tmp_path / "model.onnx", nodes, {"scale": scale})
    (moved,) = measure_movement(file, LABEL, [ROW])
    assert 1e-5 < moved < 1e-2  # of 2 · 1000
    assert measure_movement(file, LABEL, [ROW]) == moved


def test_a_number_between_two_steps_moves_by_a_whole_step(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["ids", "scale"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["logits"]),
    ]
    scale = np.array([7.0, 5.0], np.float32)  # 7 and 10, on the edge
    file = write_model(tmp_path / "model.onnx", nodes, {"scale": scale})
    (moved,) = measure_movement(file, LABEL, [ROW])
    assert moved == 1


@pytest.mark.parametrize(
    ("moved", "tolerance", "unsteady"),
    [
        ([0.0] * 14, 0.1, []),
        ([0.051] + [0.01] * 13, 0.1, [0]),
        ([0.2] * 13 + [3.0], 0.4, [13]),
        ([0.0] * 12 + [0.3] * 2, 0.6, []),
        ([0.1234] * 10, 0.25, []),
    ],
)
def test_nine_of_ten_rows_are_held_to_twice_their_movement(
    moved: list[float], tolerance: float, unsteady: list[int]
) -> None:
    found, steady = hold_steady(np.array(moved), least=0.1)
    assert found == pytest.approx(tolerance)
    assert np.flatnonzero(~steady).tolist() == unsteady


@given(arrays(float, st.integers(1, 40), elements=st.floats(0, 10)), st.floats(0.01, 1))
def test_a_tolerance_is_never_less_than_the_least_and_holds_most(
    moved: np.ndarray, least: float
) -> None:
    tolerance, steady = hold_steady(moved, least)
    assert tolerance >= least
    assert steady.mean() >= 0.9 - 1 / len(moved)
