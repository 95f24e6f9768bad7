"""Keep the matrices that 8 bits hurt most in fp32, as few of them as a limit asks for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float

from distill_core.quantization.calibration import answers_to, thin
from distill_core.quantization.dynamic import activation_products, quantize_dynamically
from distill_core.session import open_session

_ROWS = 32
"""Texts by whose answers matrices are told apart: one that hurts does so on every text."""

Within = Callable[[Path], bool]
"""Whether a file loses little enough."""


def keep_precision(
    model: Path, reduce_range: bool, rows: Sequence[Mapping[str, Any]], within: Within, file: Path
) -> list[str]:
    """Write a file whose most sensitive matrices stay in fp32: one, two, four…, until it loses little enough.

    Args:
        model: an fp32 ONNX file.
        reduce_range: 7-bit weights.
        rows: training texts, token ids and masks.
        within: judges a file.
        file: where it goes.

    Returns:
        Names of the products kept, the most sensitive first; none, and no file, where no such count of them
        was enough.
    """
    sensitive = rank_products(model, reduce_range, rows)
    count = 1
    while count < len(sensitive):
        kept = sensitive[:count]
        quantize_dynamically(model, reduce_range, file, kept)
        if within(file):
            return kept
        count *= 2
    file.unlink(missing_ok=True)
    return []


def rank_products(model: Path, reduce_range: bool, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the products with weights, first the one that changes the answers most in 8 bits.

    Each is quantized alone, and the squared difference of all outputs from the fp32 file's is summed.
    """
    products = _products(model)
    expected = _answers(model, rows)
    errors = []
    with TemporaryDirectory(dir=model.parent) as scratch:
        alone = Path(scratch, "alone.onnx")
        for name in products:
            others = [other for other in products if other != name]
            quantize_dynamically(model, reduce_range, alone, others)
            difference = _answers(alone, rows) - expected
            errors.append(float(np.square(difference).sum()))
    order = np.argsort(-np.asarray(errors), kind="stable")
    return [products[number] for number in order]


def _products(model: Path) -> list[str]:
    graph = onnx.load(model).graph
    without_weights = set(activation_products(model))
    return [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and node.name not in without_weights
    ]


def _answers(file: Path, rows: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, " numbers"]:
    return answers_to(open_session(file), thin(rows, _ROWS))
