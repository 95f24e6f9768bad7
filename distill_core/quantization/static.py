"""8-bit weights and activations whose scales are in the file, found on training rows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from distill_core.quantization.calibration import thin
from distill_core.quantization.dynamic import activation_products
from distill_core.quantization.order import put_in_order
from distill_core.quantization.shapes import write_with_shapes
from distill_core.schemes import Scheme

_OPERATORS = ["MatMul", "Gemm", "Gather"]
"""All that holds weights."""

_METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}

_ROWS = 64
"""Of the calibration rows: a histogram of each activation of each row takes its time."""


def quantize_statically(
    model: Path, scheme: Scheme, rows: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Write the calibrated 8-bit twin of an ONNX file: operators between QuantizeLinear and DequantizeLinear.

    Entropy takes the range that keeps the distribution of an activation nearest in KL (Migacz 2017,
    "8-bit inference with TensorRT"); percentile that of 99.999% of its values; min-max all of it.

    Args:
        model: an fp32 ONNX file.
        scheme: its calibration and range.
        rows: training texts, token ids and masks.
        file: where it goes.
    """
    names = [entry.name for entry in onnx.load(model, load_external_data=False).graph.input]
    with TemporaryDirectory(dir=file.parent) as scratch:
        inferred = Path(scratch, model.name)
        write_with_shapes(model, inferred)
        quantize_static(
            inferred,
            file,
            _Rows(names, thin(rows, _ROWS)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            reduce_range=scheme.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=activation_products(model),
            calibrate_method=_METHODS[scheme.calibration],
            # One row at a time, whatever the method: a histogram of several asks for equal lengths.
            extra_options={"CalibStridedMinMax": 1},
        )
    put_in_order(file)


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """Training rows one at a time, as a phone reads them."""

    def __init__(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        self._names = names
        self._rows = rows
        self._left: Iterator[Mapping[str, Any]] = iter(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these rows out next."""
        self._left = iter(self._rows[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next row as inputs of the file; None after the last."""
        row = next(self._left, None)
        if row is None:
            return None
        return {name: np.asarray([row[name]], dtype=np.int64) for name in self._names}
