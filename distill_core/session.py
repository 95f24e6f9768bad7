"""Run an ONNX file with onnxruntime. Needs numpy and onnxruntime alone, as a consumer would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Int, Shaped

from distill_core.errors import BundleError

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def open_session(path: Path, threads: int = 0, exact: bool = True) -> onnxruntime.InferenceSession:
    """Load an ONNX file on the CPU.

    Args:
        path: the file.
        threads: for one operator; 0 takes all cores.
        exact: whether products of bytes are right on x86 without VNNI too, where onnxruntime else adds two
            of them in 16 saturating bits, which is faster. All other processors' are, so that what a file
            answers here is what it answers on its target (`session.x64quantprecision`,
            onnxruntime_session_options_config_keys.h). Where it cannot, products are not exact.

    Raises:
        BundleError: onnxruntime cannot load it.
    """
    try:
        return _open(path, threads, exact)
    except Exception as error:  # its exceptions share no base class but Exception
        raise BundleError(f"{path}: onnxruntime cannot load it: {error}") from None


def open_content(content: bytes) -> onnxruntime.InferenceSession:
    """Load on the CPU what an ONNX file would hold, such as one that was changed in memory."""
    return _open(content, threads=0, exact=True)


def _open(model: Path | bytes, threads: int, exact: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Warnings of its optimizer are not the user's to act on, and nor is why products are not exact.
    options.log_severity_level = 4 if exact else 3
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:
        if not exact:
            raise
        # On such a processor it cannot where several nodes share a matrix, as ALBERT's layers do (1.32.0).
        return _open(model, threads, exact=False)


def run_row(
    session: onnxruntime.InferenceSession, row: Mapping[str, Any]
) -> dict[str, Shaped[np.ndarray, "1 ..."]]:
    """Return the outputs of one row by name, run alone as a phone would.

    Dynamic quantization takes its scales from the whole batch, so answers in batches would be
    other answers than the user's.

    Args:
        session: a loaded file.
        row: the token ids and masks of one text, lists of whole numbers under the names of the
            file's inputs; what else it holds is not read.
    """
    names = [entry.name for entry in session.get_outputs()]
    answers = session.run(names, feed_row(session, row))
    return dict(zip(names, map(np.asarray, answers), strict=True))


def feed_row(
    session: onnxruntime.InferenceSession, row: Mapping[str, Any]
) -> dict[str, Int[np.ndarray, "1 ..."]]:
    """Return the inputs of a file, of the types that it reads, for a batch of one row."""
    return {
        entry.name: np.asarray([row[entry.name]], dtype=_DTYPES[entry.type])
        for entry in session.get_inputs()
    }
