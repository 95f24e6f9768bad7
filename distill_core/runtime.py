"""What the outputs of an ONNX file say, as its head reads them: of one text at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float, Int, Shaped

from distill_core.graph.table import ANSWERS, BY_TOKEN, OF_WHOLE_TEXTS
from distill_core.heads import Head
from distill_core.session import run_row


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
