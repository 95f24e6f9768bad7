"""What a model answers, how good that is, and how far student and teacher agree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from transformers import PreTrainedModel

from distill_core.batches import evaluation_batches
from distill_core.heads import SequenceClassification

BATCH_SIZE = 64
RESAMPLES = 10_000
CONFIDENCE = 0.95


def model_logits(model: PreTrainedModel, rows: Dataset) -> Float[np.ndarray, "rows classes"]:
    """Return what a PyTorch model says of every row, in the order of the rows, in fp32."""
    model.eval()
    answers = []
    with torch.inference_mode():
        for numbers, batch in evaluation_batches(rows, BATCH_SIZE, model.config.pad_token_id):
            inputs = {
                name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"
            }
            answers.append((numbers, model(**inputs).logits.float().cpu().numpy()))
    return in_row_order(answers)


def in_row_order(
    answers: list[tuple[list[int], Float[np.ndarray, "_ classes"]]],
) -> Float[np.ndarray, "rows classes"]:
    """Put the logits of batches back where their rows stand in the data set."""
    numbers = np.concatenate([numbers for numbers, _ in answers])
    logits = np.concatenate([logits for _, logits in answers])
    return logits[np.argsort(numbers)]


def score(
    head: SequenceClassification,
    logits: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
) -> dict[str, float]:
    """Return the head's metrics of a model's logits."""
    return head.metrics(head.predict(logits), labels)


def agreement(
    head: SequenceClassification,
    logits: Float[np.ndarray, "rows classes"],
    other_logits: Float[np.ndarray, "rows classes"],
) -> float:
    """Return the share of rows that two models answer alike, right or wrong."""
    return float(np.mean(head.predict(logits) == head.predict(other_logits)))


@dataclass(frozen=True)
class Interval:
    """A difference and the range it lies in with 95% confidence."""

    difference: float
    low: float
    high: float


def difference_interval(
    student: Float[np.ndarray, " rows"], teacher: Float[np.ndarray, " rows"], seed: int
) -> Interval:
    """Paired bootstrap of student − teacher in the main metric.

    Rows are drawn with replacement, the same ones for both models, 10,000 times; the interval is
    the middle 95% of the differences (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap", section 13.3, the percentile interval).

    Args:
        student: each row's part in the student's metric, as `correct` of the head returns it.
        teacher: the same of the teacher, for the same rows.
        seed: decides the draws.
    """
    differences = student - teacher
    draws = np.random.default_rng(seed)
    # A row's difference takes few values, so a resample is one multinomial draw of their counts.
    values, counts = np.unique(differences, return_counts=True)
    rows = len(differences)
    resampled = draws.multinomial(rows, counts / rows, size=RESAMPLES) @ values / rows
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(differences.mean()), float(low), float(high))


def per_class(
    head: SequenceClassification,
    predictions: Int[np.ndarray, " rows"],
    labels: Int[np.ndarray, " rows"],
) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and number of rows of each class."""
    columns = precision_recall_fscore_support(
        labels, predictions, labels=range(len(head.labels)), zero_division=0
    )
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, p, r, f, n in zip(head.labels, *columns, strict=True)
    ]


def evaluate(
    head: SequenceClassification,
    teacher_logits: Float[np.ndarray, "rows classes"],
    student_logits: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
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
    interval = difference_interval(
        head.correct(predictions, labels),
        head.correct(head.predict(teacher_logits), labels),
        seed,
    )
    return {
        "rows": len(labels),
        "main_metric": head.main_metric,
        "teacher": teacher,
        "student": student,
        "retention": student[head.main_metric] / max(teacher[head.main_metric], 1e-12),
        "agreement": agreement(head, student_logits, teacher_logits),
        "difference": vars(interval),
        "per_class": per_class(head, predictions, labels),
        "confusion": confusion_matrix(labels, predictions, labels=range(len(head.labels))).tolist(),
    }


def row_labels(rows: Dataset) -> Int[np.ndarray, " rows"]:
    """Return the class numbers of all rows."""
    return np.asarray(rows["label"][:], dtype=np.int64)
