"""Embeddings of a large vocabulary: tokens that the training texts never use are coarser than the others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from datasets import Dataset
from onnx import numpy_helper

from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.quantization import quantize, tables
from distill_core.quantization.codebook import LARGE
from distill_core.quantization.coded import find_rare
from distill_core.quantization.lookup import COARSE_CODEBOOK
from distill_core.quantization.tables import code_table
from distill_core.schemes import INT3, INT3_REDUCED, INT4_REDUCED, INT8_WORDS, Scheme
from distill_core.session import open_session
from distill_core.targets import OPSET
from distill_core.teacher import load_model, load_tokenizer
from tests.core.embeddings import looked_up
from tests.core.family_models import save_small

HEAD = SequenceClassification(("negative", "positive"))
WORDS, WIDTH = 16_384, 128  # not whole vectors of six
USED = np.asarray([*range(0, 5_000), *range(9_000, 10_000)])
RARE = np.setdiff1d(np.arange(WORDS), USED)


@pytest.fixture(scope="module")
def large(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A BERT whose words are enough for the large codebook, as an fp32 file, and rows for it."""
    return _save(tiny_bert, tmp_path_factory.mktemp("large"), 256)


def _save(tiny_bert: Path, folder: Path, neurons: int) -> tuple[Path, Dataset]:
    tokenizer = load_tokenizer(tiny_bert)
    sizes = {"hidden_size": WIDTH, "intermediate_size": neurons, "vocab_size": WORDS}
    saved = save_small("bert", "ForSequenceClassification", tokenizer, folder / "model", **sizes)
    texts = ["the film was good", "a dull plot", "good acting", "it was a bad film"] * 8
    rows = [dict(tokenizer(text)) for text in texts]
    data = Dataset.from_list([{**r, "label": 0, "length": len(r["input_ids"])} for r in rows])
    export_onnx(load_model(saved), HEAD, data, OPSET, folder / "model.onnx")
    return folder / "model.onnx", data


@pytest.fixture(
    scope="module",
    params=[pytest.param(INT4_REDUCED, marks=pytest.mark.slow), INT3, INT8_WORDS],
    ids=lambda scheme: scheme.name,
)
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def packed(
    scheme: Scheme, large: tuple[Path, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return _pack(*large, scheme, tmp_path_factory.mktemp(scheme.name))


def _pack(model: Path, rows: Dataset, scheme: Scheme, folder: Path) -> Path:
    assert scheme.packing
    words = code_table(onnx.load(model), USED, scheme.packing)
    return quantize(model, scheme, rows.to_list(), folder, words)


def _table_width(scheme: Scheme) -> int:
    """Return how many weights of an embedding a code stands for."""
    return 4 if scheme == INT8_WORDS else 6


def _arrays(file: Path) -> dict[str, Any]:
    graph = onnx.load(file).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_vectors_take_two_bytes_of_tokens_in_use_and_one_of_the_others(
    packed: Path, scheme: Scheme
) -> None:
    vectors = -(-WIDTH // _table_width(scheme))
    arrays = _arrays(packed)
    first, second = (
        next(a for n, a in arrays.items() if "word" in n and n.endswith(ending))
        for ending in ("first_bytes", "codes")
    )
    # A last row of first bytes is that of all tokens that have none.
    assert (first.shape, first.dtype) == ((len(USED) + 1, vectors), np.uint8)
    assert (second.shape, second.dtype) == ((WORDS, 1, vectors), np.uint8)


def test_each_token_is_given_its_own_row(packed: Path, large: tuple[Path, Dataset]) -> None:
    table = next(
        array
        for name, array in _arrays(large[0]).items()
        if "word" in name and array.shape == (WORDS, WIDTH)
    )
    generator = np.random.default_rng(0)
    ids = [
        [0, WORDS - 1, 4_999, 5_000, 8_999, 9_000, 9_999, 10_000],
        *generator.integers(0, WORDS, (30, 8)).tolist(),
    ]
    found, meant = looked_up(packed, ids), table[np.asarray(ids)]
    distances = np.linalg.norm(found.reshape(-1, 1, WIDTH) - meant.reshape(1, -1, WIDTH), axis=-1)
    same = np.asarray(ids).reshape(-1, 1) == np.asarray(ids).reshape(1, -1)
    assert all(same[row, column] for row, column in enumerate(distances.argmin(axis=1)))


def test_rows_beyond_two_bytes_are_found_too(
    large: tuple[Path, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a vocabulary of which more than 65,280 tokens are in use."""
    ids = [[0, WORDS - 1, 4_999, 5_000, 8_999, 9_000, 9_999, 10_000]]
    found = []
    for most in (tables.LARGE, 1_000):
        monkeypatch.setattr(tables, "LARGE", most)
        found.append(looked_up(_pack(*large, INT8_WORDS, tmp_path), ids))
    assert np.array_equal(*found)


def test_tokens_in_use_are_nearer_to_what_they_were(
    packed: Path, scheme: Scheme, large: tuple[Path, Dataset]
) -> None:
    table = next(a for n, a in _arrays(large[0]).items() if "word" in n and a.shape[0] == WORDS)

    def kept(ids: Any) -> float:
        picked = ids[:: len(ids) // 200][:200].reshape(25, 8)
        meant = table[picked]
        error = looked_up(packed, picked.tolist()) - meant
        return float(10 * np.log10((meant**2).sum() / (error**2).sum()))

    used, rare = kept(USED), kept(RARE)
    width = _table_width(scheme)
    assert used > {4: 17, 6: 11}[width]
    assert {4: 8, 6: 5}[width] < rare < used - 3


def _books(file: Path) -> dict[str, tuple[int, ...]]:
    arrays = {n: a for n, a in _arrays(file).items() if n.startswith("codebook")}
    return {name: array.shape for name, array in arrays.items() if array.dtype == np.int8}


def test_words_have_a_codebook_of_their_own(packed: Path, scheme: Scheme) -> None:
    books = _books(packed)
    assert books.pop("codebook_of_words") == (LARGE, _table_width(scheme))
    assert books.pop(COARSE_CODEBOOK, (256, 6)) == (256, 6)
    # The matrices are too few for a large one.
    assert books == ({"codebook": (256, 2)} if scheme.packs == "all" else {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", [INT3, INT3_REDUCED, INT4_REDUCED], ids=lambda scheme: scheme.name
)
def test_many_matrices_share_it_where_their_vectors_are_as_wide(
    scheme: Scheme, tiny_bert: Path, tmp_path: Path
) -> None:
    model, rows = _save(tiny_bert, tmp_path, 2_048)
    file = _pack(model, rows, scheme, tmp_path)
    books = {n: s for n, s in _books(file).items() if n != COARSE_CODEBOOK}
    own = {} if scheme.vector == 6 else {"codebook": (LARGE, 4)}
    assert books == own | {"codebook_of_words": (LARGE, 6)}
    shared = _arrays(file)["codebook" if own else "codebook_of_words"]
    assert np.abs(shared.astype(int)).max() <= (64 if scheme.reduce_range else 127)
    ours, theirs = (file_logits(open_session(path), HEAD, rows) for path in (file, model))
    assert np.abs(ours - theirs).max() < 0.4 * np.ptp(theirs)  # random numbers, in 2.7 bits


def test_answers_are_near_those_of_the_fp32_file(packed: Path, large: tuple[Path, Dataset]) -> None:
    ours, theirs = (file_logits(open_session(path), HEAD, large[1]) for path in (packed, large[0]))
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


def test_runtimes_have_nothing_to_say_when_they_load_it(
    packed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnxruntime.InferenceSession(packed)
    assert capfd.readouterr() == ("", "")


def test_operators_are_standard_ones(packed: Path) -> None:
    assert {node.domain for node in onnx.load(packed).graph.node} <= {"", "ai.onnx"}


def test_matrices_of_attention_are_codes_too_unless_embeddings_alone_are_packed(
    packed: Path, scheme: Scheme
) -> None:
    model = onnx.load(packed)
    arrays = _arrays(packed)
    weights = [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMulInteger" and not arrays.keys() & set(node.input[:2])
    ]
    codes = {name.removesuffix("_codes") for name in arrays if name.endswith("_codes")}
    # Of 4 layers: queries, keys and values, and three more; the pooler.
    assert len(weights) == (4 * 6 + 1 if scheme.packs == "all" else 0)
    assert set(weights) <= codes


def test_no_file_holds_whole_numbers_of_sixteen_bits(packed: Path) -> None:
    """onnxruntime-web's WebGPU build, which transformers.js loads, has no Cast from them."""
    wide = (np.uint16, np.int16)
    assert not {name for name, array in _arrays(packed).items() if array.dtype in wide}


@pytest.mark.parametrize("used", [None, USED[:0], np.arange(WORDS)], ids=["unknown", "none", "all"])
def test_where_use_tells_nothing_all_tokens_are_alike(used: Any) -> None:
    assert not find_rare((WORDS, WIDTH), used).any()
