"""What stays in fp32 is told by operator, with its weights."""

import onnx
from onnx import numpy_helper

from distill_core.footprint import fp32_left
from distill_core.quantization import quantize
from distill_core.schemes import INT8


def _megabytes(file):
    tensors = onnx.load(file).graph.initializer
    kept = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT]
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in kept) / 1e6


def test_of_an_fp32_file_it_is_all_weights(exported):
    left = {entry["operator"]: entry for entry in fp32_left(exported)}
    assert (
        left["MatMul"]["nodes"] == 4 * 6 + 4 * 2
    )  # six matrices a layer, and two products of activations
    assert abs(sum(entry["mb"] for entry in left.values()) - _megabytes(exported)) < 0.003


def test_of_a_quantized_file_it_is_attentions_products_and_what_is_small(exported, tmp_path):
    left = fp32_left(quantize(exported, INT8, [], tmp_path))
    products = next(entry for entry in left if entry["operator"] == "MatMul")
    assert products == {"operator": "MatMul", "nodes": 4 * 2, "mb": 0.0}
    assert sum(entry["mb"] for entry in left) < 0.05
    assert [entry["mb"] for entry in left] == sorted((e["mb"] for e in left), reverse=True)
