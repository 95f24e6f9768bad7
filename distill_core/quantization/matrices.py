"""Matrices of a file: which they are, what their codes are, and the nodes that unpack them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from jaxtyping import Float, Int8, UInt
from onnx import numpy_helper
from threadpoolctl import threadpool_limits

from distill_core.quantization.codebook import Codebook, channel_scales
from distill_core.quantization.lookup import add, in_bytes, join, look_up, put_for
from distill_core.quantization.rounding import Moments, round_matrix

_AT_ONCE = 4
"""Matrices that are rounded at the same time; one of 3,072 inputs takes 0.3 GB meanwhile."""


@dataclass(frozen=True)
class Matrix:
    """An 8-bit weight of a product, and the fp32 activation that it multiplies."""

    name: str
    scale_name: str
    activation: str
    numbers: Int8[np.ndarray, "inputs channels"]
    steps: Float[np.ndarray, " channels"]

    @property
    def weights(self) -> Float[np.ndarray, "inputs channels"]:
        """As the 8-bit file has them."""
        return np.asarray(self.numbers * self.steps, dtype=np.float32)

    def scales(self, largest: int) -> Float[np.ndarray, " channels"]:
        """Return what a step is worth in each channel, if a number may be as large as this."""
        return channel_scales(self.weights, largest)


@dataclass(frozen=True)
class CodedMatrix:
    """A matrix whose rows are vectors of a codebook."""

    matrix: Matrix
    codes: UInt[np.ndarray, "inputs vectors"]
    scales: Float[np.ndarray, " channels"]
    codebook: Codebook
    codebook_name: str

    @property
    def unpacked(self) -> Mapping[str, np.ndarray]:
        """What the 8-bit file would hold in the matrix's place, by the names of its initializers."""
        numbers = self.codebook.decode(self.codes)[:, : len(self.scales)]
        return {self.matrix.name: numbers, self.matrix.scale_name: self.scales}


def find_matrices(graph: onnx.GraphProto) -> list[Matrix]:
    """Return the weights of two axes in an 8-bit file that quantizes activations as they come."""
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = {
        node.output[0]: node for node in graph.node if node.op_type == "DynamicQuantizeLinear"
    }
    found = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger" or node.input[1] not in arrays:
            continue
        name = node.input[1]
        scale_name = f"{name.removesuffix('_quantized')}_scale"
        matrix = Matrix(
            name,
            scale_name,
            quantizers[node.input[0]].input[0],
            numpy_helper.to_array(arrays[name]),
            numpy_helper.to_array(arrays[scale_name]),
        )
        if matrix.numbers.ndim == 2:
            found[name] = matrix
    return list(found.values())


def code_matrices(
    matrices: Sequence[Matrix],
    largest: int,
    codebook: Codebook,
    codebook_name: str,
    moments: Mapping[str, Moments],
) -> list[CodedMatrix]:
    """Return the codes of matrices, rounded so that their products stay what they are.

    Args:
        matrices: of an 8-bit file at its full range.
        largest: whole number that an unpacked weight may have.
        codebook: what their rows are made of.
        codebook_name: of its initializer.
        moments: of the inputs, by the names of the activations.
    """

    def code(matrix: Matrix) -> CodedMatrix:
        scales = matrix.scales(largest)
        codes = round_matrix(matrix.weights, scales, codebook, moments[matrix.activation])
        return CodedMatrix(matrix, codes, scales, codebook, codebook_name)

    # A row waits for the row before it, a matrix for no other. BLAS with one thread adds up in the same
    # order on any number of cores, and leaves them to the other matrices.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(code, matrices))


def halve(graph: onnx.GraphProto, matrix: Matrix) -> None:
    """Bring a matrix that stays in 8 bits to 7, its steps being twice as large."""
    numbers = np.rint(matrix.numbers / 2).astype(np.int8)
    put_for(graph, matrix.name, numpy_helper.from_array(numbers, matrix.name))
    steps = np.asarray(2 * matrix.steps, dtype=matrix.steps.dtype)
    put_for(graph, matrix.scale_name, numpy_helper.from_array(steps, matrix.scale_name))


def unpack_matrix(graph: onnx.GraphProto, coded: CodedMatrix) -> None:
    """Put codes in the place of a matrix, and what turns them into its name.

    Args:
        graph: changed in place.
        coded: a matrix of it.
    """
    # In one row, whose two bytes are put together by a single product.
    matrix, codes = coded.matrix, in_bytes(coded.codes.reshape(-1))
    named = f"{matrix.name}_{{}}".format
    put_for(graph, matrix.scale_name, numpy_helper.from_array(coded.scales, matrix.scale_name))
    put_for(graph, matrix.name, numpy_helper.from_array(codes, named("codes")))
    inputs, channels = matrix.numbers.shape
    filled = coded.codes.shape[1] * coded.codebook.width
    shape = add(graph, named("shape"), np.asarray([inputs, filled], dtype=np.int64))
    nodes = [
        *look_up(coded.codebook_name, named("codes"), named("vectors"), codes.ndim == 2),
        *join(graph, named("vectors"), shape, matrix.name, (filled, channels)),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
