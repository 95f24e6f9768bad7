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
    return folder / QUANTIZED_FILE


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
    name = head.main_metric
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
