"""How far a file's answers move when sums are rounded otherwise, as other processors and runtimes do."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from jaxtyping import Bool, Float
from onnx import TensorProto, numpy_helper

from distill_core.heads import Head
from distill_core.runtime import golden_row
from distill_core.session import open_session

_SHAKEN_BY = 1e-6
"""Standard deviation of the change of a number, relative to it. A sum of 768 products in fp32 is off by some
2^-24 · √768, or 1.7e-6 of its terms (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section
4.2)."""

_DRAWS = 3


_STEADY = 0.9
"""Share of the texts whose numbers are to be held against what other places answer."""

_MARGIN = 2.0
"""Other places round otherwise still."""


def hold_steady(
    moved: Float[np.ndarray, " rows"], least: float
) -> tuple[float, Bool[np.ndarray, " rows"]]:
    """Return a tolerance for what other places answer, and which rows can be held to it.

    Args:
        moved: of each row, as `measure_movement` gives it.
        least: what is tolerated where little moves.

    Returns:
        That, or twice what nine of ten rows move, in whole hundredths, if it is more; and of each row whether
        twice its own movement is within it.
    """
    wanted = _MARGIN * np.quantile(moved, _STEADY, method="higher")
    tolerance = max(least, math.ceil(100 * wanted) / 100)
    return tolerance, _MARGIN * moved <= tolerance


def measure_movement(
    file: Path, head: Head, rows: Sequence[Mapping[str, Any]]
) -> Float[np.ndarray, " rows"]:
    """Return how far any golden number of each row moves, of a few files that are rounded otherwise.

    Where activations become 8 bits wide, a last digit decides between two steps, and layer by layer the
    steps become more. Norms, biases and scales of the file are changed by as much as sums in other orders
    are. Of students of 3 x 384 and 6 x 768, in six bundles, the largest movement of 25 texts (0.04 to
    0.55 of a logit) was 1.2 to 12 times the largest difference that arm64 (QEMU), node or the oldest
    runtimes showed (0.02 to 0.26).

    Args:
        file: that answers with logits.
        head: knows what of them is golden.
        rows: token ids and masks.
    """
    usual = _answers(file, head, rows)
    moved = np.zeros(len(rows))
    with TemporaryDirectory() as scratch:
        shaken = Path(scratch, "shaken.onnx")
        for draw in range(_DRAWS):
            _shake(file, shaken, draw)
            for number, found in enumerate(_answers(shaken, head, rows)):
                moved[number] = max(moved[number], np.abs(found - usual[number]).max())
    return moved


def _answers(
    file: Path, head: Head, rows: Sequence[Mapping[str, Any]]
) -> list[Float[np.ndarray, "..."]]:
    session = open_session(file)
    return [golden_row(session, head, row) for row in rows]


def _shake(source: Path, destination: Path, seed: int) -> None:
    """Write a file whose vectors of fp32 numbers are a little others."""
    generator = np.random.default_rng(seed)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 1:
            numbers = numpy_helper.to_array(tensor)
            factors = 1 + _SHAKEN_BY * generator.standard_normal(numbers.shape)
            changed = (numbers * factors).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, destination)
