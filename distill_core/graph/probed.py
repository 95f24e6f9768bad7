"""An exported graph as it runs: who makes and who reads its tensors, and their shapes in two runs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Shaped
from onnx import AttributeProto, NodeProto, helper, numpy_helper

_SIZES = ((2, 3, 7), (3, 5, 11))
"""Of batch, choices and tokens in two runs: what differs between their shapes depends on these."""

INSIDE = -1
"""Place of what is read by the branches of a node."""


class ProbedGraph:
    """A graph that is read backwards and changed in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Read a file.

        Args:
            model: an fp32 file with dynamic shapes; it is run when it is first asked for sizes.
        """
        self._model = model
        self.proto = model.graph
        self.outputs = {entry.name for entry in model.graph.output}
        self.constants = dict(_constants(model.graph))
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                self.readers[name].append((node, place))
            for name in _read_inside(node):
                self.readers[name].append((node, INSIDE))

    @cached_property
    def _probed(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        return _shapes(self._model)

    def takes_first_token(self, node: NodeProto) -> bool:
        """Tell whether a node may be what takes the first of a sequence's vectors."""
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 1:
            return False
        index = self.constants.get(node.input[1])
        return index is not None and index.ndim == 0 and not int(index)

    def dims(self, tensor: str) -> tuple[tuple[int, int], ...] | None:
        """Return the size of each axis in both runs; None of what is no tensor of known shape."""
        first, second = (shapes.get(tensor) for shapes in self._probed)
        return None if first is None or second is None else tuple(zip(first, second, strict=True))

    def picked(
        self, reader: NodeProto, sizes: Shaped[np.ndarray, "axes ..."]
    ) -> Shaped[np.ndarray, "..."] | None:
        """Return what a node takes of a tensor's sizes; None where that is not settled by constants."""
        places = [name for name in reader.input[1:] if name]
        constants = [self.constants[name] for name in places if name in self.constants]
        if len(constants) < len(places):
            return None
        which: Any = None
        if reader.op_type == "Gather":
            which = constants[0]
        elif reader.op_type == "Slice" and len(constants) == len(("start", "end")):
            which = slice(int(constants[0][0]), int(constants[1][0]))
        return None if which is None else np.asarray(sizes[which])

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant, and return its name."""
        self.proto.initializer.append(numpy_helper.from_array(value, name))
        return name

    def first_of(self, tensor: str, axis: int) -> str:
        """Take the first entry of a tensor along an axis, and return its name."""
        name = f"{tensor}_first_{axis}"
        if name not in self.producers:
            bounds = {"start": 0, "end": 1, "axis": axis}
            places = [self.add_constant(f"{name}_{k}", np.asarray([v])) for k, v in bounds.items()]
            node = helper.make_node("Slice", [tensor, *places], [name], name=name)
            maker = self.producers.get(tensor)
            after = 0 if maker is None else list(self.proto.node).index(maker) + 1
            self.proto.node.insert(after, node)
            self.producers[name] = node
        return name

    def clean(self, changed: Mapping[str, int]) -> None:
        """Take out the shapes that changed, and what nothing reads any more."""
        shapes = [entry for entry in self.proto.value_info if entry.name not in changed]
        needed, nodes = set(self.outputs), []
        for node in reversed(self.proto.node):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input, _read_inside(node))
        tensors = [tensor for tensor in self.proto.initializer if tensor.name in needed]
        for field, kept in (
            (self.proto.value_info, shapes),
            (self.proto.node, nodes[::-1]),
            (self.proto.initializer, tensors),
        ):
            del field[:]
            field.extend(kept)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or the default of its operator."""
    found = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return found.get(name, default)


def _read_inside(node: NodeProto) -> set[str]:
    """Return what the branches of a node read, of their own tensors too."""
    branches = [entry.g.node for entry in node.attribute if entry.type == AttributeProto.GRAPH]
    inner = [child for nodes in branches for child in nodes]
    return {name for child in inner for name in (*child.input, *_read_inside(child))}


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the small numbers that a file holds, weights left out."""
    for tensor in graph.initializer:
        if len(tensor.dims) <= 1:
            yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == AttributeProto.TENSOR:
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def _shapes(model: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Return the shapes of all tensors in two runs, on texts of ones."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As they stand: fusing would leave no tensor in between.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    held = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return tuple({**held, **_shapes_of_run(session, names, sizes)} for sizes in _SIZES)


def _shapes_of_run(
    session: onnxruntime.InferenceSession, names: list[str], sizes: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    batch, _, tokens = sizes
    feeds = {}
    for entry in session.get_inputs():
        shape = (batch, tokens) if len(entry.shape) == len(("batch", "tokens")) else sizes
        feeds[entry.name] = np.ones(shape, dtype=np.int64)
    feeds |= {name: np.zeros_like(ids) for name, ids in feeds.items() if name == "token_type_ids"}
    fed = {name: ids.shape for name, ids in feeds.items()}
    return fed | {n: np.shape(v) for n, v in zip(names, session.run(names, feeds), strict=True)}
