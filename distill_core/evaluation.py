"""What a model answers, how good that is, and how far student and teacher agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Shaped
from onnxruntime import InferenceSession
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from transformers import PreTrainedModel

from distill_core.batches import evaluation_batches, model_inputs
from distill_core.heads import Head, Labels
from distill_core.runtime import answer_row

BATCH_SIZE = 64
RESAMPLES = 10_000
_DRAWS_AT_ONCE = 500
CONFIDENCE = 0.95


def model_logits(
    model: PreTrainedModel, head: Head, rows: Dataset, batch_size: int = BATCH_SIZE
) -> Float[np.ndarray, "units classes"]:
    """Return what a PyTorch model says of every unit, in the order of the rows, in fp32."""
    answers: dict[int, Float[np.ndarray, "units classes"]] = {}
    for numbers, outputs in model_outputs(model, head, rows, batch_size):
        asked = rows.__getitems__(numbers)
        for number, output, row in zip(numbers, outputs, asked, strict=True):
            answers[number] = head.units(output, row)
    return np.concatenate([answers[number] for number in range(len(rows))])


def model_outputs(
    model: PreTrainedModel, head: Head, rows: Dataset, batch_size: int
) -> Iterator[tuple[list[int], Sequence[Float[np.ndarray, "..."]]]]:
    """Yield what a PyTorch model says of each batch, padding included, with the numbers of its rows."""
    model.eval()
    for numbers, batch in evaluation_batches(rows, batch_size, model.config.pad_token_id):
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            answer = head.run(model, model_inputs(model, inputs), inputs["labels"])
            logits = head.read_output(answer, inputs["attention_mask"])
        yield numbers, head.by_row(logits.float().cpu().numpy(), batch["labels"].numpy())


def file_logits(
    session: InferenceSession, head: Head, rows: Dataset
) -> Float[np.ndarray, "units classes"]:
    """Return what an ONNX file says of every unit, one row at a time as a phone runs it."""
    return np.concatenate([head.units(answer_row(session, head, row), row) for row in rows])


def score(
    head: Head, logits: Float[np.ndarray, "units classes"], labels: Labels
) -> dict[str, float]:
    """Return the head's metrics of a model's logits."""
    return head.metrics(head.predict(logits), labels)


def agreement(
    head: Head,
    logits: Float[np.ndarray, "units classes"],
    other_logits: Float[np.ndarray, "units classes"],
) -> float:
    """Return how far two models answer alike, right or wrong: the share of units, in most heads."""
    return head.agreement(head.predict(logits), head.predict(other_logits))


@dataclass(frozen=True)
class Interval:
    """A difference and the range it lies in with 95% confidence."""

    difference: float
    low: float
    high: float


def difference_interval(
    head: Head,
    logits: Float[np.ndarray, "units classes"],
    other_logits: Float[np.ndarray, "units classes"],
    labels: Labels,
    seed: int,
) -> Interval:
    """Paired bootstrap of one model − the other in the main metric.

    Rows are drawn with replacement, the same ones for both models, 10,000 times; the interval is
    the middle 95% of the differences (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap", section 13.3, the percentile interval).

    Args:
        head: knows the metric.
        logits: of the one model.
        other_logits: of the other, for the same rows.
        labels: of these rows.
        seed: decides the draws.
    """

    def difference(sums: Float[np.ndarray, "*draws both"]) -> Float[np.ndarray, "*draws"]:
        ours, theirs = np.split(sums, 2, axis=-1)
        return np.asarray(head.main_score(ours) - head.main_score(theirs))

    statistics = [head.statistics(head.predict(z), labels) for z in (logits, other_logits)]
    both = np.concatenate(statistics, axis=1)
    # Rows of few different kinds, as right and wrong answers make them, are drawn by kind.
    kinds, counts = np.unique(both, axis=0, return_counts=True)
    draws = np.random.default_rng(seed)
    differences = [
        difference(draws.multinomial(len(both), counts / len(both), size=_DRAWS_AT_ONCE) @ kinds)
        for _ in range(RESAMPLES // _DRAWS_AT_ONCE)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return Interval(float(difference(both.sum(axis=0))), float(low), float(high))


def per_class(
    head: Head, predictions: Shaped[np.ndarray, "units ..."], labels: Labels
) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and number of units of each class; nothing where there are none."""
    if not head.has_classes or not np.issubdtype(predictions.dtype, np.integer):
        return []
    columns = precision_recall_fscore_support(
        labels.values, predictions, labels=range(len(head.labels)), average=None, zero_division=0
    )
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, p, r, f, n in zip(head.labels, *columns, strict=True)
    ]


def confusion(
    head: Head, predictions: Shaped[np.ndarray, "units ..."], labels: Labels
) -> list[list[int]]:
    """Return labels by predictions; nothing where a unit has not one class."""
    by_class = head.has_classes and np.issubdtype(predictions.dtype, np.integer)
    if predictions.ndim > 1 or not by_class:
        return []
    classes = range(len(head.labels))
    table: list[list[int]] = confusion_matrix(labels.values, predictions, labels=classes).tolist()
    return table


def evaluate(
    head: Head,
    teacher_logits: Float[np.ndarray, "units classes"],
    student_logits: Float[np.ndarray, "units classes"],
    labels: Labels,
    seed: int,
) -> dict[str, Any]:
    """Hold the student against its teacher on rows that neither was trained on.

    Returns:
        Metrics of both, retention (student's main metric / teacher's), agreement, the interval of
        the difference, the student's per-class table and its confusion matrix (rows are labels,
        columns predictions).
    """
    teacher = score(head, teacher_logits, labels)
    student = score(head, student_logits, labels)
    predictions = head.predict(student_logits)
    interval = difference_interval(head, student_logits, teacher_logits, labels, seed)
    name = head.main_metric_of(teacher)
    return {
        "rows": int(labels.rows[-1]) + 1,
        "main_metric": name,
        "teacher": teacher,
        "student": student,
        "retention": student[name] / max(teacher[name], 1e-12),
        "agreement": agreement(head, student_logits, teacher_logits),
        "difference": vars(interval),
        "per_class": per_class(head, predictions, labels),
        "confusion": confusion(head, predictions, labels),
    }


def read_labels(head: Head, rows: Dataset) -> Labels:
    """Return the labels of all units of tokenized rows."""
    return head.read_units({name: rows[name][:] for name in head.scored_columns})
