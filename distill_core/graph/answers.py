"""The last step, from logits to what an app asks for, as a part of the file."""

from typing import Any

import numpy as np
import onnx
from jaxtyping import Float
from onnx import TensorProto, helper

from distill_core.graph.table import LastStep


def answer_with(model: onnx.ModelProto, step: LastStep, answer: str) -> None:
    """Put a last step behind a model's logits, in place of which it answers with `answer`, in place.

    Args:
        model: whose one output is logits.
        step: a row of `LAST_STEPS`.
        answer: the new output's name.

    Raises:
        ValueError: the step is that of spans, which is `answer_with_span`.
    """
    graph = model.graph
    (logits,) = graph.output
    shape = [axis.dim_param or axis.dim_value for axis in logits.type.tensor_type.shape.dim]
    number = logits.type.tensor_type.elem_type
    if step.operator == "ArgMax":
        graph.node.append(_node("ArgMax", logits.name, answer, axis=-1, keepdims=0))
        shape, number = shape[:-1], TensorProto.INT64
    elif step.operator == "Greater":
        zero = helper.make_tensor(f"{answer}/zero", number, [], [0.0])
        graph.initializer.append(zero)
        above = f"{answer}/above"
        graph.node.append(
            helper.make_node("Greater", [logits.name, zero.name], [above], name=above)
        )
        graph.node.append(_node("Cast", above, answer, to=TensorProto.INT64))
        number = TensorProto.INT64
    elif step.operator == "Softmax":
        graph.node.append(_node("Softmax", logits.name, answer, axis=-1))
    elif step.operator == "Sigmoid":
        graph.node.append(_node("Sigmoid", logits.name, answer))
    else:
        raise ValueError(f"{step.operator} asks for more than the logits")
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(answer, number, shape))


def _node(operator: str, read: str, made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, [read], [made], name=f"{made}/{operator}", **attributes)


def tolerance_of(step: LastStep, logit_tolerance: float) -> float:
    """Return how much a number of an answer may differ where no logit differs by more than a tolerance.

    dσ(z) ≤ ¼ dz. A probability of softmax is σ of its logit minus the log of the others' sum of exponents,
    which both move by dz at most, so that it is twice as much. The score of a span is the sum of two logits.
    Numbers of labels are right or wrong.
    """
    shares = {"Softmax": 1 / 2, "Sigmoid": 1 / 4, "Span": 2}
    return shares.get(step.operator, 0) * logit_tolerance


def too_close(
    step: LastStep, logits: Float[np.ndarray, "..."], logit_tolerance: float
) -> tuple[int, ...]:
    """Return the places of an answer's labels, flattened, that a tolerance of the logits may change."""
    if step.operator == "ArgMax":
        best = np.sort(logits, axis=-1)[..., -2:]
        margins = (best[..., 1] - best[..., 0]) / 2
    elif step.operator == "Greater":
        margins = np.abs(logits)
    else:
        return ()
    return tuple(np.flatnonzero(np.atleast_1d(margins) <= logit_tolerance).tolist())
