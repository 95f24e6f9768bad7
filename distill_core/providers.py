"""Table: execution provider → which operators of a file it takes; the others fall back to the CPU."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import GraphOptimizationLevel
from onnxruntime.tools import mobile_helpers
from onnxruntime.tools.make_dynamic_shape_fixed import fix_output_shapes, make_input_shape_fixed
from onnxruntime.tools.mobile_helpers.usability_checker import check_partitioning
from onnxruntime.tools.onnx_model_utils import optimize_model

Tensors = Mapping[str, onnx.TypeProto.Tensor]
"""Types and shapes of a file's tensors, by name."""


@dataclass(frozen=True)
class Provider:
    """What an execution provider takes."""

    name: str
    operators: Callable[[], frozenset[str]]
    """As domain:operator."""
    switched_on: str
    """By this, in the language of its runtime's package; what it does not take the CPU does."""
    limits: tuple[Callable[[onnx.NodeProto, Tensors], str | None], ...] = ()
    """Why it leaves a node whose operator it takes; None where it does not."""
    rank: int = 999
    """Most axes of a tensor."""


def cover(file: Path, provider: str, length: int) -> dict[str, Any]:
    """Return which nodes of a file a provider takes, as the file is and with its shapes fixed.

    Constants are folded before, as onnxruntime does when it loads the file. The graph is cut into parts
    by onnxruntime's own usability checker; each part costs a way to the accelerator and back. Whether a node
    is taken is told by its operator, its shapes, which must be fixed, and the limits of `PROVIDERS`; not by
    trying, which needs the device.

    Args:
        file: an ONNX file.
        provider: a name of `PROVIDERS`.
        length: tokens that the fixed shapes have, of one text.

    Returns:
        provider; dynamic_shapes and fixed_shapes, each with nodes, taken, parts, and by operator how many
        nodes are taken and how many fall_back; and limits, why operators that it takes fall back.
    """
    row = PROVIDERS[provider]
    limits: set[str] = set()
    with TemporaryDirectory() as scratch:
        fixed = Path(scratch, "fixed.onnx")
        onnx.save(_fix(onnx.load(file), length), fixed)
        dynamic = _partition(_fold(file), row, set())
        return {
            "provider": provider,
            "dynamic_shapes": dynamic,
            "fixed_shapes": _partition(_fold(fixed), row, limits),
            "tokens": length,
            "limits": sorted(limits),
        }


def _fix(model: onnx.ModelProto, length: int) -> onnx.ModelProto:
    for entry in list(model.graph.input):
        *others, _ = entry.type.tensor_type.shape.dim  # texts and, where they are several, choices
        shape = [*(axis.dim_value or 1 for axis in others), length]
        make_input_shape_fixed(model.graph, entry.name, shape)
    fix_output_shapes(model)
    return model


def _fold(file: Path) -> onnx.ModelProto:
    """Return a file with its constants folded, and the shapes of its tensors."""
    with TemporaryDirectory() as scratch:
        wide, folded = Path(scratch, "wide.onnx"), Path(scratch, "folded.onnx")
        onnx.save(_widen(onnx.load(file)), wide)
        optimize_model(wide, folded, level=GraphOptimizationLevel.ORT_ENABLE_BASIC, log_level=3)
        return onnx.shape_inference.infer_shapes(onnx.load(folded))


def _widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make numbers of 16 bits fp32: else onnxruntime would fold in what its CPU lacks, casts and all."""
    constants = [
        attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    ]
    for tensor in [*model.graph.initializer, *constants]:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            numbers = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", _HALF):
                attribute.i = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    return model


_HALF = onnx.TensorProto.FLOAT16


def _partition(model: onnx.ModelProto, row: Provider, limits: set[str]) -> dict[str, Any]:
    taker = _Taker(row, model.graph, limits)
    found = check_partitioning(model.graph, taker, True, row.rank)
    taken = Counter(node.op_type for group in found.supported_groups for node in group)
    there = Counter(node.op_type for node in model.graph.node)
    return {
        "nodes": found.num_nodes,
        "taken": found.num_supported_nodes,
        "parts": found.num_partitions,
        "operators": dict(sorted(taken.items())),
        "fall_back": dict(sorted((there - taken).items())),
    }


class _Taker:
    """What onnxruntime's checker asks about each node."""

    def __init__(self, row: Provider, graph: onnx.GraphProto, limits: set[str]) -> None:
        self._operators, self._row, self._limits = row.operators(), row, limits
        infos = [*graph.input, *graph.output, *graph.value_info]
        self._tensors = {info.name: info.type.tensor_type for info in infos}
        for tensor in graph.initializer:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            self._tensors[tensor.name] = info.type.tensor_type

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        """Tell whether the provider takes a node, its shapes being fixed."""
        if f"{node.domain or 'ai.onnx'}:{node.op_type}" not in self._operators:
            return False
        reasons = [reason for limit in self._row.limits if (reason := limit(node, self._tensors))]
        self._limits.update(f"{node.op_type}: {reason}" for reason in reasons)
        return not reasons


def _documented(name: str) -> Callable[[], frozenset[str]]:
    """Return a reader of one of onnxruntime's tables, which its Python package carries along."""

    def read() -> frozenset[str]:
        text = Path(mobile_helpers.__file__).with_name(name).read_text(encoding="utf-8")
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
        return frozenset(cell for cell in cells if ":" in cell)

    return read


def _sizes(tensor: onnx.TypeProto.Tensor) -> list[int]:
    return [axis.dim_value for axis in tensor.shape.dim]


def _large_axis(node: onnx.NodeProto, tensors: Tensors) -> str | None:
    """CoreML: "does not support input dim > 16384" (coreml/builders/helper.cc, IsInputSupported)."""
    sizes = [size for name in node.input if name in tensors for size in _sizes(tensors[name])]
    if max(sizes, default=0) <= _LARGEST_AXIS:
        return None
    return f"an axis of {max(sizes)} numbers, of at most {_LARGEST_AXIS}"


_LARGEST_AXIS = 16_384


def _long_indices(node: onnx.NodeProto, tensors: Tensors) -> str | None:
    """NNAPI: "Input indices should be constant if not int32 type" (nnapi_supported_ops.md)."""
    if node.op_type != "Gather" or node.input[1] not in tensors:
        return None
    short = tensors[node.input[1]].elem_type == onnx.TensorProto.INT32
    return None if short else "indices of 64 bits"


def _more_than_two_axes(node: onnx.NodeProto, tensors: Tensors) -> str | None:
    """XNNPACK: "Only 2D Op is supported" (Xnnpack-ExecutionProvider.md, Gemm and MatMul)."""
    if node.op_type not in {"Gemm", "MatMul"} or node.input[0] not in tensors:
        return None
    return None if len(_sizes(tensors[node.input[0]])) == 2 else "more than two axes"


_XNNPACK = frozenset(
    f"ai.onnx:{name}"
    for name in (
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "MaxPool",
        "QLinearConv",
        "Resize",
        "Softmax",
    )
)
"""onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html, "Supported ops"."""

_QNN_OPERATORS = """
Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv
ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten
Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
GreaterOrEqual GridSample HardSigmoid HardSwish InstanceNormalization LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool
Mean Min Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear RMSNormalization RandomUniformLike
Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize
Round STFT ScatterElements ScatterND Sigmoid Sign Sin Slice Softmax SpaceToDepth Split Sqrt
Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
"""
_QNN = frozenset(f"ai.onnx:{name}" for name in _QNN_OPERATORS.split())
"""microsoft/onnxruntime, onnxruntime/core/providers/qnn/builder/op_builder_factory.cc."""

_NNAPI_ON = """```kotlin
val options = OrtSession.SessionOptions().apply { addNnapi() }
val session = environment.createSession(path, options)
```"""
_XNNPACK_ON = """```kotlin
// XNNPACK has threads of its own; onnxruntime's would wait beside them.
val options = OrtSession.SessionOptions().apply {
    addXnnpack(mapOf("intra_op_num_threads" to "4"))
    setIntraOpNumThreads(1)
}
val session = environment.createSession(path, options)
```"""
_QNN_ON = """```kotlin
// In a build of onnxruntime for Android that has QNN, beside Qualcomm's libraries.
val options = OrtSession.SessionOptions().apply { addQnn(mapOf("backend_path" to "libQnnHtp.so")) }
val session = environment.createSession(path, options)
```"""
_COREML_ON = """```swift
let coreml = ORTCoreMLExecutionProviderOptions()
coreml.createMLProgram = true
let options = try ORTSessionOptions()
try options.appendCoreMLExecutionProvider(with: coreml)
let session = try ORTSession(env: environment, modelPath: path, sessionOptions: options)
```"""
"""OrtSession.SessionOptions (ai.onnxruntime, Java) and ORTSessionOptions (Objective-C), onnxruntime 1.20."""

PROVIDERS = {
    row.name: row
    for row in (
        Provider("NNAPI", _documented("nnapi_supported_ops.md"), _NNAPI_ON, (_long_indices,)),
        Provider(
            "CoreML",
            _documented("coreml_supported_mlprogram_ops.md"),
            _COREML_ON,
            (_large_axis,),
            5,
        ),
        Provider("XNNPACK", lambda: _XNNPACK, _XNNPACK_ON, (_more_than_two_axes,)),
        Provider("QNN", lambda: _QNN, _QNN_ON),
    )
}
"""NNAPI and CoreML (as an ML program) by the tables of onnxruntime's mobile tools."""
