"""Even out what goes into a matrix before it becomes 8 bits wide: all channels of it have one scale."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float, Int
from onnx import helper, numpy_helper

from distill_core.quantization.calibration import largest_inputs, thin
from distill_core.quantization.readers import count_readers

_SHARE = 0.75
"""Of the unevenness that the weights take over. Of a student of 3 x 384, KL from its fp32 file over 872
texts (answers that change): 0.00134 (9) not evened, 0.00375 (15) at 0.5, 0.00064 (4) at 0.75,
0.00063 (7) at 1; with 7-bit weights 0.00123 (10), 0.00075 (7) at 0.75, 0.00084 (8) at 0.9."""

_UNEVEN = 4.0
"""Times the usual channel that the largest one reaches: under it, a multiplication more brings too little.
Split channels reach no further."""

_MOST_PARTS = 1 / 32
"""Of an input's channels that are added by splitting. What needs more has many loud channels, or one so loud
that its parts would cost more than they save: a head's first token reaches 265 times the usual channel."""

_ROWS = 512
"""Texts that tell how far a channel reaches, as many as SmoothQuant's authors read (section 5.1). By 2,451
a student of 3 x 384 has a KL of 0.00073 over 3,000 texts, and of 0.00067 by 512 of them."""

_LEAST = 1e-5


@dataclass(frozen=True)
class _Uneven:
    """A product, its weights, how far each channel of its input reaches, and whether it alone reads that."""

    product: onnx.NodeProto
    weights: onnx.TensorProto
    reach: Float[np.ndarray, " inputs"]
    alone: bool

    @property
    def loudness(self) -> Float[np.ndarray, " inputs"]:
        """Times the usual channel."""
        return np.asarray(self.reach / max(float(np.median(self.reach)), _LEAST))


def smooth(model: onnx.ModelProto, rows: Sequence[Mapping[str, Any]]) -> None:
    """Divide the inputs of some matrices by a factor for each channel, and multiply the weights by it.

    s = max|X| ** a / max|W| ** (1 - a) for each channel of the inputs (SmoothQuant: Xiao et al. 2023,
    arXiv:2211.10438, equation 4), here with their geometric mean divided out.

    Args:
        model: an fp32 file, changed in place: matrices whose input no other matrix reads, and is uneven. In
            a BERT those are both of the feed-forward part.
        rows: training texts, token ids and masks; of none, nothing is evened out.
    """
    for uneven in _find_uneven(model, rows):
        _even_out(model.graph, uneven)


def split(model: onnx.ModelProto, rows: Sequence[Mapping[str, Any]]) -> None:
    """Let several channels stand for a loud one, each with its part of the value and the same weights.

    X[i] W[i] = sum of k times (X[i] / k) W[i], with k such that no part is louder than four usual channels
    (outlier channel splitting: Zhao et al. 2019, arXiv:1901.09504, section 3.1). No weight grows, as it would
    by smoothing, which codebooks of few vectors bear badly; the inputs are copied for it. Of a student of
    3 x 384 with its matrices packed, KL from its fp32 file over 4,000 texts: 0.00113, split 0.00057.

    Args:
        model: an fp32 file, changed in place: matrices whose input nobody else reads, and has a few loud
            channels. In a BERT, the second one of the feed-forward part.
        rows: training texts, token ids and masks; of none, nothing is split.
    """
    for uneven in _find_uneven(model, rows):
        parts = np.ceil(uneven.loudness / _UNEVEN).clip(1).astype(np.int64)
        if uneven.alone and (parts - 1).sum() <= _MOST_PARTS * len(parts):
            _split(model.graph, uneven, parts)


def _find_uneven(model: onnx.ModelProto, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Uneven]:
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [
        node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in arrays
    ]
    readers = count_readers(model.graph)
    multiplied = Counter(product.input[0] for product in products)
    # Weights that several products share would have to take over several inputs' unevenness.
    single = [p for p in products if multiplied[p.input[0]] == readers[p.input[1]] == 1]
    largest = largest_inputs(model, [p.input[0] for p in single], thin(rows, _ROWS))
    for product in single:
        left, right = product.input
        if left not in largest:
            continue
        uneven = _Uneven(product, arrays[right], largest[left], readers[left] == 1)
        if uneven.loudness.max() > _UNEVEN:
            yield uneven


def _even_out(graph: onnx.GraphProto, uneven: _Uneven) -> None:
    matrix = numpy_helper.to_array(uneven.weights)
    factors = _factors(uneven.reach, np.abs(matrix).max(axis=1))
    _scale_input(graph, uneven.product, 1 / factors, "smoothed")
    _replace(uneven.weights, matrix * factors[:, None])


def _factors(
    reach: Float[np.ndarray, " inputs"], weights: Float[np.ndarray, " inputs"]
) -> Float[np.ndarray, " inputs"]:
    logarithms = _SHARE * np.log(np.maximum(reach, _LEAST)) - (1 - _SHARE) * np.log(
        np.maximum(weights, _LEAST)
    )
    return np.asarray(np.exp(logarithms - logarithms.mean()), dtype=np.float32)


def _split(graph: onnx.GraphProto, uneven: _Uneven, parts: Int[np.ndarray, " inputs"]) -> None:
    more = np.repeat(np.arange(len(parts)), parts - 1)
    _scale_input(graph, uneven.product, np.asarray(1 / parts, dtype=np.float32), "parted")
    parted = uneven.product.input[0]
    loud, added, whole = (f"{parted}_{part}" for part in ("loud", "again", "whole"))
    graph.initializer.append(numpy_helper.from_array(more, loud))
    _put_before(
        graph,
        uneven.product,
        helper.make_node("Gather", [parted, loud], [added], axis=-1),
        helper.make_node("Concat", [parted, added], [whole], axis=-1),
    )
    matrix = numpy_helper.to_array(uneven.weights)
    _replace(uneven.weights, np.concatenate([matrix, matrix[more]]))


def _scale_input(
    graph: onnx.GraphProto,
    product: onnx.NodeProto,
    factors: Float[np.ndarray, " inputs"],
    become: str,
) -> None:
    left = product.input[0]
    named = numpy_helper.from_array(factors, f"{left}_factors")
    graph.initializer.append(named)
    scaled = f"{left}_{become}"
    _put_before(graph, product, helper.make_node("Mul", [left, named.name], [scaled]))


def _put_before(graph: onnx.GraphProto, product: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
    """Insert nodes in front of a product, which reads what the last one gives."""
    place = list(graph.node).index(product)
    for node in reversed(nodes):
        graph.node.insert(place, node)
    product.input[0] = nodes[-1].output[0]


def _replace(weights: onnx.TensorProto, matrix: Float[np.ndarray, "inputs channels"]) -> None:
    weights.CopyFrom(numpy_helper.from_array(matrix, weights.name))
