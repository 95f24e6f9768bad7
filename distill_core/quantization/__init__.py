"""Turn an fp32 ONNX file into the small file of a scheme."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from datasets import Dataset

from distill_core.quantization.calibration import CALIBRATION_ROWS
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.packing import pack
from distill_core.schemes import Scheme, largest_weight

QUANTIZED_FILE = "model_quantized.onnx"


def quantize(model: Path, scheme: Scheme, rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the small twin of an ONNX file and return its path.

    Args:
        model: an fp32 ONNX file.
        scheme: how.
        rows: training texts, token ids and masks; read where weights are packed.
        folder: where `model_quantized.onnx` goes.
    """
    file = folder / QUANTIZED_FILE
    packed = scheme.stored == "codebook"
    quantize_dynamically(model, scheme.reduce_range and not packed, file)
    if packed:
        draft = onnx.load(file)
        pack(draft, rows, largest_weight(scheme.reduce_range))
        onnx.save(draft, file)
    return file


def calibration_rows(train: Dataset) -> Dataset:
    """Return the training rows that are read where weights are packed, at even steps through them."""
    count = min(CALIBRATION_ROWS, len(train))
    return train.select(np.linspace(0, len(train) - 1, count).round().astype(int))
