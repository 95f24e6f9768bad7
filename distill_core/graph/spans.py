"""The span of a context that answers a question, found by the file itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

_LOWEST = float(np.finfo(np.float32).min)
"""Score of what is no span."""


@dataclass(frozen=True)
class SpanRule:
    """What may be an answer."""

    most_tokens: int
    separator: int
    """Id of the token that stands between question and context, and behind both."""


def answer_with_span(model: onnx.ModelProto, rule: SpanRule, answer: str) -> None:
    """Let a model that answers questions answer with the best span of each window, in place.

    Its output is four numbers: first and last token of the span, the score of the span, S_i + E_j, and that
    of no answer, S_0 + E_0 (Devlin et al. 2019, arXiv:1810.04805, sections 4.2 and 4.3); of equal spans the
    first. The context are the tokens of the second segment where the model reads segments, and else those
    behind the first separator; separators are never part of an answer.

    Args:
        model: whose outputs are start_logits and end_logits.
        rule: what may be an answer.
        answer: the new output's name.
    """
    graph = model.graph
    nodes = _Nodes(graph, answer)
    start, end = (nodes.add("Cast", [entry.name], to=TensorProto.FLOAT) for entry in graph.output)
    context = nodes.add("Cast", [_context(nodes, rule.separator)], to=TensorProto.FLOAT)
    column, row, none = (nodes.constant(np.asarray([axis])) for axis in (2, 1, 0))
    pairs = nodes.add(
        "Mul", [nodes.add("Unsqueeze", [context, column]), nodes.add("Unsqueeze", [context, row])]
    )
    farthest = nodes.constant(np.asarray(rule.most_tokens - 1))
    forward = nodes.add("Trilu", [nodes.add("Trilu", [pairs], upper=1), farthest], upper=0)
    sums = nodes.add(
        "Add", [nodes.add("Unsqueeze", [start, column]), nodes.add("Unsqueeze", [end, row])]
    )
    lowest = nodes.constant(np.asarray(_LOWEST, dtype=np.float32))
    allowed = nodes.add("Cast", [forward], to=TensorProto.BOOL)
    scores = nodes.add("Where", [allowed, sums, lowest])
    flat = nodes.add("Reshape", [scores, nodes.constant(np.asarray([0, -1]))])
    place = nodes.add("ArgMax", [flat], axis=-1)
    tokens = nodes.add("Shape", [start], start=1, end=2)
    numbers = [
        nodes.add("Cast", [nodes.add(operator, [place, tokens])], to=TensorProto.FLOAT)
        for operator in ("Div", "Mod")
    ]
    best = nodes.add("ReduceMax", [flat, nodes.constant(np.asarray([-1]))])
    first = [nodes.add("Gather", [logits, none], axis=1) for logits in (start, end)]
    numbers += [best, nodes.add("Add", first)]
    graph.node.append(helper.make_node("Concat", numbers, [answer], name=answer, axis=-1))
    (batch, *_) = graph.output[0].type.tensor_type.shape.dim
    shape = [batch.dim_param or batch.dim_value, 4]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(answer, TensorProto.FLOAT, shape))


def _context(nodes: "_Nodes", separator: int) -> str:
    """Return the name of what tells tokens of the context from all others."""
    inputs = {entry.name: entry.type.tensor_type.elem_type for entry in nodes.graph.input}
    number = helper.tensor_dtype_to_np_dtype(inputs["input_ids"])
    parts = nodes.add("Equal", ["input_ids", nodes.constant(np.asarray(separator, dtype=number))])
    if "token_type_ids" in inputs:
        second = nodes.add("Cast", ["token_type_ids"], to=TensorProto.BOOL)
    else:
        counts = nodes.add("Cast", [parts], to=TensorProto.INT32)
        before = nodes.add("CumSum", [counts, nodes.constant(np.asarray(1))])
        second = nodes.add("Cast", [before], to=TensorProto.BOOL)
    real = nodes.add("Cast", ["attention_mask"], to=TensorProto.BOOL)
    return nodes.add("And", [nodes.add("And", [second, real]), nodes.add("Not", [parts])])


@dataclass
class _Nodes:
    """Adds nodes and constants behind a graph, each with a name of its own."""

    graph: onnx.GraphProto
    prefix: str

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.prefix}/{operator}_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        name = f"{self.prefix}/constant_{len(self.graph.initializer)}"
        self.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name
