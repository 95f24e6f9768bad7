"""Multiple choice: rows of several sequences, on their way through batches, losses and kept outputs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import DatasetDict
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.batches import collate, evaluation_batches, model_inputs, open_tokenized, tokenize
from distill_core.config import Columns, DataSource, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.errors import DataError
from distill_core.evaluation import evaluate, model_logits, read_labels
from distill_core.heads.multiple_choice import MultipleChoice
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.student import build_student
from distill_core.teacher import load_model
from distill_core.training import Trained, distill
from tests.core.family_models import save_small

HEAD = MultipleChoice(())
TEXTS = ["the film", "the plot was", "a", "the cast was not"] * 3
CHOICES = [["was good", "bad"], ["dull", "very very dull"], ["film", ""], ["tired", "ever so"]] * 3
LABELS = [0, 1, 0, 1] * 3


def write(folder: Path, texts: Any = TEXTS, choices: Any = CHOICES, labels: Any = LABELS) -> None:
    for name in ("train", "validation"):
        table = pa.table({"text": texts, "choices": choices, "label": labels})
        pq.write_table(table, folder / f"{name}.parquet")


def read(folder: Path, **columns: Any) -> Splits:
    return read_dataset(DataSource(source=str(folder), columns=Columns(**columns)), HEAD, seed=0)


@pytest.fixture(scope="module")
def rows(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> DatasetDict:
    folder = tmp_path_factory.mktemp("rows")
    write(folder)
    tokenize(read(folder), HEAD, tokenizer, max_length=32, folder=folder / "tokenized")
    return open_tokenized(folder / "tokenized")


@pytest.fixture(scope="module")
def teacher(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedModel:
    """A BERT with random weights that chooses."""
    folder = tmp_path_factory.mktemp("teacher")
    return load_model(save_small("bert", "ForMultipleChoice", tokenizer, folder))


def test_the_choices_of_a_row_are_padded_to_the_longest(
    rows: DatasetDict, tokenizer: PreTrainedTokenizerFast
) -> None:
    for row in rows["train"]:
        pairs = [(row["text"], choice) for choice in row["choices"]]
        expected = tokenizer(pairs, padding=True)
        assert {name: row[name] for name in expected} == dict(expected)
        assert row["length"] == sum(map(sum, expected["attention_mask"]))


def test_a_batch_is_what_the_tokenizer_itself_would_pad(
    rows: DatasetDict, tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = collate([rows["train"][number] for number in range(4)], pad_token_id=0)
    pairs = [
        (text, c) for text, choices in zip(TEXTS[:4], CHOICES[:4], strict=True) for c in choices
    ]
    expected = tokenizer(pairs, padding=True, return_tensors="pt")
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor.unflatten(0, (4, 2)))
    assert batch["labels"].tolist() == LABELS[:4]


def test_longer_choices_are_cut_and_texts_too(tokenizer: PreTrainedTokenizerFast) -> None:
    row = HEAD.read_texts(["film " * 50, "good", "bad " * 50], tokenizer, max_length=16)
    assert [len(ids) for ids in row["input_ids"]] == [16, 16]
    assert row["input_ids"] == [
        tokenizer("film " * 50, second, truncation=True, max_length=16).input_ids
        for second in ("good", "bad " * 50)
    ]


def test_the_task_loss_is_transformers_own(rows: DatasetDict, teacher: PreTrainedModel) -> None:
    batch = collate([rows["train"][number] for number in range(4)], pad_token_id=0)
    answer = teacher(**model_inputs(teacher, batch), labels=batch["labels"])
    logits = HEAD.read_output(answer, batch["attention_mask"])
    assert_close(HEAD.task_loss(logits, batch["labels"]), answer.loss)


def test_a_model_answers_every_row_as_it_answers_it_alone(
    rows: DatasetDict, teacher: PreTrainedModel
) -> None:
    logits = model_logits(teacher, HEAD, rows["validation"])
    for (number,), batch in evaluation_batches(rows["validation"], 1, pad_token_id=0):
        with torch.inference_mode():
            alone = teacher(**model_inputs(teacher, batch)).logits[0]
        assert_close(torch.tensor(logits[number]), alone, atol=1e-5, rtol=0)


def test_an_evaluation_has_accuracy_and_no_classes(
    rows: DatasetDict, teacher: PreTrainedModel
) -> None:
    labels = read_labels(HEAD, rows["validation"])
    right = torch.nn.functional.one_hot(torch.tensor(LABELS)).double().numpy()
    wrong = right.copy()
    wrong[0] = 1 - wrong[0]
    facts = evaluate(HEAD, right, wrong, labels, seed=0)
    assert (facts["rows"], facts["teacher"]) == (12, {"accuracy": 1})
    assert facts["student"]["accuracy"] == facts["agreement"] == pytest.approx(11 / 12)
    assert (facts["per_class"], facts["confusion"]) == ([], [])


def train(rows: DatasetDict, teacher: PreTrainedModel, scratch: Path | None) -> Trained:
    settings = TrainingSettings(epochs=3, batch_size=5, precision="fp32")
    job = Job(rows["train"], rows["validation"], HEAD, LossWeights(), settings)
    student = build_student(teacher, "bert.encoder.layer.", (0, 2))
    return distill(student, teacher, job, lambda record: None, scratch)


def test_the_cosine_is_of_all_tokens_of_all_choices(
    rows: DatasetDict, teacher: PreTrainedModel
) -> None:
    settings = TrainingSettings(
        epochs=1, batch_size=12, precision="fp32", learning_rate=1e-9, dropout=False
    )
    weights = LossWeights(hidden_layers="last")
    job = Job(rows["train"], rows["validation"], HEAD, weights, settings)
    student = build_student(teacher, "bert.encoder.layer.", (0, 2))
    (step,) = distill(student, teacher, job, lambda record: None).steps
    angles = []
    for row in rows["train"]:
        for choice in range(2):
            ids = [torch.tensor([row[name][choice]]) for name in ("input_ids", "attention_mask")]
            segments = torch.tensor([row["token_type_ids"][choice]])
            ours, theirs = (
                model.base_model(*ids, segments).last_hidden_state[0]
                for model in (student, teacher)
            )
            angles.append((1 - cosine_similarity(ours, theirs, dim=-1))[ids[1][0] == 1])
    assert step.losses["cosine"] == pytest.approx(torch.cat(angles).mean().item(), rel=1e-4)


def test_a_training_with_kept_outputs_goes_as_one_that_asks_again(
    rows: DatasetDict, teacher: PreTrainedModel, tmp_path: Path
) -> None:
    asked, kept = (train(rows, teacher, scratch) for scratch in (None, tmp_path))
    assert kept.kept_outputs
    for name in ("distillation", "task", "cosine"):
        expected = [step.losses[name] for step in asked.steps]
        assert [step.losses[name] for step in kept.steps] == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("labels", [["0", "1"], ["A", "B"]])
def test_labels_may_be_texts(tmp_path: Path, labels: list[str]) -> None:
    write(tmp_path, labels=labels * 6)
    assert read(tmp_path).validation["label"][:] == [0, 1] * 6


def test_each_choice_may_have_a_column_of_its_own(tmp_path: Path) -> None:
    first, second = (list(column) for column in zip(*CHOICES, strict=True))
    table = pa.table({"text": TEXTS, "ending0": first, "ending1": second, "label": LABELS})
    for name in ("train", "validation"):
        # Rows that are read in three pieces, as those of a large file are.
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=5)
    splits = read(tmp_path, choices=("ending0", "ending1"))
    assert (splits.train["choices"][:], splits.validation["choices"][:]) == (CHOICES[:4], CHOICES)


def test_choices_may_stand_within_another_column(tmp_path: Path) -> None:
    listed = [{"label": ["A", "B"], "text": choices} for choices in CHOICES]
    write(tmp_path, choices=listed)
    assert read(tmp_path, choices="choices.text").validation["choices"][:] == CHOICES


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("text", "ending1"), r"no column 'ending1'; .* set data\.columns\.choices"),
        (("text", "label"), "column label: holds int64, not text"),
        ("choices.text", r"no column 'choices\.text'"),
    ],
)
def test_columns_of_choices_that_are_not_there_or_hold_no_text_are_refused(
    tmp_path: Path, columns: Any, says: str
) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=f"train.*{says}"):
        read(tmp_path, choices=columns)


@pytest.mark.parametrize(
    ("choices", "labels", "says"),
    [
        ([["a", "b"], ["a", "b", "c"]], [0, 0], "row 1 has 3 texts in choices.*2 in row 0"),
        ([["a"], ["b"]], [0, 0], "row 0 has 1 texts .*at least two"),
        ([["a", "b"], ["a", None]], [0, 0], "row 1 has 2 texts in choices, 1 of them empty"),
        ([["a", "b"], ["a", "b"]], [0, 2], "row 1 has the label 2 in label; accepted: 0 to 1"),
        ([["a", "b"], ["a", "b"]], [0, -1], "row 1 has the label -1; accepted: the number of"),
        ([["a", "b"], ["a", "b"]], ["0", "A"], "row 1 has the label 'A'"),
        ([["a", "b"], ["a", "b"]], ["A", "1"], "row 1 has the label '1'"),
        ([["a", "b"], ["a", "b"]], ["A", "AB"], "row 1 has the label 'AB'"),
        ([["a", "b"], ["a", "b"]], ["A", ""], "row 1 has the label ''"),
        (["a", "b"], [0, 1], "column choices: holds string, not lists of texts"),
    ],
)
def test_rows_that_leave_no_choice_are_refused(
    tmp_path: Path, choices: Any, labels: Any, says: str
) -> None:
    write(tmp_path, ["the film", "the plot"], choices, labels)
    with pytest.raises(DataError, match=f"train.*{says}"):
        read(tmp_path)
