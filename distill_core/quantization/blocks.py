"""Weights of 8 or 4 bits with a scale for each block of a channel; what they multiply stays in fp32.

The operators are onnxruntime's own (com.microsoft): MatMulNBits and GatherBlockQuantized, described in its
ContribOperators.md. Its MatMulNBitsQuantizer, which writes them too, cannot be imported without the package
onnx-ir, so that its inner functions are called here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float, UInt8
from onnx import helper, numpy_helper
from onnxruntime.capi import _pybind_state as kernels
from onnxruntime.quantization.onnx_model import ONNXModel

from distill_core.quantization.readers import count_readers
from distill_core.schemes import Scheme

BLOCK = 32
"""Numbers that share a scale: the fewest that all of its kernels take."""

_ACCURACY_LEVEL = 4
"""Activations are quantized to 8 bits a block at run time, for integer products (ContribOperators.md)."""

_LEAST_IR = 10
"""Of a file with numbers of 4 bits (ONNX, "IR versions")."""

_QUANTIZERS = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}


def quantize_blocks(
    model: Path, scheme: Scheme, rows: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Write the twin of an ONNX file whose matrices are MatMulNBits.

    Args:
        model: an fp32 ONNX file.
        scheme: bits of weights and of embeddings.
        rows: not read.
        file: where it goes.
    """
    wrapped = ONNXModel(onnx.load(model))
    wrapped.replace_gemm_with_matmul()
    draft = wrapped.model
    for place, node, weights in _with_table(draft.graph, "MatMul", 1):
        replaced = _multiply(draft.graph, node, weights, scheme.weight_bits)
        draft.graph.node[place].CopyFrom(replaced)
    _finish(draft)
    if scheme.embedding_bits:
        quantize_embeddings(draft, scheme.embedding_bits)
    onnx.save(draft, file)


def quantize_embeddings(model: onnx.ModelProto, bits: int) -> None:
    """Make embeddings of a model, in place, blocks of whole numbers; one that is read otherwise too stays.

    Args:
        model: with its embeddings in fp32.
        bits: 4 or 8.
    """
    for place, node, table in _with_table(model.graph, "Gather", 0):
        if table.dtype == np.float32 and table.shape[1] % BLOCK == 0:
            model.graph.node[place].CopyFrom(_look_up(model.graph, node, table, bits))
    _finish(model)


def _with_table(
    graph: onnx.GraphProto, operator: str, which: int
) -> Iterator[tuple[int, onnx.NodeProto, Any]]:
    """Yield the nodes of a kind that alone read a constant of two axes: place, node, and its numbers.

    Args:
        graph: whose nodes may be replaced meanwhile, one for one.
        operator: the kind.
        which: of its inputs is the constant.
    """
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    readers = count_readers(graph)
    for place, node in enumerate(graph.node):
        if node.op_type != operator or node.input[which] not in arrays:
            continue
        numbers = numpy_helper.to_array(arrays[node.input[which]])
        if readers[node.input[which]] == 1 and numbers.ndim == 2:
            yield place, node, numbers


def _multiply(
    graph: onnx.GraphProto, node: onnx.NodeProto, weights: Float[np.ndarray, "k n"], bits: int
) -> onnx.NodeProto:
    """Return the MatMulNBits of a MatMul, its numbers put into the graph."""
    name, (inputs, channels) = node.input[1], weights.shape
    blocks = -(-inputs // BLOCK)
    padded = np.pad(weights, ((0, blocks * BLOCK - inputs), (0, 0)))
    packed = np.zeros((channels, blocks, BLOCK * bits // 8), dtype=np.uint8)
    scales = np.zeros((channels, blocks), dtype=np.float32)
    zeros = np.zeros((channels, -(-blocks * bits // 8)), dtype=np.uint8)
    _QUANTIZERS[bits](packed, padded, scales, zeros, BLOCK, channels, inputs, False)
    parts = {"packed": packed, "scales": scales.ravel(), "zeros": zeros.ravel()}
    for kind, array in parts.items():
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_{kind}"))
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *(f"{name}_{kind}" for kind in parts)],
        list(node.output),
        node.name,
        domain="com.microsoft",
        K=inputs,
        N=channels,
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_ACCURACY_LEVEL,
    )


def _look_up(
    graph: onnx.GraphProto, node: onnx.NodeProto, table: Float[np.ndarray, "rows width"], bits: int
) -> onnx.NodeProto:
    """Return the GatherBlockQuantized of a Gather, its numbers put into the graph."""
    name, (data, indices) = node.input[0], node.input
    blocks = table.reshape(len(table), -1, BLOCK)
    least, most = blocks.min(axis=2).clip(max=0), blocks.max(axis=2).clip(min=0)
    levels = 2**bits - 1
    scales = np.maximum((most - least) / levels, np.finfo(np.float32).tiny).astype(np.float32)
    zeros = np.round(-least / scales).clip(0, levels)
    numbers = np.round(blocks / scales[..., None] + zeros[..., None]).clip(0, levels)
    for kind, array in (("numbers", numbers.reshape(table.shape)), ("zeros", zeros)):
        graph.initializer.append(_whole(array.astype(np.uint8), f"{name}_{kind}", bits))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
    # Unknown to runtimes that know 4 bits alone.
    attributes: dict[str, Any] = {"bits": bits} if bits == 8 else {}
    return helper.make_node(
        "GatherBlockQuantized",
        [f"{data}_numbers", indices, f"{data}_scales", f"{data}_zeros"],
        list(node.output),
        node.name,
        domain="com.microsoft",
        gather_axis=0,
        quantize_axis=1,
        block_size=BLOCK,
        **attributes,
    )


def _whole(array: UInt8[np.ndarray, "rows columns"], name: str, bits: int) -> onnx.TensorProto:
    if bits == 8:
        return numpy_helper.from_array(array, name)
    flat = np.append(array.ravel(), np.zeros(array.size % 2, dtype=np.uint8))
    packed = flat[::2] | (flat[1::2] << 4)
    return helper.make_tensor(name, onnx.TensorProto.UINT4, array.shape, packed.tobytes(), raw=True)


def _finish(model: onnx.ModelProto) -> None:
    """Drop tensors that nothing reads, and name what the file now needs."""
    readers = count_readers(model.graph)
    kept = [tensor for tensor in model.graph.initializer if readers[tensor.name]]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if any(tensor.data_type == onnx.TensorProto.UINT4 for tensor in kept):
        model.ir_version = max(model.ir_version, _LEAST_IR)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
