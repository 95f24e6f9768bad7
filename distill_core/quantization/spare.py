"""Matrices whose weights a few bits are enough for, and those that are worth more of them.

A head that takes the first token alone reads one vector of a text, and so do the last layer's queries, what
follows its attention, and a pooler. Those vectors differ so little from text to text that rounding finds
numbers whose products with them hardly change, however coarse they are: of SST-2's student of 3 x 384, five
such matrices, 30 % of the weights, change its answers in 1.3 bits a weight by 2 to 4 % of what rounding all
to 2.7 bits does. The best of the others alone changes them by 15 %.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float

from distill_core.quantization.calibration import answers_to, thin
from distill_core.quantization.matrices import CodedMatrix
from distill_core.session import open_content

_SHARE = 0.2
"""Of what the rounding of all matrices changes, that coarse ones may change at most. Of SST-2's student the
five change 0.02 of it beside 2.7 bits and 0.16 beside 4 (seed 1; of seed 0 only four are within it there),
where words and activations change most."""

_ASKED = 48
"""Texts that tell which matrices are worth most: each is asked once for every matrix."""


def pick_coarse(
    model: onnx.ModelProto,
    rounded: Sequence[CodedMatrix],
    coarse: Sequence[CodedMatrix],
    rows: Sequence[Mapping[str, Any]],
) -> list[CodedMatrix]:
    """Return the coarse matrices that change a file's answers least, as many as change them hardly at all.

    Each is tried alone. Those that change outputs least come first, until their squared changes, added up,
    are a fifth of what all the rounded ones change.

    Args:
        model: the 8-bit file that they are of; it is not changed.
        rounded: all that are packed, in the bits of the file's scheme.
        coarse: some of them in fewer bits.
        rows: training texts, token ids and masks, that no matrix was rounded by.
    """
    tried = [*([entry] for entry in coarse), rounded]
    *alone, together = _measure_changes(model, rounded, tried, rows)
    order = np.argsort(alone, kind="stable")
    within = np.cumsum(np.asarray(alone)[order]) <= _SHARE * together
    return [coarse[place] for place in order[within]]


def pick_whole(
    model: onnx.ModelProto,
    packed: Sequence[CodedMatrix],
    rows: Sequence[Mapping[str, Any]],
    spare_bytes: int,
) -> set[str]:
    """Return the names of matrices that stay in 8 bits, as many as there is room for.

    Each is tried alone. Those come first that change outputs most for each byte that they save.

    Args:
        model: the 8-bit file that they are of; it is not changed.
        packed: all that could be in codes.
        rows: training texts, token ids and masks, that no matrix was rounded by; some are read.
        spare_bytes: what there is room for beside all of them in codes.
    """
    if spare_bytes <= 0:
        return set()
    tried = [[entry] for entry in packed]
    changes = _measure_changes(model, packed, tried, thin(rows, _ASKED))
    saved = [entry.matrix.numbers.nbytes - entry.codes.nbytes for entry in packed]
    whole = set()
    for place in np.argsort(-changes / np.asarray(saved), kind="stable"):
        if saved[place] <= spare_bytes:
            spare_bytes -= saved[place]
            whole.add(packed[place].matrix.name)
    return whole


def _measure_changes(
    model: onnx.ModelProto,
    named: Sequence[CodedMatrix],
    tried: Sequence[Sequence[CodedMatrix]],
    rows: Sequence[Mapping[str, Any]],
) -> Float[np.ndarray, " tried"]:
    """Return by how much outputs change, squared and added up, with some of these matrices in codes."""
    session = _open_for(model, named)
    usual = answers_to(session, rows)

    def change(matrices: Sequence[CodedMatrix]) -> float:
        other = {name: array for matrix in matrices for name, array in matrix.unpacked.items()}
        return float(np.square(answers_to(session, rows, other) - usual).sum())

    return np.asarray([change(matrices) for matrices in tried])


def _open_for(
    model: onnx.ModelProto, matrices: Sequence[CodedMatrix]
) -> onnxruntime.InferenceSession:
    """Return a session that takes other numbers for these matrices, if it is given some.

    An initializer that is an input too is the value where none is fed (ONNX, "Open Neural Network Exchange
    Intermediate Representation", graphs).
    """
    names = {name for m in matrices for name in (m.matrix.name, m.matrix.scale_name)}
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in opened.graph.initializer
        if tensor.name in names
    )
    return open_content(opened.SerializeToString())
