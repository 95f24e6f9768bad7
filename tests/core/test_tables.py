"""Embeddings of a large vocabulary: tokens that the training texts never use are coarser than the others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from datasets import Dataset
from onnx import numpy_helper

from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.quantization import quantize
from distill_core.quantization.lookup import COARSE_CODEBOOK
from distill_core.quantization.tables import find_tables
from distill_core.schemes import INT3, INT4_WEB, INT8, INT8_WORDS, Scheme
from distill_core.session import open_session
from distill_core.targets import OPSET
from distill_core.teacher import load_model, load_tokenizer
from tests.core.embeddings import looked_up
from tests.core.family_models import save_small

HEAD = SequenceClassification(("negative", "positive"))
WORDS, WIDTH = 32_768, 128  # not whole vectors of six
USED = np.asarray([*range(0, 5_000), *range(9_000, 10_000)])
RARE = np.setdiff1d(np.arange(WORDS), USED)


@pytest.fixture(scope="module")
def large(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A BERT whose weights are enough for the large codebook, as an fp32 file, and rows for it."""
    folder, tokenizer = tmp_path_factory.mktemp("large"), load_tokenizer(tiny_bert)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 256, "vocab_size": WORDS}
    saved = save_small("bert", "ForSequenceClassification", tokenizer, folder / "model", **sizes)
    texts = ["the film was good", "a dull plot", "good acting", "it was a bad film"] * 8
    rows = [dict(tokenizer(text)) for text in texts]
    data = Dataset.from_list([{**r, "label": 0, "length": len(r["input_ids"])} for r in rows])
    export_onnx(load_model(saved), HEAD, data, OPSET, folder / "model.onnx")
    return folder / "model.onnx", data


@pytest.fixture(
    scope="module",
    params=[pytest.param(INT4_WEB, marks=pytest.mark.slow), INT3, INT8_WORDS],
    ids=lambda scheme: scheme.name,
)
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def packed(
    scheme: Scheme, large: tuple[Path, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp(scheme.name)
    return quantize(large[0], scheme, large[1].to_list(), folder, USED)


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
    sizes = {a.nbytes for n, a in arrays.items() if "word" in n and n.endswith("codes")}
    assert sizes == {2 * len(USED) * vectors, len(RARE) * vectors}


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


def test_embeddings_have_a_codebook_of_their_own_where_matrices_have_narrower_vectors(
    packed: Path, scheme: Scheme
) -> None:
    books = {n: a.shape for n, a in _arrays(packed).items() if a.dtype == np.int8 and a.ndim == 2}
    expected = {
        INT4_WEB: {"codebook": (65_536, 4), "codebook_of_embeddings": (65_536, 6)},
        INT3: {"codebook": (65_536, 6)},
        INT8_WORDS: {"codebook": (65_536, 4)},
    }
    assert books.pop(COARSE_CODEBOOK, (256, 6)) == (256, 6)
    assert {n: s for n, s in books.items() if n.startswith("codebook")} == expected[scheme]


def test_answers_are_near_those_of_the_fp32_file(packed: Path, large: tuple[Path, Dataset]) -> None:
    ours, theirs = (file_logits(open_session(path), HEAD, large[1]) for path in (packed, large[0]))
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


def test_operators_are_standard_ones_but_for_those_that_are_fused(
    packed: Path, scheme: Scheme
) -> None:
    model = onnx.load(packed)
    own = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    fused = {"QAttention", "SkipLayerNormalization", "BiasGelu"}
    assert own == (fused if scheme.fused else set())


def test_matrices_of_attention_are_codes_too_unless_embeddings_alone_are_packed(
    packed: Path, scheme: Scheme
) -> None:
    model = onnx.load(packed)
    arrays = _arrays(packed)
    weights = [
        node.input[1]
        for node in model.graph.node
        if node.op_type in ("MatMulInteger", "QAttention") and node.input[1] not in arrays
    ]
    codes = {name.removesuffix("_codes") for name in arrays if name.endswith("_codes")}
    # Of 4 layers: queries, keys and values (one matrix where they are fused, which the last layer's are
    # not), and three more; the pooler.
    in_codes = 3 * (4 if scheme.fused else 6) + 6 + 1
    assert len(weights) == (in_codes if scheme.packs == "all" else 0)
    assert set(weights) <= codes


def test_a_file_for_the_web_holds_no_numbers_of_sixteen_bits(packed: Path, scheme: Scheme) -> None:
    arrays = _arrays(packed)
    wide = {name for name, array in arrays.items() if array.dtype == np.uint16}
    assert bool(wide) != scheme.byte_codes


@pytest.mark.parametrize("used", [None, USED[:0], np.arange(WORDS)], ids=["unknown", "none", "all"])
def test_where_use_tells_nothing_all_tokens_are_alike(
    used: Any, large: tuple[Path, Dataset], tmp_path: Path
) -> None:
    graph = onnx.load(quantize(large[0], INT8, [], tmp_path)).graph
    tables = find_tables(graph, used)
    assert len(tables) == 1
    assert not tables[0].rows.rare.any()
