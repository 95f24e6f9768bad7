"""8-bit weights behind a layer's parts made one operator each, where a family's graph can be read so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model

from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.order import put_in_order
from distill_core.quantization.shapes import write_with_shapes
from distill_core.session import open_session, run_row

_OPERATORS = ["MatMul", "Gather", "Attention", "EmbedLayerNormalization"]
"""All that holds weights in a fused file; Gemm becomes MatMul before quantization."""

_TOLERANCE = 1e-3
"""Most by which an output may move: fused sums have another order, and Gelu and softmax other code."""

_CHECKED = 8
"""Rows; what is fused wrongly is wrong on the first."""


def quantize_fused(
    model: Path, reduce_range: bool, rows: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Write the 8-bit twin of an ONNX file with attention, norms and embeddings fused (QAttention and so on).

    A graph that onnxruntime's optimizer cannot read as a BERT's, or reads wrongly, is quantized as it is:
    then it is the file that the scheme 8 bits makes.

    Args:
        model: an fp32 ONNX file.
        reduce_range: 7-bit weights.
        rows: training texts, on which fused and plain file must answer alike.
        file: where it goes.
    """
    with TemporaryDirectory(dir=file.parent) as scratch:
        fused = Path(scratch, "fused.onnx")
        if not (_fuse(model, fused) and _answers_alike(model, fused, rows[:_CHECKED])):
            quantize_dynamically(model, reduce_range, file)
            return
        write_with_shapes(fused, fused)
        quantize_dynamic(
            fused,
            file,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                # Of tensors between fused operators, whose types shape inference does not know.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
    put_in_order(file)


def _fuse(model: Path, file: Path) -> bool:
    """Write the fused twin, and tell whether attention was found."""
    optimizer = optimize_model(str(model), model_type="bert", opt_level=0)
    optimizer.save_model_to_file(str(file))
    return bool(optimizer.get_fused_operator_statistics()["Attention"])


def _answers_alike(model: Path, fused: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    sessions = [open_session(path) for path in (model, fused)]
    return all(
        np.allclose(plain, other, atol=_TOLERANCE)
        for row in rows
        for plain, other in zip(
            *(run_row(session, row).values() for session in sessions), strict=True
        )
    )
