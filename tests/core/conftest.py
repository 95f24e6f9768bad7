"""Rows and a fitted teacher, made once for the tests of training, evaluation and batches."""

from pathlib import Path

import pytest
from datasets import DatasetDict
from transformers import PreTrainedModel

from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, LossWeights, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.heads import SequenceClassification
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import Job, distill


@pytest.fixture(scope="session")
def head() -> SequenceClassification:
    return SequenceClassification(("negative", "positive"))


@pytest.fixture(scope="session")
def splits(sentiment: Path, head: SequenceClassification) -> Splits:
    return read_dataset(DataSource(source=str(sentiment)), head, seed=0)


@pytest.fixture(scope="session")
def rows(splits: Splits, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetDict:
    """The sentiment sentences as tiny_bert's tokens, mapped into memory."""
    folder = tmp_path_factory.mktemp("rows") / "tokenized"
    tokenize(splits, load_tokenizer(tiny_bert), max_length=32, folder=folder)
    return open_tokenized(folder)


@pytest.fixture(scope="session")
def fitted_teacher(
    tiny_bert: Path, rows: DatasetDict, head: SequenceClassification
) -> PreTrainedModel:
    """tiny_bert after 8 epochs on the labels: it gets every validation sentence right."""
    settings = TrainingSettings(epochs=8, batch_size=8, patience=8, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    return distill(load_model(tiny_bert), None, job, listen=lambda record: None).model
