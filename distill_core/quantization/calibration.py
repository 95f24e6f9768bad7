"""The texts that are read to quantize, and what goes into each matrix of a file when it reads them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from datasets import Dataset
from jaxtyping import Float

from distill_core.batches import row_lengths
from distill_core.quantization.rounding import Moments
from distill_core.session import feed_row, open_content

_TOKENS = 32_768
"""Of training rows that are read to quantize: ten for each of the 3,072 inputs of BERT-base's widest matrix.
With about one token for each (256 short texts), what GPTQ brings to other rows of a matrix fits those texts
alone: of a student of 6 x 768 with its matrices packed, 26 of 872 answers changed (KL 0.0197), and with
nine 15 (0.0101). GPTQ's authors read 262,144 tokens, for matrices of ten times as many inputs."""

_MOST_ROWS, _LEAST_ROWS = 4_096, 256
"""Of train, however short or long they are."""

_ROWS_AT_ONCE = 64

_JUDGED = 16
"""Of that many rows one is kept from the rounding: 153 of SST-2's 2,451."""


def calibration_rows(train: Dataset) -> Dataset:
    """Return the training rows that are read to quantize: enough tokens, at even steps through the rows.

    Args:
        train: tokenized rows.
    """
    mean = max(float(row_lengths(train).mean()), 1.0)
    return spread_rows(train, max(_LEAST_ROWS, math.ceil(_TOKENS / mean)))


def spread_rows(train: Dataset, count: int = _MOST_ROWS) -> Dataset:
    """Return some rows at even steps, or all where they are fewer, and never more than 4,096."""
    count = min(count, _MOST_ROWS, len(train))
    return train.select(np.linspace(0, len(train) - 1, count).round().astype(int))


def set_apart(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return most of these rows, to round by, and every sixteenth, to judge by what was rounded.

    Where there is one row alone, it serves for both.
    """
    judged = list(rows[::_JUDGED])
    return [row for place, row in enumerate(rows) if place % _JUDGED] or judged, judged


def thin(rows: Sequence[Mapping[str, Any]], count: int) -> Sequence[Mapping[str, Any]]:
    """Return so many of these rows at even steps, or all where they are fewer."""
    return rows[:: max(1, len(rows) // count)][:count]


def input_moments(
    model: onnx.ModelProto, tensors: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Moments]:
    """Return the moments of some tensors over the tokens of some texts.

    Args:
        model: a file; it is not changed.
        tensors: names of fp32 activations, their last axis the one that counts.
        rows: token ids and masks, read one at a time.
    """
    moments: dict[str, Moments] = {}
    for name, tokens in _read(model, tensors, rows):
        products = tokens.T @ tokens
        if name in moments:
            moments[name] += products
        else:
            moments[name] = products.astype(np.float64)
    return moments


def largest_inputs(
    model: onnx.ModelProto, tensors: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Float[np.ndarray, " channels"]]:
    """Return the largest absolute value of each channel of some tensors, over the tokens of some texts.

    Args:
        model: a file; it is not changed.
        tensors: names of fp32 activations, their last axis the one that counts.
        rows: token ids and masks, read one at a time.
    """
    largest: dict[str, Float[np.ndarray, " channels"]] = {}
    for name, tokens in _read(model, tensors, rows):
        largest[name] = np.maximum(largest.get(name, 0.0), np.abs(tokens).max(axis=0))
    return largest


def one_of_a_text(
    model: onnx.ModelProto, tensors: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> set[str]:
    """Return which of some tensors have one vector for a whole text, not one for each token.

    Args:
        model: a file; it is not changed.
        tensors: names of fp32 activations, their last axis the one that counts.
        rows: token ids and masks, of which the first is read, which has more than one token.
    """
    return {name for name, vectors in _read(model, tensors, rows[:1]) if len(vectors) == 1}


def answers_to(
    session: onnxruntime.InferenceSession,
    rows: Sequence[Mapping[str, Any]],
    other: Mapping[str, np.ndarray] | None = None,
) -> Float[np.ndarray, " numbers"]:
    """Return all numbers that a file answers to some texts, one after the other.

    Args:
        session: of the file.
        rows: token ids and masks, read one at a time.
        other: what is fed beside them, by name.
    """
    names = [output.name for output in session.get_outputs()]
    answers = [session.run(names, {**feed_row(session, row), **(other or {})}) for row in rows]
    return np.concatenate([np.ravel(value) for values in answers for value in values])


def _read(
    model: onnx.ModelProto, tensors: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Float[np.ndarray, "tokens channels"]]]:
    """Yield name and values of each tensor, again and again, for a few texts at once."""
    names = list(dict.fromkeys(tensors))
    if not names:
        return
    session = _showing(model, names)
    # A few rows at once: adding up matrices takes longer than the products of one row do.
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        answers = [
            session.run(names, feed_row(session, row))
            for row in rows[start : start + _ROWS_AT_ONCE]
        ]
        for name, values in zip(names, zip(*answers, strict=True), strict=True):
            yield name, np.concatenate([np.reshape(v, (-1, v.shape[-1])) for v in values])


def _showing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session whose file gives these tensors out."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = {output.name for output in shown.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in there
    )
    return open_content(shown.SerializeToString())
