"""An ONNX file with one neuron that is louder than the others, and texts for it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from distill_core.session import open_session, run_row

WIDTH, NEURONS, LOUD = 16, 64, 5
ROWS = [{"input_ids": [(7 * n + k) % 40 for k in range(12)]} for n in range(20)]


def two_layers(path: Path, loudness: float, shared: bool = False) -> Path:
    """Write embeddings, two matrices with a ReLU between, one neuron louder than the others.

    Where its input is shared, the largest neuron is added to the output too.
    """
    random = np.random.default_rng(0)
    first = random.normal(0, 0.3, (WIDTH, NEURONS)).astype(np.float32)
    second = random.normal(0, 0.3, (NEURONS, WIDTH)).astype(np.float32)
    first[:, LOUD] *= loudness
    second[LOUD] /= loudness
    arrays = {
        "words": random.normal(0, 1, (40, WIDTH)).astype(np.float32),
        "first": first,
        "second": second,
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "first"], ["wide"], "first_product"),
        helper.make_node("Relu", ["wide"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["product"], "second_product"),
    ]
    if shared:
        nodes.append(helper.make_node("ReduceMax", ["hidden"], ["most"], keepdims=1))
        nodes.append(helper.make_node("Add", ["product", "most"], ["logits"]))
    else:
        nodes.append(helper.make_node("Identity", ["product"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "two layers",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def answers(path: Path) -> np.ndarray:
    session = open_session(path)
    return np.concatenate([run_row(session, row)["logits"] for row in ROWS])
