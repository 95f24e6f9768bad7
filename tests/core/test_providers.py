"""What an execution provider takes of a file: by its operators, its shapes and its limits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill_core import targets
from distill_core.bundle import model_card
from distill_core.manifest import read_manifest
from distill_core.outcome import _note_providers
from distill_core.providers import PROVIDERS, cover
from distill_core.quantization import quantize
from distill_core.schemes import FP16, INT8_STATIC


def _write(
    folder: Path,
    nodes: list[Any],
    constants: dict[str, Any],
    ids: int = TensorProto.INT64,
    axes: tuple[str, ...] = ("batch", "length"),
) -> Path:
    """Write a file that reads `ids` of these axes, and gives `out` of the last node."""
    inputs = [helper.make_tensor_value_info("ids", ids, axes)]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _embed(folder: Path, rows: int, ids: int = TensorProto.INT64) -> Path:
    table = np.ones((rows, 4), dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Tanh", ["rows"], ["out"]),
    ]
    return _write(folder, nodes, {"table": table}, ids)


def test_what_is_known_of_a_provider_has_a_row() -> None:
    assert tuple(PROVIDERS) == targets.PROVIDERS
    used = {target.provider for target in targets.TARGETS.values()} - {None}
    assert used == set(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nodes_are_taken_or_fall_back(
    provider: str, exported: Path, rows: Any, tmp_path: Path
) -> None:
    scheme = FP16 if provider == "CoreML" else INT8_STATIC
    file = quantize(exported, scheme, rows["train"].to_list(), tmp_path)
    found = cover(file, provider, length=16)
    for part in (found["dynamic_shapes"], found["fixed_shapes"]):
        assert part["taken"] == sum(part["operators"].values())
        assert part["nodes"] == part["taken"] + sum(part["fall_back"].values())
        assert (part["parts"] > 0) == (part["taken"] > 0)
    assert found["fixed_shapes"]["taken"] > (0 if provider == "XNNPACK" else 50)
    assert "Erf" in found["fixed_shapes"]["fall_back"] or provider == "CoreML"


def test_shapes_must_be_fixed(tmp_path: Path) -> None:
    found = cover(_embed(tmp_path, 10), "QNN", length=8)
    assert found["dynamic_shapes"]["taken"] == 0
    assert found["fixed_shapes"] == {
        "nodes": 2,
        "taken": 2,
        "parts": 1,
        "operators": {"Gather": 1, "Tanh": 1},
        "fall_back": {},
    }


def test_choices_are_an_axis_of_their_own(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Tanh", ["rows"], ["out"]),
    ]
    axes = ("batch", "choices", "length")
    file = _write(tmp_path, nodes, {"table": np.ones((9, 4), np.float32)}, axes=axes)
    assert cover(file, "CoreML", length=8)["fixed_shapes"]["nodes"] == 2


def test_nnapi_takes_short_indices_alone(tmp_path: Path) -> None:
    found = cover(_embed(tmp_path, 10), "NNAPI", length=8)
    assert found["fixed_shapes"]["fall_back"] == {"Gather": 1}
    assert found["limits"] == ["Gather: indices of 64 bits"]
    short = cover(_embed(tmp_path, 10, TensorProto.INT32), "NNAPI", length=8)
    assert (short["fixed_shapes"]["fall_back"], short["limits"]) == ({}, [])


@pytest.mark.parametrize("rows", [16_384, 16_385])
def test_coreml_takes_no_axis_above_its_limit(rows: int, tmp_path: Path) -> None:
    table = np.ones((rows, 2), dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["wide", "table"], ["out"]),
    ]
    found = cover(_write(tmp_path, nodes, {"table": table}), "CoreML", length=rows)
    over = rows > 16_384
    assert ("MatMul" in found["fixed_shapes"]["fall_back"]) == over
    assert bool(found["limits"]) == over


def test_xnnpack_takes_products_of_two_axes_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["wide", "flat"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["deep"]),
        helper.make_node("MatMul", ["deep", "square"], ["out"]),
    ]
    arrays = {
        "flat": np.ones((8, 4), dtype=np.float32),
        "square": np.ones((4, 4), dtype=np.float32),
        "axis": np.zeros(1, dtype=np.int64),
    }
    found = cover(_write(tmp_path, nodes, arrays), "XNNPACK", length=8)
    assert found["fixed_shapes"]["operators"] == {"MatMul": 1}
    assert found["limits"] == ["MatMul: more than two axes"]


def test_a_file_of_16_bits_is_judged_as_its_fp32_twin(exported: Path, tmp_path: Path) -> None:
    half = cover(quantize(exported, FP16, [], tmp_path), "CoreML", length=16)["fixed_shapes"]
    plain = cover(exported, "CoreML", length=16)["fixed_shapes"]
    assert half["fall_back"] == plain["fall_back"]
    assert half["operators"]["Softmax"] == plain["operators"]["Softmax"] == 4


def test_the_report_says_that_speed_was_not_measured(tmp_path: Path) -> None:
    found = cover(_embed(tmp_path, 10), "QNN", length=8)
    entries = [
        {"target": "android-qnn", "operator_coverage": found},
        {"target": "web-wasm", "operator_coverage": None},
    ]
    (note,) = _note_providers(entries)
    assert note.startswith("android-qnn: QNN takes 2 of 2 operators in 1 parts")
    assert "cannot be measured here" in note


@pytest.mark.parametrize(
    ("provider", "call"),
    [
        (None, None),
        ("NNAPI", "addNnapi()"),
        ("XNNPACK", "addXnnpack("),
        ("QNN", "addQnn("),
        ("CoreML", "appendCoreMLExecutionProvider(with:"),
    ],
)
def test_card_of_a_bundle_says_how_its_provider_is_asked_for(
    provider: str | None, call: str | None, bundle: Path
) -> None:
    card = model_card(read_manifest(bundle).model_copy(update={"provider": provider}))
    assert (f"## Let {provider} run it" in card) == (provider is not None)
    assert call is None or call in card
