"""Mixed precision: what 8 bits hurt most stays in fp32, and no more than it takes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from distill_core.quantization import QUANTIZED_FILE, quantize, quantize_in_part
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.mixed import keep_precision, rank_products
from distill_core.schemes import INT8
from tests.core.loud_file import ROWS, answers, two_layers


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """Two matrices, the second one with an input that 8 bits do not suit."""
    return two_layers(tmp_path / "model.onnx", loudness=100)


def _error(file: Path, model: Path) -> float:
    return float(np.square(answers(file) - answers(model)).mean())


def _kinds(file: Path) -> dict[str, str]:
    return {node.name: node.op_type for node in onnx.load(file).graph.node}


def test_the_matrix_that_hurts_most_comes_first(loud):
    assert rank_products(loud, False, ROWS) == ["second_product", "first_product"]


def test_one_matrix_is_kept_where_one_is_enough(loud, tmp_path):
    whole, file = tmp_path / "whole.onnx", tmp_path / "mixed.onnx"
    quantize_dynamically(loud, False, whole)
    limit = _error(whole, loud) / 4
    kept = keep_precision(loud, False, ROWS, lambda made: _error(made, loud) <= limit, file)
    assert kept == ["second_product"]
    assert _error(file, loud) <= limit
    assert _kinds(file)["second_product"] == "MatMul"
    assert "first_product" not in _kinds(file)


def test_nothing_is_left_where_nothing_helps(loud, tmp_path):
    file = tmp_path / "mixed.onnx"
    assert keep_precision(loud, False, ROWS, lambda made: False, file) == []
    assert not file.exists()


def test_every_product_can_be_kept(exported, rows, tmp_path):
    """The classifier's too, a Gemm that the quantizer renames."""
    names, file = rank_products(exported, False, rows["train"].to_list()[:8]), tmp_path / "one.onnx"
    assert len(names) == 4 * 6 + 2
    for name in names:
        quantize_dynamically(exported, False, file, [name])
        assert list(_kinds(file).values()).count("MatMulInteger") == len(names) - 1


def test_a_file_in_part_takes_the_place_of_the_whole_one(loud, tmp_path):
    file = quantize(loud, INT8, ROWS, tmp_path)
    limit = _error(file, loud) * 0.9
    kept = quantize_in_part(loud, INT8, ROWS, lambda made: _error(made, loud) <= limit, tmp_path)
    assert len(kept) == 1
    assert _error(tmp_path / QUANTIZED_FILE, loud) <= limit
