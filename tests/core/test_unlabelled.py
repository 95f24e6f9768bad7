"""Text that nobody labelled: how it is read, and what a student learns of it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from distill_core.augmentation import augment
from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.errors import DataError
from distill_core.heads import Head
from distill_core.heads.multiple_choice import MultipleChoice
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.job import Job, StepRecord
from distill_core.loss_weights import LossWeights
from distill_core.schedule import epochs
from distill_core.student import build_student
from distill_core.teacher import load_tokenizer
from distill_core.training import Trained, distill
from distill_core.unlabelled import count_copies, unlabelled_fingerprint
from tests.conftest import TEXTS

HEAD = SequenceClassification(("negative", "positive"))
UNLABELLED = ("first", "between")
LINES = ["one text", "", "another", "  ", "one text", "scored", "a third"]


def source_of(folder: Path, unlabelled: str) -> DataSource:
    for name, texts in (("train", ["x", "y"]), ("validation", ["scored", "z"])):
        pq.write_table(pa.table({"text": texts, "label": [0, 1]}), folder / f"{name}.parquet")
    return DataSource(source=str(folder), unlabelled=str(folder / unlabelled))


def write(path: Path, column: str = "text", **more: Any) -> None:
    if path.suffix == ".txt":
        path.write_text("\n".join(LINES) + "\n")
    elif path.suffix == ".csv":
        Dataset.from_dict({column: LINES, **more}).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        Dataset.from_dict({column: LINES, **more}).to_json(path)
    else:
        pq.write_table(pa.table({column: LINES, **more}), path)


@pytest.mark.parametrize("name", ["more.txt", "more.parquet", "more.csv", "more.jsonl"])
def test_a_file_of_texts_is_read_but_for_empty_repeated_and_scored_ones(
    name: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    splits = read_dataset(source_of(tmp_path, name), HEAD, seed=0)
    assert splits.unlabelled is not None
    assert splits.unlabelled[:] == {"text": ["one text", "another", "a third"]}
    told = "unlabelled: 4 of 7 texts are empty, stand there twice or are scored, and were left out"
    # An empty line is no row to the reader of csv files.
    assert splits.notes == (told.replace("4 of 7", "3 of 6") if name.endswith("csv") else told,)


def test_a_scored_text_of_words_is_left_out_however_it_is_spaced(tmp_path: Path) -> None:
    for name, words in (("train", ["a", "b"]), ("validation", ["Well", ",", "a", "film", "!"])):
        table = pa.table({"tokens": [words], "tags": [[0] * len(words)]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "more.txt").write_text("Well, a film!\nWell , a film !\nwell, a film!\n")
    source = DataSource(source=str(tmp_path), unlabelled=str(tmp_path / "more.txt"))
    splits = read_dataset(source, TokenClassification(("O", "B-THING")), seed=0)
    assert splits.unlabelled is not None
    assert splits.unlabelled["text"][:] == ["well, a film!"]


def test_a_single_column_of_texts_may_have_any_name(tmp_path: Path) -> None:
    write(tmp_path / "more.parquet", "body", number=[1] * 7)
    splits = read_dataset(source_of(tmp_path, "more.parquet"), HEAD, seed=0)
    assert splits.unlabelled is not None
    assert splits.unlabelled.column_names == ["text"]


def test_a_folder_with_a_train_file_will_do(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    write(tmp_path / "corpus" / "train.txt")
    splits = read_dataset(source_of(tmp_path, "corpus"), HEAD, seed=0)
    assert len(splits.unlabelled or ()) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("more.docx", r"data.unlabelled: .*more.docx ends with '.docx'; accepted: .parquet, .*txt"),
        ("none.txt", r"data.unlabelled: .*none.txt is not a folder"),
        ("two.parquet", r"columns of text body, title; accepted: text, as in data.columns.text"),
        ("empty.txt", r"empty.txt: is empty"),
        ("scored.txt", r"no text is left of 1"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_key(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "more.docx").write_bytes(b"x")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "scored.txt").write_text("scored\n")
    write(tmp_path / "two.parquet", "body", title=LINES)
    with pytest.raises(DataError, match=says):
        read_dataset(source_of(tmp_path, name), HEAD, seed=0)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text("other")
    a, b, c = (unlabelled_fingerprint(source_of(tmp_path, f"{name}.txt")) for name in "abc")
    assert a == b != c
    assert unlabelled_fingerprint(DataSource(source=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("augment", "head", "rows", "copies"),
    [
        ("auto", HEAD, 29_999, 2),
        ("auto", HEAD, 30_000, 0),
        ("auto", MultipleChoice(()), 100, 0),
        (5, HEAD, 1_000_000, 5),
        (0, HEAD, 100, 0),
    ],
)
def test_few_texts_are_copied_with_other_words(
    augment: Any, head: Head, rows: int, copies: int
) -> None:
    assert count_copies(augment, head, rows) == copies


def test_augmented_rows_follow_the_unlabelled_ones(
    splits: Splits, tiny_bert: Path, tmp_path: Path
) -> None:
    few = replace(
        splits,
        train=splits.train.select(range(16)),
        unlabelled=Dataset(pa.table({"text": sorted(TEXTS)[:5]})),
    )
    tokenizer, vectors = load_tokenizer(tiny_bert), torch.randn(4000, 8)
    more = partial(augment, embeddings=vectors, tokenizer=tokenizer, copies=2, seed=0)
    tokenize(few, HEAD, tokenizer, 32, tmp_path / "rows", more)
    rows = open_tokenized(tmp_path / "rows")
    assert len(rows["unlabelled"]) == 5 + 2 * 16
    assert "label" not in rows["unlabelled"].column_names
    assert rows["unlabelled"]["length"][5:21] == rows["train"]["length"][:]
    tokenize(replace(few, unlabelled=None), HEAD, tokenizer, 32, tmp_path / "alone", more)
    assert len(open_tokenized(tmp_path / "alone")["unlabelled"]) == 2 * 16


@pytest.fixture
def job(splits: Splits, tiny_bert: Path, tmp_path: Path) -> Job:
    """Six batches of unlabelled rows, and three epochs of two batches of labelled ones."""
    few = replace(
        splits,
        train=splits.train.select(range(16)),
        unlabelled=Dataset(pa.table({"text": sorted(TEXTS)[:48]})),
    )
    tokenize(few, HEAD, load_tokenizer(tiny_bert), max_length=32, folder=tmp_path / "rows")
    rows = open_tokenized(tmp_path / "rows")
    settings = TrainingSettings(
        epochs=3,
        batch_size=8,
        precision="fp32",
        learning_rate=0.003,
        unlabelled="first",
    )
    return Job(rows["train"], rows["validation"], HEAD, LossWeights(), settings, rows["unlabelled"])


def train(job: Job, teacher: PreTrainedModel, scratch: Path | None = None) -> Trained:
    student = build_student(teacher, "bert.encoder.layer.", (0, 2))
    return distill(student, teacher, job, lambda record: None, scratch)


def test_unlabelled_rows_come_first_and_teach_without_labels(
    job: Job, fitted_teacher: PreTrainedModel
) -> None:
    trained = train(job, fitted_teacher)
    assert job.steps == len(trained.steps) == 6 + 3 * 2
    first, rest = trained.steps[:6], trained.steps[6:]
    assert all(step.losses["task"] == 0 < step.losses["distillation"] for step in first)
    assert all(step.losses["task"] > 0 for step in rest)
    assert [step.epoch for step in trained.steps] == [0] * 6 + [0.5, 1, 1.5, 2, 2.5, 3]
    assert [record.epoch for record in trained.epochs] == [0, 1, 2, 3]
    assert trained.epochs[0].step == 6


def test_unlabelled_rows_may_come_between_the_others(
    job: Job, fitted_teacher: PreTrainedModel
) -> None:
    between = replace(job, settings=job.settings.model_copy(update={"unlabelled": "between"}))
    trained = train(between, fitted_teacher)
    assert between.steps == len(trained.steps) == 6 + 3 * 2
    labelled = [step.losses["task"] > 0 for step in trained.steps]
    assert [sum(labelled[start : start + 4]) for start in (0, 4, 8)] == [2, 2, 2]
    assert labelled[:4] != labelled[4:8] or labelled[4:8] != labelled[8:]
    assert [step.epoch for step in trained.steps] == [n / 4 for n in range(1, 13)]
    assert [(record.epoch, record.step) for record in trained.epochs] == [(1, 4), (2, 8), (3, 12)]


@given(st.integers(0, 50), st.integers(1, 30), st.integers(1, 5), st.sampled_from(UNLABELLED))
def test_every_row_is_read_as_often_as_it_should_be(
    unlabelled: int, labelled: int, count: int, when: Any
) -> None:
    rows, more = (Dataset.from_dict({"length": [3] * n}) for n in (labelled, unlabelled))
    settings = TrainingSettings(epochs=count, batch_size=4, unlabelled=when)
    job = Job(rows, rows, HEAD, LossWeights(), settings, more if unlabelled else None)
    read: dict[int, list[int]] = {id(rows): [], id(more): []}
    for epoch in epochs(job):
        batches = list(epoch.batches)
        assert len(batches) == epoch.steps
        for whose, numbers in batches:
            read[id(whose)] += numbers
    assert sorted(read[id(rows)]) == sorted([*range(labelled)] * count)
    assert sorted(read[id(more)]) == [*range(unlabelled)]


def test_a_student_learns_of_its_teacher_on_unlabelled_rows_alone(
    job: Job, fitted_teacher: PreTrainedModel
) -> None:
    losses = [step.total for step in train(job, fitted_teacher).steps[:6]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("last", "when"), [(3, "first"), (6, "first"), (7, "first"), (5, "between")]
)
def test_a_training_stopped_between_its_parts_goes_on(
    last: int,
    when: str,
    job: Job,
    fitted_teacher: PreTrainedModel,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    from distill_core import checkpoint

    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)

    def stop(record: Any) -> None:
        if isinstance(record, StepRecord) and record.step == last:
            raise KeyboardInterrupt

    job = replace(job, settings=job.settings.model_copy(update={"unlabelled": when}))
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = train(job, fitted_teacher, tmp_path / "whole")
    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    with pytest.raises(KeyboardInterrupt):
        distill(start, fitted_teacher, job, stop, tmp_path / "stopped")
    rest = train(job, fitted_teacher, tmp_path / "stopped")
    assert [step.total for step in rest.steps] == [step.total for step in whole.steps]


def test_max_steps_may_end_among_the_unlabelled_rows(
    job: Job, fitted_teacher: PreTrainedModel
) -> None:
    short = replace(job, settings=job.settings.model_copy(update={"max_steps": 4}))
    trained = train(short, fitted_teacher)
    assert (len(trained.steps), [record.epoch for record in trained.epochs]) == (4, [0])
