"""What a file answers and is run as, as it stands in memory: for tests that change graphs."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

IDS = 50
"""Of the tokens that are drawn; what stands in the vocabulary does not matter."""


def answers(model: onnx.ModelProto, *shape: int, outputs: list[str] | None = None) -> list[Any]:
    """Return what a file answers to drawn tokens, the second half of the second text being padding."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    draws, mask = np.random.default_rng(0), np.ones(shape, dtype=np.int64)
    mask[1:2, ..., shape[-1] // 2 + 1 :] = 0
    feeds = {
        "input_ids": draws.integers(5, IDS, shape),
        "attention_mask": mask,
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }
    read = {entry.name for entry in session.get_inputs()}
    fed = {name: ids for name, ids in feeds.items() if name in read}
    found: list[Any] = session.run(outputs, fed)
    return found


def kinds_at_run_time(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return how many operators of each kind onnxruntime runs, once it has fused what it can."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)
