"""Smoothing: the same answers in fp32, and in 8 bits answers that single large channels do not spoil."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.smoothing import smooth
from distill_core.runtime import open_session, run_row

WIDTH, NEURONS, LOUD = 16, 64, 5
ROWS = [{"input_ids": [(7 * n + k) % 40 for k in range(12)]} for n in range(20)]


def _two_layers(path: Path, loudness: float, shared: bool = False) -> Path:
    """Write embeddings, two matrices with a ReLU between, one neuron louder than the others.

    Where its input is shared, the hidden layer is an output too, by way of a sum.
    """
    random = np.random.default_rng(0)
    first = random.normal(0, 0.3, (WIDTH, NEURONS)).astype(np.float32)
    second = random.normal(0, 0.3, (NEURONS, WIDTH)).astype(np.float32)
    first[:, LOUD] *= loudness
    second[LOUD] /= loudness
    arrays = {
        "words": random.normal(0, 1, (40, WIDTH)).astype(np.float32),
        "first": first,
        "second": second,
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "first"], ["wide"], "first_product"),
        helper.make_node("Relu", ["wide"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["product"], "second_product"),
    ]
    if shared:
        nodes.append(helper.make_node("ReduceMax", ["hidden"], ["most"], keepdims=1))
        nodes.append(helper.make_node("Add", ["product", "most"], ["logits"]))
    else:
        nodes.append(helper.make_node("Identity", ["product"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "two layers",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def _answers(path: Path) -> np.ndarray:
    session = open_session(path)
    return np.concatenate([run_row(session, row)["logits"] for row in ROWS])


def _smoothed(path: Path) -> Path:
    model = onnx.load(path)
    smooth(model, ROWS)
    onnx.save(model, path.with_stem("even"))
    return path.with_stem("even")


def _factors(path: Path) -> list[np.ndarray]:
    return [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.endswith("_smoothing")
    ]


def test_a_smoothed_file_answers_as_before(tmp_path):
    file = _two_layers(tmp_path / "model.onnx", loudness=30)
    even = _smoothed(file)
    np.testing.assert_allclose(_answers(even), _answers(file), rtol=1e-4, atol=1e-4)
    (factors,) = _factors(even)
    assert factors.argmin() == LOUD
    assert np.exp(np.log(factors).mean()) == pytest.approx(1, rel=1e-4)


def test_in_8_bits_a_loud_channel_costs_the_others_less(tmp_path):
    file = _two_layers(tmp_path / "model.onnx", loudness=30)
    even, expected = _smoothed(file), _answers(file)
    errors = []
    for fp32 in (file, even):
        small = fp32.with_stem(f"{fp32.stem}-8")
        quantize_dynamically(fp32, False, small)
        errors.append(float(np.square(_answers(small) - expected).mean()))
    assert errors[1] < errors[0] / 2


def test_even_inputs_are_left_alone(tmp_path):
    assert not _factors(_smoothed(_two_layers(tmp_path / "model.onnx", loudness=1)))


def test_inputs_that_others_read_are_left_alone(tmp_path):
    file = _two_layers(tmp_path / "model.onnx", loudness=30, shared=True)
    assert not _factors(_smoothed(file))


def test_without_rows_nothing_is_evened_out(tmp_path):
    model = onnx.load(_two_layers(tmp_path / "model.onnx", loudness=30))
    before = model.SerializeToString()
    smooth(model, [])
    assert model.SerializeToString() == before
