"""What a file makes of token ids, before its first layer."""

from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float

from distill_core.session import open_session


def looked_up(file: Path, ids: list[list[int]]) -> Float[np.ndarray, "texts tokens width"]:
    """Return what a file looks up for ids."""
    model = onnx.load(file)
    scaled = next(n for n in model.graph.node if n.op_type == "Mul" and "word" in n.input[0])
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(scaled.output[0], onnx.TensorProto.FLOAT, None)
    )
    shown = file.with_name("shown.onnx")
    onnx.save(model, shown)
    array = np.asarray(ids, dtype=np.int64)
    fed = {"input_ids": array, "attention_mask": np.ones_like(array)}
    fed["token_type_ids"] = np.zeros_like(array)
    return np.asarray(open_session(shown).run([scaled.output[0]], fed)[0])
