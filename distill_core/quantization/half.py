"""16-bit floating point throughout, behind inputs and outputs as they were."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from distill_core.schemes import Scheme

LARGEST = 32_752.0
"""Half of what fp16 holds (65,504): a mask of that size, added to any score that fp16 can hold half of, stays
finite. -3.4e38, which masks have in fp32, would be minus infinity, and a row of those is no number after
softmax."""


def halve(model: Path, scheme: Scheme, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the fp16 twin of an ONNX file.

    Args:
        model: an fp32 ONNX file.
        scheme: has nothing to say here.
        rows: not read.
        file: where it goes.
    """
    halved = convert_float_to_float16(onnx.load(model), max_finite_val=LARGEST, keep_io_types=True)
    onnx.save(halved, file)
