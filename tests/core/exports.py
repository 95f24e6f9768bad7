"""What a file answers, as it stands in memory: for tests that change graphs."""

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
