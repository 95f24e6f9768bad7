"""Turn an fp32 ONNX file into the small file of a scheme."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from datasets import Dataset

from distill_core.quantization.blocks import quantize_blocks, quantize_embeddings
from distill_core.quantization.calibration import CALIBRATION_ROWS
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.fusion import quantize_fused
from distill_core.quantization.half import halve
from distill_core.quantization.packing import pack
from distill_core.quantization.static import quantize_statically
from distill_core.schemes import Scheme, largest_weight

QUANTIZED_FILE = "model_quantized.onnx"


Rows = Sequence[Mapping[str, Any]]


def quantize(model: Path, scheme: Scheme, rows: Rows, folder: Path) -> Path:
    """Write the small twin of an ONNX file and return its path.

    Args:
        model: an fp32 ONNX file.
        scheme: how.
        rows: training texts, token ids and masks; read where weights are packed, activations calibrated
            or operators fused.
        folder: where `model_quantized.onnx` goes.
    """
    file = folder / QUANTIZED_FILE
    _MAKERS[scheme.stored](model, scheme, rows, file)
    return file


def _make_dynamic(model: Path, scheme: Scheme, rows: Rows, file: Path) -> None:
    quantize_dynamically(model, scheme.reduce_range, file, embeddings=not scheme.embedding_bits)
    if scheme.embedding_bits:
        draft = onnx.load(file)
        quantize_embeddings(draft, scheme.embedding_bits)
        onnx.save(draft, file)


def _make_packed(model: Path, scheme: Scheme, rows: Rows, file: Path) -> None:
    quantize_dynamically(model, False, file)
    draft = onnx.load(file)
    pack(draft, rows, largest_weight(scheme.reduce_range))
    onnx.save(draft, file)


_MAKERS: Mapping[str, Callable[[Path, Scheme, Rows, Path], None]] = {
    "8 bits": _make_dynamic,
    "codebook": _make_packed,
    "calibrated": quantize_statically,
    "fp16": halve,
    "blocks": quantize_blocks,
    "fused": quantize_fused,
}


def calibration_rows(train: Dataset) -> Dataset:
    """Return the training rows that schemes read, at even steps through them."""
    count = min(CALIBRATION_ROWS, len(train))
    return train.select(np.linspace(0, len(train) - 1, count).round().astype(int))
