"""8-bit weights and activations, through optimum's quantizer."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnxruntime.quantization import QuantFormat, QuantizationMode, QuantType
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import QuantizationConfig
from transformers import PretrainedConfig

from distill_core.quantization.order import sort_nodes

_OPERATORS = ["MatMul", "Gather"]
"""All that holds weights: Gather reads the embeddings, Gemm becomes MatMul before quantization."""

_AS_MATMUL = "{}_MatMul"
"""Name of what a Gemm becomes."""


def quantize_dynamically(
    model: Path,
    reduce_range: bool,
    file: Path,
    kept: Sequence[str] = (),
    embeddings: bool = True,
) -> None:
    """Write the 8-bit twin of an ONNX file.

    Activations are quantized at run time (DynamicQuantizeLinear), so no calibration is needed.

    Args:
        model: an fp32 ONNX file.
        reduce_range: 7-bit weights.
        file: where it goes.
        kept: names of products that stay in fp32.
        embeddings: quantize them too; False leaves them in fp32.
    """
    configuration = QuantizationConfig(
        is_static=False,
        format=QuantFormat.QOperator,
        mode=QuantizationMode.IntegerOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        nodes_to_exclude=[*activation_products(model), *kept, *map(_AS_MATMUL.format, kept)],
        operators_to_quantize=_OPERATORS if embeddings else ["MatMul"],
    )
    with TemporaryDirectory(dir=file.parent) as scratch:
        # An empty configuration, since it warns where it finds none; the bundle has the real one.
        ORTQuantizer(model, PretrainedConfig()).quantize(configuration, scratch)
        Path(scratch, f"{model.stem}_quantized.onnx").replace(file)
    quantized = onnx.load(file)
    sort_nodes(quantized.graph)
    _quantize_tied_decoder(quantized)
    _keep_sums_from_norms(quantized)
    onnx.save(quantized, file)


def _keep_sums_from_norms(model: onnx.ModelProto) -> None:
    """Call a residual sum Sum, in place, which onnxruntime does not fuse with the norm behind it.

    It would fuse Add, and its SkipLayerNormalization goes through a vector number by number: for 24 vectors
    of 384 that took 68 µs, sum and norm apart 27 (onnxruntime 1.32, 1 thread, x86-64 with AVX512).
    """
    readers: dict[str, list[str]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node.op_type)
    for node in model.graph.node:
        if node.op_type == "Add" and "LayerNormalization" in readers[node.output[0]]:
            node.op_type = "Sum"


def _quantize_tied_decoder(model: onnx.ModelProto) -> None:
    """Let a decoder multiply by the 8-bit word embeddings, in place, if it shares its weights with them.

    The quantizer leaves it a MatMul in fp32 by the widened table, and onnxruntime widens that at every
    call: 3 layers of width 384 and 30,522 words took 31 ms for 16 tokens, in fp32 throughout 16.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    for multiply in [node for node in model.graph.node if node.op_type == "MatMul"]:
        transpose = makers.get(multiply.input[1])
        widen = makers.get(transpose.input[0]) if transpose else None
        if not (transpose and widen):
            continue
        if (widen.op_type, transpose.op_type) != ("DequantizeLinear", "Transpose"):
            continue
        # Which onnxruntime does once, when it loads the file. By a new name: the old one is of fp32.
        transpose.input[0], transpose.output[0] = widen.input[0], f"{widen.input[0]}_transposed"
        place = list(model.graph.node).index(multiply)
        for node in reversed(_integer_product(multiply, transpose.output[0], *widen.input[1:])):
            model.graph.node.insert(place, node)
        model.graph.node.remove(multiply)
        model.graph.node.remove(widen)


def _integer_product(
    multiply: onnx.NodeProto, weights: str, scale: str, zero: str
) -> list[onnx.NodeProto]:
    """Return what computes a MatMul with 8-bit weights, as the quantizer writes it elsewhere."""
    left = multiply.input[0]
    names = ("quantized", "left_scale", "left_zero", "sum", "sum_fp32", "scale")
    quantized, left_scale, left_zero, total, wide, both = (f"{left}_{name}" for name in names)
    node = onnx.helper.make_node
    return [
        node("DynamicQuantizeLinear", [left], [quantized, left_scale, left_zero]),
        node("MatMulInteger", [quantized, weights, left_zero, zero], [total]),
        node("Cast", [total], [wide], to=onnx.TensorProto.FLOAT),
        node("Mul", [left_scale, scale], [both]),
        node("Mul", [wide, both], list(multiply.output)),
    ]


def activation_products(model: Path) -> list[str]:
    """Return the names of the MatMuls that multiply two activations, as attention's do."""
    graph = onnx.load(model).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not weights.intersection(node.input)
    ]
