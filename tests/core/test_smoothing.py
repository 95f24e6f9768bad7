"""Smoothing: the same answers in fp32, and in 8 bits answers that single large channels do not spoil."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.smoothing import smooth
from tests.core.loud_file import LOUD, ROWS, answers, two_layers


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


def test_a_smoothed_fileanswers_as_before(tmp_path):
    file = two_layers(tmp_path / "model.onnx", loudness=30)
    even = _smoothed(file)
    np.testing.assert_allclose(answers(even), answers(file), rtol=1e-4, atol=1e-4)
    (factors,) = _factors(even)
    assert factors.argmin() == LOUD
    assert np.exp(np.log(factors).mean()) == pytest.approx(1, rel=1e-4)


def test_in_8_bits_a_loud_channel_costs_the_others_less(tmp_path):
    file = two_layers(tmp_path / "model.onnx", loudness=30)
    even, expected = _smoothed(file), answers(file)
    errors = []
    for fp32 in (file, even):
        small = fp32.with_stem(f"{fp32.stem}-8")
        quantize_dynamically(fp32, False, small)
        errors.append(float(np.square(answers(small) - expected).mean()))
    assert errors[1] < errors[0] / 2


def test_even_inputs_are_left_alone(tmp_path):
    assert not _factors(_smoothed(two_layers(tmp_path / "model.onnx", loudness=1)))


def test_inputs_that_others_read_are_left_alone(tmp_path):
    file = two_layers(tmp_path / "model.onnx", loudness=30, shared=True)
    assert not _factors(_smoothed(file))


def test_without_rows_nothing_is_evened_out(tmp_path):
    model = onnx.load(two_layers(tmp_path / "model.onnx", loudness=30))
    before = model.SerializeToString()
    smooth(model, [])
    assert model.SerializeToString() == before
