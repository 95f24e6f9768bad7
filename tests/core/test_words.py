"""Word embeddings packed before or after the training: what a student learns with is what its files hold."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from onnx import numpy_helper
from transformers import PreTrainedTokenizerFast

from distill_core.config import TrainingSettings
from distill_core.errors import ConfigError
from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.mode import attention_of, with_attention
from distill_core.optimization import freeze_embeddings, word_embeddings
from distill_core.quantization import quantize
from distill_core.quantization.coded import CodedRows
from distill_core.quantization.words import code_words, copy_words, read_words, write_words
from distill_core.schemes import INT3, INT4_REDUCED, INT8_WORDS, INT8_WORDS_REDUCED, Scheme
from distill_core.session import open_session
from distill_core.targets import OPSET
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import distill
from tests.core.embeddings import looked_up
from tests.core.family_models import save_small

HEAD = SequenceClassification(("negative", "positive"))
WORDS, WIDTH = 32_768, 68  # not whole vectors of eight
USED = np.asarray([*range(0, 5_000), *range(9_000, 10_000)])
RARE = np.setdiff1d(np.arange(WORDS), USED)
TEXTS = ["the film was good", "a dull plot", "good acting", "it was a bad film"] * 8


@pytest.fixture(scope="module")
def student(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of many words, which are packed, with its fp32 file beside it."""
    folder, tokenizer = tmp_path_factory.mktemp("student"), load_tokenizer(tiny_bert)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "vocab_size": WORDS,
        "num_attention_heads": 4,
    }
    saved = save_small("bert", "ForSequenceClassification", tokenizer, folder / "model", **sizes)
    model = load_model(saved)
    write_words(code_words(model, USED), folder)
    model.save_pretrained(saved)
    export_onnx(model, HEAD, _rows(tokenizer), OPSET, folder / "model.onnx")
    return folder


def _rows(tokenizer: PreTrainedTokenizerFast) -> Dataset:
    rows = [dict(tokenizer(text)) for text in TEXTS]
    return Dataset.from_list([{**r, "label": 0, "length": len(r["input_ids"])} for r in rows])


@pytest.fixture(scope="module")
def words(student: Path) -> CodedRows:
    found = read_words(student)
    assert found is not None
    return found


def _table(folder: Path) -> Float[np.ndarray, "words width"]:
    return word_embeddings(load_model(folder / "model")).weight.detach().numpy()


def test_the_student_holds_what_the_codes_stand_for(student: Path, words: CodedRows) -> None:
    assert np.array_equal(_table(student), words.weights())


def test_a_weight_takes_two_bits_and_one_where_training_texts_have_no_such_word(
    words: CodedRows,
) -> None:
    vectors = -(-WIDTH // 8)
    assert (words.common.dtype, words.coarse.dtype) == (np.uint16, np.uint8)
    assert words.common.shape == (len(USED), vectors)
    assert words.coarse.shape == (len(RARE), vectors)
    assert np.array_equal(np.flatnonzero(words.rare), RARE)


def test_words_stay_near_what_they_were_those_in_use_nearer(
    student: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 256, "vocab_size": WORDS}
    tokenizer = load_tokenizer(tiny_bert)
    model = load_model(
        save_small("bert", "ForSequenceClassification", tokenizer, tmp_path / "model", **sizes)
    )
    meant, found = word_embeddings(model).weight.detach().numpy(), _table(student)

    def kept(ids: np.ndarray) -> float:
        error = ((found[ids] - meant[ids]) ** 2).sum()
        return float(10 * np.log10((meant[ids] ** 2).sum() / error))

    assert kept(USED) > 9  # random numbers, which are as hard as any
    assert 2 < kept(RARE) < kept(USED) - 3


@given(st.lists(st.integers(0, WORDS - 1), min_size=1, unique=True))
def test_rows_that_are_picked_are_those_that_were_there(words: CodedRows, ids: list[int]) -> None:
    picked = np.asarray(sorted(ids))
    assert np.array_equal(words.pick(picked).weights(), words.weights()[picked])


def test_smaller_numbers_stand_for_nearly_the_same_words(words: CodedRows) -> None:
    within = words.within(64)
    largest, smaller = (np.abs(rows.vectors.astype(int)).max() for rows in (words, within))
    assert smaller == round(largest * 64 / 127)
    assert np.array_equal(within.common, words.common)
    error = ((within.weights() - words.weights()) ** 2).sum() / (words.weights() ** 2).sum()
    assert error < 5e-3


def test_they_are_written_and_read(words: CodedRows, student: Path, tmp_path: Path) -> None:
    copy_words(student, tmp_path)
    again = read_words(tmp_path)
    assert again is not None
    for name, value in vars(words).items():
        assert np.array_equal(getattr(again, name), value)


def test_where_there_are_none_none_are_read_or_copied(tmp_path: Path) -> None:
    copy_words(tmp_path, tmp_path)
    assert read_words(tmp_path) is None


@pytest.mark.parametrize(
    "scheme", [INT8_WORDS, INT8_WORDS_REDUCED, INT3, INT4_REDUCED], ids=lambda scheme: scheme.name
)
def test_a_file_looks_up_exactly_what_the_student_learnt_with(
    scheme: Scheme, student: Path, words: CodedRows, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = _rows(load_tokenizer(tiny_bert))
    file = quantize(student / "model.onnx", scheme, rows.to_list(), tmp_path, words)
    ids = np.random.default_rng(0).integers(0, WORDS, (30, 8))
    ids[0] = [0, WORDS - 1, 4_999, 5_000, 8_999, 9_000, 9_999, 10_000]
    np.testing.assert_array_equal(looked_up(file, ids.tolist()), _table(student)[ids])
    ours, theirs = (
        file_logits(open_session(path), HEAD, rows) for path in (file, student / "model.onnx")
    )
    assert np.abs(ours - theirs).max() < 0.25 * np.ptp(theirs)


def test_matrices_keep_a_codebook_of_their_own(
    student: Path, words: CodedRows, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = _rows(load_tokenizer(tiny_bert))
    file = quantize(student / "model.onnx", INT3, rows.to_list(), tmp_path, words)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    assert np.array_equal(arrays["codebook_of_words"], words.vectors)
    # Matrices alone are too few for the large one.
    assert arrays["codebook"].shape == (256, 2)


def test_a_small_vocabulary_takes_four_bits(tiny_bert: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "vocab_size": 8_192}
    tokenizer = load_tokenizer(tiny_bert)
    model = load_model(
        save_small("bert", "ForSequenceClassification", tokenizer, tmp_path, **sizes)
    )
    before = word_embeddings(model).weight.detach().numpy().copy()
    coded = code_words(model, np.asarray([0, 1, 2]))
    assert coded.vectors.shape == (256, 2)
    assert coded.common.nbytes == before.size / 2
    assert not coded.rare.any()
    error = ((coded.weights() - before) ** 2).sum() / (before**2).sum()
    assert error < 0.03


def test_words_too_few_to_be_packed_in_a_file_are_refused(tiny_bert: Path) -> None:
    model = load_model(tiny_bert)
    message = "student.packed_words: the word embeddings have 2,528 weights.*accepted: null"
    with pytest.raises(ConfigError, match=message):
        code_words(model, np.asarray([0, 1, 2]))


def test_a_training_leaves_frozen_words_alone_and_nothing_else(tiny_bert: Path) -> None:
    start = load_model(tiny_bert)
    freeze_embeddings(start)
    rows = _rows(load_tokenizer(tiny_bert))
    settings = TrainingSettings(epochs=1, batch_size=8, precision="fp32")
    work = Job(rows, rows, HEAD, LossWeights(), settings)
    trained = distill(start, load_model(tiny_bert), work, listen=lambda record: None).model
    before, after = start.state_dict(), trained.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        "bert.embeddings.word_embeddings.weight"
    }


def test_a_copy_with_other_attention_keeps_them_frozen(tiny_bert: Path) -> None:
    model = load_model(tiny_bert)
    freeze_embeddings(model)
    other = with_attention(model, "eager")
    assert attention_of(other) != attention_of(model)
    frozen = [name for name, tensor in other.named_parameters() if not tensor.requires_grad]
    assert frozen == ["bert.embeddings.word_embeddings.weight"]
