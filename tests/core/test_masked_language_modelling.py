"""Masks: which tokens, drawn when; and that only their logits are computed."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from distill_core.batches import LengthBuckets, collate, model_inputs, row_lengths, training_batch
from distill_core.config import TrainingSettings
from distill_core.errors import TeacherError
from distill_core.evaluation import file_logits, model_logits, read_labels, score
from distill_core.export import export_onnx
from distill_core.heads.masked_language_modelling import MaskedLanguageModelling, mask_tokens
from distill_core.heads.token_classification import NOT_COUNTED
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.quantization import quantize
from distill_core.schemes import INT8, INT8_REDUCED, Scheme
from distill_core.session import open_session
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET
from distill_core.teacher import describe, load_model, load_tokenizer
from distill_core.training import distill
from tests.conftest import TEXTS
from tests.core.family_models import SMALL, save_small

HEAD = MaskedLanguageModelling(())
MASK, WORDS = 4, 1000


def row_of(words: int) -> dict[str, Any]:
    """Return a row of so many words, 10 and up, between two special tokens."""
    ids = [2, *(10 + number % 900 for number in range(words)), 3]
    special = [1] + [0] * words + [1]
    return {"input_ids": ids, "special_tokens_mask": special, "masking": [MASK, WORDS]}


def encode(texts: list[str], tokenizer: PreTrainedTokenizerFast, max_length: int = 32) -> Dataset:
    columns = HEAD.encode({"text": texts}, tokenizer, max_length)
    columns["length"] = [len(ids) for ids in columns["input_ids"]]
    return Dataset.from_dict(columns)


def unmasked(row: dict[str, Any]) -> list[int]:
    """Return the token ids of a row as they were before some were masked."""
    return [
        token if label == NOT_COUNTED else label
        for token, label in zip(row["input_ids"], row["label"], strict=True)
    ]


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return encode(TEXTS[:40], tokenizer)


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    return save_small("bert", "ForMaskedLM", tokenizer, tmp_path / "teacher")


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_fifteen_of_a_hundred_words_are_masked_and_at_least_one(words: int, seed: int) -> None:
    row = row_of(words)
    masked = mask_tokens(row, np.random.default_rng(seed))
    counted = [label for label in masked["label"] if label != NOT_COUNTED]
    assert len(counted) == max(1, round(0.15 * words))
    assert unmasked(masked) == row["input_ids"]
    assert (masked["label"][0], masked["label"][-1]) == (NOT_COUNTED, NOT_COUNTED)


def test_of_ten_chosen_words_eight_become_the_mask_one_another_and_one_stays() -> None:
    fates: Counter[str] = Counter()
    for seed in range(500):
        masked = mask_tokens(row_of(200), np.random.default_rng(seed))
        for token, label in zip(masked["input_ids"], masked["label"], strict=True):
            if label != NOT_COUNTED:
                fates["mask" if token == MASK else "same" if token == label else "other"] += 1
    # 15,000 draws: the deviation of a share of 0.1 is 0.0024.
    shares = {fate: count / fates.total() for fate, count in fates.items()}
    assert shares == pytest.approx({"mask": 0.8, "same": 0.1, "other": 0.1}, abs=0.01)


def test_a_text_has_the_same_masks_wherever_it_stands(tokenizer: PreTrainedTokenizerFast) -> None:
    one, other = encode(TEXTS[:9], tokenizer), encode(TEXTS[8::-1], tokenizer)
    assert one["input_ids"][:] == other["input_ids"][::-1]
    assert one["label"][:] == other["label"][::-1]


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_the_text_of_a_row_shows_its_masks(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(family))
    for row in encode(TEXTS[:20], tokenizer):
        labels, ids = np.array(row["label"]), np.array(unmasked(row))
        expected = np.where(labels == NOT_COUNTED, ids, tokenizer.mask_token_id)
        assert tokenizer(row["text"]).input_ids == expected.tolist()
        assert HEAD.texts(row) == (row["text"],)


def test_a_long_text_becomes_several_rows_and_one_without_words_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = " ".join(TEXTS[:5])
    rows = encode(["", text, "   "], tokenizer, max_length=8)
    words = [token for row in rows for token in unmasked(row)[1:-1]]
    assert words == tokenizer(text, add_special_tokens=False).input_ids
    assert [row["length"] for row in rows][:-1] == [8] * (len(rows) - 1)


def test_a_tokenizer_without_a_mask_is_refused(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer.mask_token = None
    with pytest.raises(TeacherError, match="tokenizer has no mask token"):
        encode(TEXTS[:2], tokenizer)


def test_seed_epoch_and_row_decide_the_masks_to_learn_from(rows: Dataset) -> None:
    row = {**rows[0], "row": 5}

    def drawn(seed: int, epoch: int, number: int) -> list[int]:
        changed = HEAD.for_training({**row, "row": number}, seed, epoch)
        assert unmasked(changed) == unmasked(row)
        return changed["label"]

    assert drawn(0, 3, 5) == drawn(0, 3, 5)
    chosen = {tuple(drawn(*where)) for n in range(9) for where in ((n, 0, 0), (0, n, 0), (0, 0, n))}
    assert len(chosen) > 3  # of 5 words one is masked


def test_every_epoch_draws_other_masks_and_the_same_again(rows: Dataset) -> None:
    def labels(seed: int, epoch: int) -> dict[int, list[int]]:
        order = LengthBuckets(row_lengths(rows), 8, seed).of_epoch(epoch)
        drawn = partial(HEAD.for_training, seed=seed, epoch=epoch)
        batches = [training_batch(rows, numbers, 0, drawn) for numbers in order]
        return {
            int(number): label[label != NOT_COUNTED].tolist()
            for batch in batches
            for number, label in zip(batch["rows"], batch["labels"], strict=True)
        }

    assert labels(0, 1) == labels(0, 1)
    assert len({str(sorted(labels(*which).items())) for which in ((0, 0), (0, 1), (1, 0))}) == 3


@pytest.mark.parametrize("family", SMALL)
def test_the_logits_of_masked_tokens_are_those_of_all_and_no_others_are_there(
    family: str, tokenizer: PreTrainedTokenizerFast, rows: Dataset, tmp_path: Path
) -> None:
    model = load_model(save_small(family, "ForMaskedLM", tokenizer, tmp_path))
    batch = collate([rows[number] for number in range(6)], model.config.pad_token_id)
    inputs = model_inputs(model, batch)
    with torch.inference_mode():
        few = HEAD.run(model, inputs, batch["labels"], output_hidden_states=True)
        every = model(**inputs, output_hidden_states=True)
    masked = batch["labels"] != NOT_COUNTED
    assert few.logits.shape == (int(masked.sum()), model.config.vocab_size)
    assert_close(few.logits, every.logits[masked])
    assert_close(few.hidden_states[-1], every.hidden_states[-1])


def test_the_task_loss_is_transformers_own(folder: Path, rows: Dataset) -> None:
    model = load_model(folder)
    batch = collate([rows[number] for number in range(6)], 0)
    inputs = model_inputs(model, batch)
    with torch.inference_mode():
        few = HEAD.run(model, inputs, batch["labels"])
        expected = model(**inputs, labels=batch["labels"]).loss
    assert_close(HEAD.task_loss(few.logits, batch["labels"]), expected)


def test_units_are_the_best_token_and_the_surprise_of_the_right_one() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    label = np.array([NOT_COUNTED, 3, NOT_COUNTED, 6])  # a row of four in a batch of five
    expected = [[logits[n].argmax(), -log_softmax(logits[n])[y]] for n, y in ((1, 3), (3, 6))]
    assert HEAD.units(logits, {"label": label}) == pytest.approx(np.array(expected))
    assert HEAD.units(logits[[1, 3]], {"label": label}) == pytest.approx(np.array(expected))


def test_scores_are_what_counting_gives_by_hand() -> None:
    labels = HEAD.read_units({"label": [[NOT_COUNTED, 5, 6], [7, NOT_COUNTED]]})
    assert (labels.values.tolist(), labels.rows.tolist()) == ([5, 6, 7], [0, 0, 1])
    # e^((ln 2 + ln 4 + ln 8) / 3) = 64^(1/3) = 4
    said = np.array([[5, np.log(2)], [9, np.log(4)], [7, np.log(8)]])
    expected = {"accuracy": 2 / 3, "pseudo_perplexity": 4}
    assert HEAD.metrics(said, labels) == pytest.approx(expected)
    assert HEAD.statistics(said, labels).tolist() == [[1, 2], [1, 1]]
    assert HEAD.agreement(said, said[[0, 0, 2]]) == pytest.approx(2 / 3)
    # The second one says another token, and takes the right one to be half as probable.
    other = said + np.array([[0, 0], [7, np.log(2)], [0, 0]])
    assert HEAD.distance(said, other) == pytest.approx(np.log(2) ** 2 / 3)


def test_a_model_is_scored_as_torch_scores_it(folder: Path, rows: Dataset) -> None:
    model = load_model(folder)
    found = score(HEAD, model_logits(model, HEAD, rows), read_labels(HEAD, rows))
    losses, right = [], []
    for row in rows:
        batch = collate([row], 0)
        with torch.inference_mode():
            logits = model(**model_inputs(model, batch)).logits[0]
        label = batch["labels"][0]
        losses += [cross_entropy(logits, label, reduction="none")[label != NOT_COUNTED]]
        right += [(logits.argmax(dim=-1) == label)[label != NOT_COUNTED]]
    assert found["pseudo_perplexity"] == pytest.approx(torch.cat(losses).mean().exp().item())
    assert found["accuracy"] == pytest.approx(torch.cat(right).float().mean().item())


def test_what_an_app_must_reproduce_is_a_number_for_each_token() -> None:
    logits = np.log(np.array([[1.0, 3.0], [2.0, 2.0]]))
    assert HEAD.golden(logits) == pytest.approx(np.log([0.75, 0.5]))
    assert HEAD.answer(logits, {}) == "1 0"


def test_a_student_shares_its_words_with_its_decoder_when_loaded_again(
    folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    seen, teacher = describe(folder), load_model(folder)
    student = build_student(teacher, seen.layer_prefix, (0, 2))
    assert student.num_parameters() == seen.parameters - 2 * seen.layer_parameters
    save_model(student, folder, tmp_path / "student")
    loaded = load_model(tmp_path / "student")
    for model in (student, loaded):
        words = model.get_input_embeddings().weight
        assert model.get_output_embeddings().weight is words
        assert words is not teacher.get_input_embeddings().weight
    assert describe(tmp_path / "student").parameters == student.num_parameters()
    answers = [model_logits(model, HEAD, rows) for model in (student, loaded)]
    assert np.array_equal(*answers)


def test_a_training_is_the_same_for_the_same_seed_and_asks_the_teacher_in_every_epoch(
    folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    teacher = load_model(folder)
    student = build_student(teacher, "bert.encoder.layer.", (0, 2))
    settings = TrainingSettings(epochs=2, batch_size=8, precision="fp32")
    job = Job(rows, rows, HEAD, LossWeights(), settings)
    first, second = (distill(student, teacher, job, print, tmp_path) for _ in range(2))
    assert not first.kept_outputs
    assert [step.total for step in first.steps] == [step.total for step in second.steps]
    states = [trained.model.state_dict() for trained in (first, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    decoder = first.model.get_output_embeddings().weight
    assert decoder is first.model.get_input_embeddings().weight
    assert not torch.equal(decoder, student.get_output_embeddings().weight)


@pytest.mark.parametrize("scheme", [INT8, INT8_REDUCED], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_decoder_multiplies_by_the_8_bit_word_embeddings_that_the_file_holds_once(
    family: str,
    scheme: Scheme,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    tmp_path: Path,
) -> None:
    model = load_model(save_small(family, "ForMaskedLM", tokenizer, tmp_path / "teacher"))
    export_onnx(model, HEAD, rows, OPSET, tmp_path / "model.onnx")
    file = quantize(tmp_path / "model.onnx", scheme, [], tmp_path)
    graph = onnx.load(file, load_external_data=False).graph
    onnx.checker.check_model(str(file), full_check=True)
    tables = [t for t in graph.initializer if sorted(t.dims) == [32, model.config.vocab_size]]
    assert [table.data_type for table in tables] == [onnx.TensorProto.UINT8]
    widened = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert tables[0].name not in widened
    fp32, int8 = (file_logits(open_session(f), HEAD, rows) for f in (tmp_path / "model.onnx", file))
    assert np.abs(int8[:, 1] - fp32[:, 1]).max() < 0.2 < np.ptp(fp32[:, 1])
