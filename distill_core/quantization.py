"""Turn an fp32 ONNX file into the 8-bit file of a target, through optimum's quantizer."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from datasets import Dataset
from jaxtyping import Float
from onnxruntime.quantization import QuantFormat, QuantizationMode, QuantType
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import QuantizationConfig

from distill_core.evaluation import agreement, file_logits, read_labels, score
from distill_core.files import file_digest
from distill_core.heads import Head
from distill_core.runtime import open_session
from distill_core.targets import Scheme

QUANTIZED_FILE = "model_quantized.onnx"

_OPERATORS = ["MatMul", "Gather"]
"""All that holds weights: Gather reads the embeddings, Gemm becomes MatMul before quantization."""


def quantize(model: Path, scheme: Scheme, folder: Path) -> Path:
    """Write the quantized twin of an ONNX file and return its path.

    Activations are quantized at run time (DynamicQuantizeLinear), so no calibration is needed.

    Args:
        model: an fp32 ONNX file.
        scheme: how.
        folder: where `model_quantized.onnx` goes.
    """
    skipped = activation_products(model) if scheme.constant_weights_only else []
    configuration = QuantizationConfig(
        is_static=False,
        format=QuantFormat.QOperator,
        mode=QuantizationMode.IntegerOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=QuantType.QInt8,
        per_channel=scheme.per_channel,
        reduce_range=scheme.reduce_range,
        nodes_to_exclude=skipped,
        operators_to_quantize=_OPERATORS,
    )
    with TemporaryDirectory(dir=folder) as scratch:
        ORTQuantizer(model).quantize(configuration, scratch)
        Path(scratch, f"{model.stem}_quantized.onnx").replace(folder / QUANTIZED_FILE)
    _quantize_tied_decoder(folder / QUANTIZED_FILE)
    return folder / QUANTIZED_FILE


def _quantize_tied_decoder(file: Path) -> None:
    """Let a decoder multiply by the 8-bit word embeddings, if it shares its weights with them.

    The quantizer leaves it a MatMul in fp32 by the widened table, and onnxruntime widens that at every
    call: 3 layers of width 384 and 30,522 words took 31 ms for 16 tokens, in fp32 throughout 16.
    """
    model = onnx.load(file)
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
        onnx.save(model, file)


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


def score_file(
    file: Path,
    scheme: Scheme,
    head: Head,
    rows: Dataset,
    teacher_logits: Float[np.ndarray, "units classes"],
    student_logits: Float[np.ndarray, "units classes"],
) -> dict[str, Any]:
    """Hold a quantized file against teacher and student, one row at a time as a phone runs it.

    Args:
        file: the quantized ONNX file.
        scheme: how it was made.
        head: knows the metrics.
        rows: tokenized rows that were never trained on.
        teacher_logits: of the same rows.
        student_logits: of the student in PyTorch.

    Returns:
        scheme, bytes, sha256, metrics, retention and agreement (with the teacher), drop of the
        main metric from the student, and the share of units that quantization answers otherwise.
    """
    answers, labels = file_logits(open_session(file), head, rows), read_labels(head, rows)
    metrics = score(head, answers, labels)
    name = head.main_metric_of(metrics)
    student = score(head, student_logits, labels)[name]
    teacher = score(head, teacher_logits, labels)[name]
    return {
        "scheme": scheme.name,
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
        "metrics": metrics,
        "retention": metrics[name] / max(teacher, 1e-12),
        "agreement": agreement(head, answers, teacher_logits),
        "drop": student - metrics[name],
        "flips": 1 - agreement(head, answers, student_logits),
    }
