"""A file as onnxruntime's quantizers want it: with the shapes of all its tensors."""

from pathlib import Path

import onnx
from onnxruntime.quantization.quant_utils import add_pre_process_metadata


def write_with_shapes(model: Path, file: Path) -> None:
    """Write a file again with the shapes of its tensors, and the mark that its quantizers look for.

    Without the mark they log warnings on the terminal; the optimizations that they advise are the
    exporter's and the runtime's here.

    Args:
        model: what is read.
        file: what is written; the same one, if wanted.
    """
    inferred = onnx.shape_inference.infer_shapes(onnx.load(model))
    add_pre_process_metadata(inferred)
    onnx.save(inferred, file)
