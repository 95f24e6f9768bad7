"""Schemes beside dynamic 8 bits: each file loads, answers nearly as fp32 does, and is what its row says."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from distill_core.evaluation import file_logits
from distill_core.files import file_digest
from distill_core.quantization import quantize
from distill_core.quantization.blocks import quantize_embeddings
from distill_core.quantization.dynamic import activation_products
from distill_core.quantization.half import LARGEST
from distill_core.schemes import (
    ALL_4,
    FP16,
    INT8,
    INT8_EMBEDDINGS_4,
    INT8_EMBEDDINGS_8,
    INT8_FUSED,
    INT8_FUSED_REDUCED,
    INT8_STATIC,
    INT8_STATIC_ENTROPY,
    INT8_STATIC_PERCENTILE,
    RUNTIMES,
    SCHEMES,
    WEIGHTS_4,
    WEIGHTS_8,
    Scheme,
)
from distill_core.session import open_session, run_row
from distill_core.targets import TARGETS

NEAR = {
    INT8_STATIC: 0.2,
    INT8_STATIC_ENTROPY: 0.4,
    INT8_STATIC_PERCENTILE: 0.2,
    INT8_FUSED: 0.1,
    INT8_FUSED_REDUCED: 0.1,
    FP16: 0.01,
    WEIGHTS_8: 0.01,
    WEIGHTS_4: 0.2,
    ALL_4: 0.2,
    INT8_EMBEDDINGS_8: 0.1,
    INT8_EMBEDDINGS_4: 0.2,
}
"""Scheme → how far its logits may be from fp32's, as a share of the range that those have."""


@pytest.fixture(scope="module")
def made(exported: Path, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[Scheme, Path]:
    texts = rows["train"].to_list()
    return {s: quantize(exported, s, texts, tmp_path_factory.mktemp(s.name)) for s in NEAR}


def _kinds(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


def _arrays(file: Path) -> dict[str, Any]:
    graph = onnx.load(file).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("scheme", NEAR, ids=lambda scheme: scheme.name)
def test_answers_are_near_those_of_the_fp32_file(
    scheme: Scheme, made: dict[Scheme, Path], exported: Path, rows: Any, head: Any
) -> None:
    ours, theirs = (
        file_logits(open_session(path), head, rows["validation"])
        for path in (made[scheme], exported)
    )
    assert np.abs(ours - theirs).max() < NEAR[scheme] * np.ptp(theirs)


@pytest.mark.parametrize("scheme", NEAR, ids=lambda scheme: scheme.name)
def test_a_file_is_smaller_than_fp32_and_alone_in_its_folder(
    scheme: Scheme, made: dict[Scheme, Path], exported: Path
) -> None:
    assert made[scheme].stat().st_size < exported.stat().st_size
    assert [path.name for path in made[scheme].parent.iterdir()] == ["model_quantized.onnx"]


@pytest.mark.parametrize("scheme", NEAR, ids=lambda scheme: scheme.name)
def test_the_same_file_becomes_the_same_bytes(
    scheme: Scheme, made: dict[Scheme, Path], exported: Path, rows: Any, tmp_path: Path
) -> None:
    again = quantize(exported, scheme, rows["train"].to_list(), tmp_path)
    assert file_digest(again) == file_digest(made[scheme])


def test_calibrated_weights_have_channels_and_attention_stays_fp32(
    made: dict[Scheme, Path], exported: Path
) -> None:
    graph = onnx.load(made[INT8_STATIC]).graph
    widened = {name for n in graph.node if n.op_type == "DequantizeLinear" for name in n.output}
    products = [node for node in graph.node if node.op_type in {"MatMul", "Gemm"}]
    plain = {node.name for node in products if not widened.intersection(node.input)}
    assert plain == set(activation_products(exported))
    scales = [a for name, a in _arrays(made[INT8_STATIC]).items() if name.endswith("_scale")]
    # Six matrices a layer; pooler and classifier, each with its bias
    assert sum(scale.size > 1 for scale in scales) == 4 * 6 + 2 * 2


def test_each_calibration_finds_other_ranges(made: dict[Scheme, Path]) -> None:
    ways = (INT8_STATIC, INT8_STATIC_ENTROPY, INT8_STATIC_PERCENTILE)
    assert len({file_digest(made[scheme]) for scheme in ways}) == len(ways)


def test_fp16_holds_no_number_that_becomes_infinite_and_keeps_its_inputs_and_outputs(
    made: dict[Scheme, Path], exported: Path
) -> None:
    arrays = [a for a in _arrays(made[FP16]).values() if a.dtype == np.float16]
    graph = onnx.load(made[FP16]).graph
    constants = [numpy_helper.to_array(a.t) for n in graph.node for a in n.attribute if a.t.dims]
    numbers = [a for a in (*arrays, *constants) if a.dtype == np.float16]
    assert arrays
    assert max(float(np.abs(array).max()) for array in numbers) <= LARGEST
    plain = onnx.load(exported).graph
    assert list(graph.input) == list(plain.input)
    assert [o.type for o in graph.output] == [o.type for o in plain.output]


@pytest.mark.parametrize("scheme", [FP16, INT8_FUSED], ids=lambda scheme: scheme.name)
def test_padding_does_not_change_an_answer(
    scheme: Scheme, made: dict[Scheme, Path], rows: Any
) -> None:
    session, row = open_session(made[scheme]), rows["validation"][0]
    names = [entry.name for entry in session.get_inputs()]
    padded = {name: [*row[name], *[0] * 9] for name in names}
    plain, longer = (run_row(session, texts)["logits"] for texts in (row, padded))
    assert np.isfinite(longer).all()
    assert np.abs(plain - longer).max() < 0.1 * np.abs(plain).max()


def test_a_layer_is_fused_to_operators_of_8_bits(made: dict[Scheme, Path]) -> None:
    kinds = _kinds(made[INT8_FUSED])
    # The last of the four layers has the first token's query alone, which no fused operator knows.
    assert (kinds["QAttention"], kinds["QEmbedLayerNormalization"]) == (3, 1)
    assert kinds["SkipLayerNormalization"] == 2 * 4
    assert kinds["MatMul"] == 2


def test_a_graph_that_cannot_be_fused_is_quantized_as_it_is(
    exported: Path, rows: Any, tmp_path: Path
) -> None:
    model = onnx.load(exported)
    for node in model.graph.node:  # no optimizer knows attention without a softmax
        if node.op_type == "Softmax":
            node.op_type = "Relu"
            del node.attribute[:]
    onnx.save(model, tmp_path / "other.onnx")
    files = []
    for scheme in (INT8_FUSED, INT8):
        (tmp_path / scheme.name).mkdir()
        texts = rows["train"].to_list()
        files.append(quantize(tmp_path / "other.onnx", scheme, texts, tmp_path / scheme.name))
    assert file_digest(files[0]) == file_digest(files[1])


@pytest.mark.parametrize("scheme", [WEIGHTS_4, WEIGHTS_8, ALL_4], ids=lambda scheme: scheme.name)
def test_every_matrix_is_blocks_of_the_bits_of_the_scheme(
    scheme: Scheme, made: dict[Scheme, Path]
) -> None:
    nodes = [n for n in onnx.load(made[scheme]).graph.node if n.op_type == "MatMulNBits"]
    bits = {a.i for node in nodes for a in node.attribute if a.name == "bits"}
    assert (len(nodes), bits) == (4 * 6 + 2, {scheme.weight_bits})


@pytest.mark.parametrize("bits", [4, 8])
def test_a_number_of_an_embedding_moves_by_half_a_step_at_most(bits: int, tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [None])
    rows = onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [None, 64])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "lookup",
        [ids],
        [rows],
        [numpy_helper.from_array(table, "table")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    quantize_embeddings(model, bits)
    onnx.save(model, tmp_path / "model.onnx")
    found = open_session(tmp_path / "model.onnx").run(None, {"ids": np.arange(50)})[0]
    blocks = table.reshape(50, 2, 32)
    steps = (blocks.max(axis=2).clip(min=0) - blocks.min(axis=2).clip(max=0)) / (2**bits - 1)
    # Zero is a whole number too, so that a block's ends may move by half a step more.
    assert (np.abs(found.reshape(blocks.shape) - blocks) <= 1.01 * steps[..., None]).all()


def test_embeddings_of_blocks_take_the_bits_of_the_scheme(made: dict[Scheme, Path]) -> None:
    for scheme in (INT8_EMBEDDINGS_4, INT8_EMBEDDINGS_8, ALL_4):
        kinds = _kinds(made[scheme])
        assert kinds["GatherBlockQuantized"] == 3, scheme.name
        assert kinds["MatMulInteger"] == (0 if scheme is ALL_4 else 4 * 6 + 2)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_a_target_tries_few_schemes_and_can_load_them_all(target: Any) -> None:
    assert 1 <= len(target.schemes) <= 4
    assert target.runtime in RUNTIMES
    assert all(target.runtime in scheme.runtimes for scheme in target.schemes)


def test_a_scheme_is_found_by_its_name_and_some_runtime_loads_it() -> None:
    assert all(SCHEMES[scheme.name] == scheme for scheme in (INT8, *NEAR))
    assert all(
        set(scheme.runtimes) <= set(RUNTIMES) and scheme.runtimes for scheme in SCHEMES.values()
    )
