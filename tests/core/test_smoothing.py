"""Evening out: the same answers in fp32, and in 8 bits answers that single large channels do not spoil."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from distill_core.quantization import Evener
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.smoothing import smooth, split
from tests.core.loud_file import LOUD, NEURONS, ROWS, answers, two_layers

EVENERS = pytest.mark.parametrize("evener", [smooth, split])
LOUDNESS = 10
"""Of the loud neuron: three parts of it are no louder than four usual ones."""


def _evened(path: Path, evener: Evener = smooth) -> Path:
    model = onnx.load(path)
    evener(model, ROWS)
    onnx.save(model, path.with_stem("even"))
    return path.with_stem("even")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _factors(path: Path) -> list[np.ndarray]:
    return [array for name, array in _arrays(path).items() if name.endswith("_factors")]


@EVENERS
@pytest.mark.parametrize("shared", [False, True])
def test_a_file_answers_as_before(tmp_path, evener, shared):
    file = two_layers(tmp_path / "model.onnx", LOUDNESS, shared)
    even = _evened(file, evener)
    np.testing.assert_allclose(answers(even), answers(file), rtol=1e-4, atol=1e-4)


def test_the_loud_channel_has_the_smallest_factor(tmp_path):
    (factors,) = _factors(_evened(two_layers(tmp_path / "model.onnx", LOUDNESS)))
    assert factors.argmin() == LOUD
    assert np.exp(np.log(factors).mean()) == pytest.approx(1, rel=1e-4)


@EVENERS
def test_in_8_bits_a_loud_channel_costs_the_others_less(tmp_path, evener):
    file = two_layers(tmp_path / "model.onnx", LOUDNESS)
    even, expected = _evened(file, evener), answers(file)
    errors = []
    for fp32 in (file, even):
        small = fp32.with_stem(f"{fp32.stem}-8")
        quantize_dynamically(fp32, False, small)
        errors.append(float(np.square(answers(small) - expected).mean()))
    assert errors[1] < errors[0] / 2


def test_a_split_channel_is_there_several_times_with_the_same_weights(tmp_path):
    file = two_layers(tmp_path / "model.onnx", LOUDNESS)
    plain, even = _arrays(file), _arrays(_evened(file, split))
    (factors,) = _factors(_evened(file, split))
    parts = round(1 / factors[LOUD])
    assert parts == 3
    np.testing.assert_array_equal(np.delete(factors, LOUD), 1)
    np.testing.assert_array_equal(even["second"][:NEURONS], plain["second"])
    np.testing.assert_array_equal(even["second"][NEURONS:], plain["second"][[LOUD] * (parts - 1)])


def test_what_would_need_too_many_parts_is_not_split(tmp_path):
    assert not _factors(_evened(two_layers(tmp_path / "model.onnx", loudness=100), split))


@EVENERS
def test_even_inputs_are_left_alone(tmp_path, evener):
    assert not _factors(_evened(two_layers(tmp_path / "model.onnx", loudness=1), evener))


def test_inputs_that_are_not_multiplied_alone_are_smoothed_and_not_split(tmp_path):
    file = two_layers(tmp_path / "model.onnx", LOUDNESS, shared=True)
    assert _factors(_evened(file, smooth))
    assert not _factors(_evened(file, split))


@EVENERS
def test_inputs_of_two_matrices_are_left_alone(tmp_path, evener):
    file = two_layers(tmp_path / "model.onnx", LOUDNESS)
    model = onnx.load(file)
    other = numpy_helper.from_array(_arrays(file)["second"], "third")
    model.graph.initializer.append(other)
    model.graph.node.append(helper.make_node("MatMul", ["hidden", "third"], ["unused"]))
    onnx.save(model, file)
    assert not _factors(_evened(file, evener))


@EVENERS
def test_without_rows_nothing_is_evened_out(tmp_path, evener):
    model = onnx.load(two_layers(tmp_path / "model.onnx", LOUDNESS))
    before = model.SerializeToString()
    evener(model, [])
    assert model.SerializeToString() == before
