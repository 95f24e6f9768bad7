"""Tiny real bundles: a model of every task, with random weights, exported, quantized and published."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distill_core.batches import open_tokenized, tokenize
from distill_core.bundle import Artifact, Origin, assemble
from distill_core.dataset import read_dataset
from distill_core.export import export_onnx
from distill_core.graph.shape import GraphShape
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.quantization import quantize
from distill_core.schemes import INT8_REDUCED
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import load_model, load_tokenizer
from tests.conftest import GOOD, TEXTS
from tests.core.family_models import save_small
from tests.core.test_every_head import CASES, Case

LABEL = SequenceClassification(("negative", "positive"))
TASKS = {
    "sequence-classification": Case(
        LABEL, {}, {}, {"text": TEXTS, "label": [int(text.endswith(GOOD)) for text in TEXTS]}
    ),
    **CASES,
}

MAX_LENGTH = 32

PLAIN = GraphShape()
SHAPED = [
    ("sequence-classification", GraphShape(inputs="int32", answer="probabilities", length=24)),
    ("multi-label-classification", GraphShape(answer="probabilities", length=24)),
    ("token-classification", GraphShape(inputs="int32", answer="label", length=24)),
    ("token-classification", GraphShape(answer="probabilities")),
    ("multiple-choice", GraphShape(inputs="int32", answer="label")),
    ("question-answering", GraphShape(inputs="int32", answer="span", length=24)),
    ("question-answering", GraphShape(inputs="int32", length=24)),
    ("masked-language-modelling", GraphShape(inputs="int32", length=24)),
    ("sentence-embeddings", GraphShape(inputs="int32", length=24)),
]
"""Tasks, and what their files can do for an app."""


def _shows_much(shape: GraphShape) -> bool:
    return shape.inputs == "int32" and shape.answer != "logits"


SHAPED_SLICE = [
    pytest.param(task, shape, marks=() if _shows_much(shape) else pytest.mark.slow)
    for task, shape in SHAPED
]
"""The same, for what takes seconds each: those that do several things at once, and slow ones."""


def make_bundle(
    task: str,
    family: str,
    shape: GraphShape,
    tokenizer: PreTrainedTokenizerFast,
    target: str,
    folder: Path,
) -> Path:
    """Make a bundle of a task for a target.

    Args:
        task: a key of `TASKS`.
        family: of the model, a key of `SMALL`.
        shape: of its files.
        tokenizer: of its texts.
        target: a key of `TARGETS`.
        folder: empty; the bundle is a folder in there.
    """
    case = TASKS[task]
    rows = case.write(folder / "data", train=range(30), validation=range(30, 60))
    save_small(family, case.head.architecture_suffix, tokenizer, folder / "student", **case.config)
    splits = read_dataset(rows, case.head, seed=0)
    tokenize(splits, case.head, load_tokenizer(folder / "student"), MAX_LENGTH, folder / "rows")
    validation = open_tokenized(folder / "rows")["validation"]
    onnx = folder / "model.onnx"
    signature = export_onnx(load_model(folder / "student"), case.head, validation, OPSET, onnx)
    (folder / "quantized").mkdir()
    file = quantize(onnx, INT8_REDUCED, [], folder / "quantized")
    described: dict[str, Any] = {name: signature[name] for name in ("inputs", "outputs")}
    described["graph"] = shape
    origin = Origin("tiny", folder / "student", onnx, case.head, MAX_LENGTH, "0" * 64, **described)
    artifact = Artifact(TARGETS[target], "int8-reduced-range", file, {"score": 0.5}, 1.0, 1.0)
    bundle = folder / "bundle"
    bundle.mkdir()
    assemble(artifact, origin, [case.head.texts(validation[0])], bundle)
    return bundle
