"""Packed files: 4 bits a weight on disk, standard operators, and the answers that the codes spell out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from datasets import Dataset
from onnx import numpy_helper
from transformers import PreTrainedTokenizerFast

from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.files import file_digest
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.quantization import lookup, quantize, spare
from distill_core.quantization.codebook import LARGE
from distill_core.schemes import INT3, INT4, INT4_REDUCED, INT8, INT8_WORDS_REDUCED, Scheme
from distill_core.session import open_session
from distill_core.targets import OPSET
from distill_core.teacher import load_model
from tests.core.family_models import save_small

HEAD = SequenceClassification(("negative", "positive"))


@pytest.fixture(scope="module")
def wide(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A BERT wide enough that its matrices are worth packing, as an fp32 file, and rows for it."""
    from distill_core.teacher import load_tokenizer

    folder = tmp_path_factory.mktemp("wide")
    tokenizer: PreTrainedTokenizerFast = load_tokenizer(tiny_bert)
    saved = save_small(
        "bert",
        "ForSequenceClassification",
        tokenizer,
        folder / "model",
        hidden_size=128,
        intermediate_size=256,
        max_position_embeddings=256,
        vocab_size=4_200,
    )
    model = load_model(saved)
    texts = ["the film was good", "a dull plot", "good acting", "it was a bad film"] * 8
    rows = [dict(tokenizer(text)) for text in texts]
    data = Dataset.from_list([{**r, "label": 0, "length": len(r["input_ids"])} for r in rows])
    export_onnx(model, HEAD, data, OPSET, folder / "model.onnx")
    return folder / "model.onnx", data


@pytest.fixture(scope="module", autouse=True)
def _no_coarse_matrix() -> Iterator[None]:
    """Leave all matrices in four bits: of random ones, one is coarse or not by a hair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spare, "_SHARE", 0.0)
        yield


@pytest.fixture(
    scope="module",
    params=[INT4, pytest.param(INT4_REDUCED, marks=pytest.mark.slow)],
    ids=lambda scheme: scheme.name,
)
def packed(
    request: pytest.FixtureRequest, wide: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scheme, Path]:
    model, rows = wide
    folder = tmp_path_factory.mktemp("packed")
    return request.param, quantize(model, request.param, rows.to_list(), folder)


def _arrays(path: Path) -> dict[str, Any]:
    graph = onnx.load(path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_every_matrix_of_the_layers_and_the_words_are_codes(
    packed: tuple[Scheme, Path],
) -> None:
    arrays = _arrays(packed[1])
    codes = [array for name, array in arrays.items() if name.endswith("_codes")]
    # 4 layers of 6 matrices, the pooler, the words; the other tables and the classifier are small
    assert len(codes) == 4 * 6 + 1 + 1
    assert {array.dtype for array in codes} == {np.dtype(np.uint8)}
    assert arrays["codebook"].shape == (256, 2)


def test_a_weight_takes_four_bits(packed: tuple[Scheme, Path], wide: tuple[Path, Any]) -> None:
    codes = [a for name, a in _arrays(packed[1]).items() if name.endswith("_codes")]
    weights = 4 * (4 * 128 * 128 + 2 * 128 * 256) + 128 * 128 + 4_200 * 128
    assert sum(array.nbytes for array in codes) == weights // 2
    assert packed[1].stat().st_size < wide[0].stat().st_size / 4


def test_operators_are_standard_ones(packed: tuple[Scheme, Path]) -> None:
    model = onnx.load(packed[1])
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_unpacked_numbers_keep_to_the_range_of_the_scheme(packed: tuple[Scheme, Path]) -> None:
    scheme, file = packed
    assert np.abs(_arrays(file)["codebook"].astype(int)).max() <= (
        64 if scheme.reduce_range else 127
    )


def _largest_weight(file: Path) -> int:
    """Of the matrices that are in the file as they are."""
    arrays = _arrays(file)
    weights = {node.input[1] for node in onnx.load(file).graph.node if "MatMulInt" in node.op_type}
    return max(int(np.abs(arrays[n].astype(int)).max()) for n in weights if n in arrays)


def test_matrices_that_are_too_small_to_be_packed_keep_to_it_too(
    packed: tuple[Scheme, Path],
) -> None:
    scheme, file = packed
    assert _largest_weight(file) == (64 if scheme.reduce_range else 127)


def test_answers_are_near_those_of_the_fp32_file(
    packed: tuple[Scheme, Path], wide: tuple[Path, Any]
) -> None:
    model, rows = wide
    ours, theirs = (file_logits(open_session(path), HEAD, rows) for path in (packed[1], model))
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


def test_the_file_answers_as_the_8_bit_file_with_the_same_numbers(
    packed: tuple[Scheme, Path], wide: tuple[Path, Any], tmp_path: Path
) -> None:
    """What onnxruntime computes when it loads the codes is what they stand for, bit for bit."""
    _, rows = wide
    arrays = _arrays(packed[1])
    spelled = onnx.load(packed[1])
    of_matrices = [
        node
        for node in spelled.graph.node
        if node.op_type == "Reshape" and f"{node.output[0]}_codes" in arrays
    ]
    unpacked = {
        node.output[0]: arrays["codebook"][arrays[f"{node.output[0]}_codes"]]
        for node in of_matrices
    }
    assert len(unpacked) == 4 * 6 + 1
    for node in of_matrices:
        spelled.graph.node.remove(node)
    spelled.graph.initializer.extend(
        numpy_helper.from_array(array.reshape(arrays[f"{name}_shape"]), name)
        for name, array in unpacked.items()
    )
    onnx.save(spelled, tmp_path / "spelled.onnx")
    ours, theirs = (
        file_logits(open_session(path), HEAD, rows)
        for path in (packed[1], tmp_path / "spelled.onnx")
    )
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "scheme",
    [INT4, pytest.param(INT4_REDUCED, marks=pytest.mark.slow)],
    ids=lambda scheme: scheme.name,
)
def test_coarse_matrices_take_a_byte_for_six_weights(
    scheme: Scheme, wide: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token's queries, attention's output and feed-forward part of the last layer; the pooler."""
    monkeypatch.setattr(spare, "_SHARE", np.inf)
    model, rows = wide
    file = quantize(model, scheme, rows.to_list(), tmp_path)
    arrays = _arrays(file)
    assert arrays[lookup.COARSE_CODEBOOK].shape == (256, 6)
    lengths = [128 * 22, 128 * 43, 256 * 22]
    codes = [a.size for n, a in arrays.items() if n.endswith("_codes") and a.size in lengths]
    # 128 and 256 weights of a row, the last vector filled up.
    assert sorted(codes) == [128 * 22] * 3 + [128 * 43, 256 * 22]
    ours, theirs = (file_logits(open_session(path), HEAD, rows) for path in (file, model))
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


@pytest.mark.parametrize("count", [256, LARGE])
def test_bytes_of_codes_find_their_vectors(count: int) -> None:
    kind = np.uint8 if count == 256 else np.uint16
    codes = np.random.default_rng(0).permutation(count).astype(kind)
    vectors = np.random.default_rng(1).integers(-128, 128, (count, 4), dtype=np.int8)
    stored = lookup.in_bytes(codes)
    graph = onnx.helper.make_graph(
        lookup.look_up("book", "codes", "found", stored.ndim == 2),
        "look up",
        [],
        [onnx.helper.make_tensor_value_info("found", onnx.TensorProto.INT8, None)],
        [numpy_helper.from_array(stored, "codes")],
    )
    lookup.add_codebooks(graph, {"book": vectors})
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert stored.dtype == np.uint8
    assert stored.nbytes == codes.nbytes
    assert np.array_equal(session.run(None, {})[0].reshape(-1, 4), vectors[codes])


def test_embeddings_of_nothing_but_zeros_stay_so(wide: tuple[Path, Any], tmp_path: Path) -> None:
    model, rows = onnx.load(wide[0]), wide[1]
    words = next(t for t in model.graph.initializer if "word_embeddings" in t.name)
    zeroed = numpy_helper.to_array(words).copy()
    zeroed[3] = 0.0
    words.CopyFrom(numpy_helper.from_array(zeroed, words.name))
    onnx.save(model, tmp_path / "zeroed.onnx")
    file = quantize(tmp_path / "zeroed.onnx", INT4, rows.to_list(), tmp_path)
    ours, theirs = (
        file_logits(open_session(path), HEAD, rows) for path in (file, tmp_path / "zeroed.onnx")
    )
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


def test_the_same_file_is_packed_to_the_same_bytes(
    packed: tuple[Scheme, Path], wide: tuple[Path, Any], tmp_path: Path
) -> None:
    model, rows = wide
    assert file_digest(quantize(model, packed[0], rows.to_list(), tmp_path)) == file_digest(
        packed[1]
    )


@pytest.mark.parametrize("scheme", [INT4, INT4_REDUCED], ids=lambda scheme: scheme.name)
def test_room_is_for_matrices_that_are_worth_most_in_eight_bits(
    scheme: Scheme, wide: tuple[Path, Any], tmp_path: Path
) -> None:
    model, rows = wide
    smallest = quantize(model, scheme, rows.to_list(), tmp_path).stat().st_size
    matrices = 4 * (4 * 128 * 128 + 2 * 128 * 256) + 128 * 128
    changes = []
    for share in (0.0, 0.4, 2.0):
        most = smallest + int(share * matrices / 2)
        file = quantize(model, scheme, rows.to_list(), tmp_path, most_bytes=most)
        assert file.stat().st_size <= most
        assert _largest_weight(file) <= (64 if scheme.reduce_range else 127)
        packed = {name for name in _arrays(file) if name.endswith("_codes") and "word" not in name}
        changes.append((len(packed), _squares(file, model, rows)))
    counts, errors = zip(*changes, strict=True)
    assert (counts[0], counts[2]) == (4 * 6 + 1, 0)
    assert 0 < counts[1] < 0.8 * counts[0]
    # Four tenths of the weights make up for more of what codes change.
    assert errors[1] - errors[2] < 0.6 * (errors[0] - errors[2])


def _squares(file: Path, model: Path, rows: Any) -> float:
    ours, theirs = (file_logits(open_session(path), HEAD, rows) for path in (file, model))
    return float(np.square(ours - theirs).sum())


def test_a_small_model_takes_four_bits_where_three_are_asked_for(
    wide: tuple[Path, Any], tmp_path: Path
) -> None:
    model, rows = wide
    four, three = (
        file_digest(quantize(model, scheme, rows.to_list(), tmp_path)) for scheme in (INT4, INT3)
    )
    assert four == three


def test_a_model_with_nothing_worth_packing_is_the_8_bit_file(
    exported: Path, rows: Any, tmp_path: Path
) -> None:
    for name in ("four", "eight"):
        (tmp_path / name).mkdir()
    read = rows["train"].to_list()
    four = quantize(exported, INT4, read, tmp_path / "four")
    eight = quantize(exported, INT8, read, tmp_path / "eight")
    assert file_digest(four) == file_digest(eight)


def test_where_nothing_is_packed_weights_keep_to_the_range_of_the_scheme(
    exported: Path, rows: Any, tmp_path: Path
) -> None:
    file = quantize(exported, INT4_REDUCED, rows["train"].to_list(), tmp_path)
    assert _largest_weight(file) <= 64


def test_embeddings_alone_are_packed_beside_seven_bits(
    wide: tuple[Path, Any], tmp_path: Path
) -> None:
    model, rows = wide
    file = quantize(model, INT8_WORDS_REDUCED, rows.to_list(), tmp_path)
    nodes, arrays = onnx.load(file).graph.node, _arrays(file)
    matrices = [node.input[1] for node in nodes if node.op_type == "MatMulInteger"]
    assert max(int(np.abs(arrays[name].astype(int)).max()) for name in matrices) == 64
    (codes,) = (array for name, array in arrays.items() if name.endswith("_codes"))
    assert (codes.dtype, codes.nbytes) == (np.uint8, 4_200 * 128 // 2)
    ours, theirs = (file_logits(open_session(path), HEAD, rows) for path in (file, model))
    assert np.abs(ours - theirs).max() < 0.1 * np.ptp(theirs)
