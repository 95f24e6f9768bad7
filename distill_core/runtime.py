"""Run an ONNX file with onnxruntime. Needs numpy and onnxruntime alone, as a consumer would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float, Int, Shaped

from distill_core.errors import BundleError
from distill_core.graph.table import ANSWERS, BY_TOKEN, OF_WHOLE_TEXTS
from distill_core.heads import Head

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load an ONNX file on the CPU.

    Args:
        path: the file.
        threads: for one operator; 0 takes all cores.

    Raises:
        BundleError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings of its optimizer are not the user's to act on
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but Exception
        raise BundleError(f"{path}: onnxruntime cannot load it: {error}") from None


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


def answer_row(
    session: onnxruntime.InferenceSession, head: Head, row: Mapping[str, Any]
) -> Float[np.ndarray, "..."]:
    """Return the logits of one row, run alone; of its tokens but padding, where each has some."""
    outputs, mask = _without_padding(head, run_row(session, row), row)
    return np.asarray(head.read_output(outputs, mask)[0])


def golden_row(
    session: onnxruntime.InferenceSession, head: Head, row: Mapping[str, Any]
) -> Shaped[np.ndarray, "..."]:
    """Return the numbers of one row's answer that an app must reproduce, whatever the file answers with."""
    return golden_numbers(run_row(session, row), head, row)


def golden_numbers(
    outputs: Mapping[str, Shaped[np.ndarray, "1 ..."]], head: Head, row: Mapping[str, Any]
) -> Shaped[np.ndarray, "..."]:
    """Return the same of the outputs of a file, by name, wherever they come from."""
    outputs, mask = _without_padding(head, outputs, row)
    for name in ANSWERS:
        if name in outputs:
            return np.asarray(outputs[name][0])
    return head.golden(np.asarray(head.read_output(outputs, mask)[0]))


def _without_padding(
    head: Head, outputs: Mapping[str, Shaped[np.ndarray, "1 ..."]], row: Mapping[str, Any]
) -> tuple[Mapping[str, Shaped[np.ndarray, "1 ..."]], Int[np.ndarray, "1 ..."]]:
    mask = np.asarray([row["attention_mask"]])
    if head.name not in BY_TOKEN:
        return outputs, mask
    tokens = int(mask.sum())
    cut = {
        name: numbers if name in OF_WHOLE_TEXTS else numbers[:, :tokens]
        for name, numbers in outputs.items()
    }
    return cut, mask[:, :tokens]
