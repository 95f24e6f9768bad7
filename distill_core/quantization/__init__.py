"""Turn an fp32 ONNX file into the small file of a scheme."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from datasets import Dataset

from distill_core.quantization.calibration import CALIBRATION_ROWS
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.packing import pack
from distill_core.quantization.smoothing import smooth
from distill_core.schemes import Scheme, largest_weight

QUANTIZED_FILE = "model_quantized.onnx"


def quantize(model: Path, scheme: Scheme, rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the small twin of an ONNX file and return its path.

    Args:
        model: an fp32 ONNX file.
        scheme: how.
        rows: training texts, token ids and masks.
        folder: where `model_quantized.onnx` goes.
    """
    file = folder / QUANTIZED_FILE
    if scheme.stored == "codebook":
        # Not smoothed: a loud row would widen the scales of all channels, where vectors are few.
        quantize_dynamically(model, False, file)
        draft = onnx.load(file)
        pack(draft, rows, largest_weight(scheme.reduce_range))
        onnx.save(draft, file)
        return file
    with TemporaryDirectory(dir=folder) as scratch:
        even = onnx.load(model)
        smooth(even, rows)
        onnx.save(even, Path(scratch, model.name))
        quantize_dynamically(Path(scratch, model.name), scheme.reduce_range, file)
    return file


def calibration_rows(train: Dataset) -> Dataset:
    """Return the training rows that are read to quantize, at even steps through them."""
    count = min(CALIBRATION_ROWS, len(train))
    return train.select(np.linspace(0, len(train) - 1, count).round().astype(int))
