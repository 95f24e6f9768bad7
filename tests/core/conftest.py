"""Rows and a fitted teacher, made once for the tests of training, evaluation and batches."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.batches import open_tokenized, tokenize
from distill_core.bundle import Artifact, Origin, assemble
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.export import export_onnx, export_whole, signature
from distill_core.heads import HEADS
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.quantization import quantize
from distill_core.schemes import INT8_REDUCED
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import distill
from tests.core.family_models import save_small


@pytest.fixture(scope="session")
def head() -> SequenceClassification:
    return SequenceClassification(("negative", "positive"))


@pytest.fixture(scope="session")
def splits(sentiment: Path, head: SequenceClassification) -> Splits:
    return read_dataset(DataSource(source=str(sentiment)), head, seed=0)


@pytest.fixture(scope="session")
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerFast:
    """The tiny BERT's, which reads for models of any family."""
    return load_tokenizer(tiny_bert)


@pytest.fixture(scope="session")
def rows(
    splits: Splits,
    head: SequenceClassification,
    tiny_bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> DatasetDict:
    """The sentiment sentences as tiny_bert's tokens, mapped into memory."""
    folder = tmp_path_factory.mktemp("rows") / "tokenized"
    tokenize(splits, head, load_tokenizer(tiny_bert), max_length=32, folder=folder)
    return open_tokenized(folder)


@pytest.fixture(scope="session")
def fitted_teacher(
    tiny_bert: Path, rows: DatasetDict, head: SequenceClassification
) -> PreTrainedModel:
    """tiny_bert after a second of training on the labels: it gets the validation sentences right."""
    settings = TrainingSettings(epochs=8, batch_size=8, learning_rate=0.008, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    return distill(load_model(tiny_bert), None, job, listen=lambda record: None).model


@pytest.fixture(scope="session")
def exported(
    fitted_teacher: PreTrainedModel,
    rows: DatasetDict,
    head: SequenceClassification,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The fitted teacher as an fp32 ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(fitted_teacher, head, rows["validation"], OPSET, path)
    return path


@pytest.fixture(scope="session")
def bundle(
    exported: Path,
    fitted_teacher: PreTrainedModel,
    tiny_bert: Path,
    head: SequenceClassification,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of the fitted teacher for linux-x86-64; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle")
    save_model(fitted_teacher, tiny_bert, folder / "student")
    file = quantize(exported, INT8_REDUCED, [], folder)
    described = signature(exported)
    origin = Origin(
        name="sentiment",
        student=folder / "student",
        exported=exported,
        head=head,
        max_length=32,
        teacher_fingerprint="0" * 64,
        inputs=described["inputs"],
        outputs=described["outputs"],
    )
    artifact = Artifact(
        TARGETS["linux-x86-64"], "int8-reduced-range", file, {"accuracy": 1.0}, 1.0, 1.0
    )
    (folder / "bundle").mkdir()
    assemble(artifact, origin, [("The film was good",), ("a dull plot",)], folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def student(fitted_teacher: PreTrainedModel) -> PreTrainedModel:
    return build_student(fitted_teacher, "bert.encoder.layer.", (2, 3))


@pytest.fixture
def job(rows: DatasetDict, head: SequenceClassification) -> Any:
    """Make a job on the sentiment rows: 15 batches of 8 an epoch, unless told otherwise."""

    def make(weights: LossWeights | None = None, **settings: Any) -> Job:
        chosen = {"batch_size": 8, "precision": "fp32", "dropout": False, "epochs": 1}
        chosen |= settings
        return Job(
            train=rows["train"],
            validation=rows["validation"],
            head=head,
            weights=weights or LossWeights(),
            settings=TrainingSettings(**chosen),
        )

    return make


@pytest.fixture
def export_small(tiny_bert: Path, tmp_path: Path) -> Any:
    """Export a small model of a family as optimum does."""

    def make(family: str, kind: str, task: str) -> onnx.ModelProto:
        saved = save_small(family, kind, load_tokenizer(tiny_bert), tmp_path / "model")
        classes = HEADS[task](("negative", "positive"))
        export_whole(load_model(saved), classes, OPSET, tmp_path / "model.onnx", segments=False)
        return onnx.load(tmp_path / "model.onnx")

    return make
