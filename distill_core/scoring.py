"""Hold a quantized file against the teacher and the student."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from distill_core.evaluation import agreement, file_logits, read_labels, score
from distill_core.files import file_digest
from distill_core.heads import Head
from distill_core.session import open_session

VALIDATION_ROWS = 2_000
"""Read to choose among files: on so many, accuracies of 0.9 have a standard error of 0.7 points, and
those of two files of one student, which err alike, a difference of far less."""


def score_file(
    file: Path,
    head: Head,
    rows: Dataset,
    teacher_logits: Float[np.ndarray, "units classes"],
    student_logits: Float[np.ndarray, "units classes"],
) -> dict[str, Any]:
    """Hold a quantized file against teacher and student, one row at a time as a phone runs it.

    Args:
        file: the quantized ONNX file.
        head: knows the metrics.
        rows: tokenized rows that were never trained on.
        teacher_logits: of the same rows.
        student_logits: of the student in PyTorch.

    Returns:
        bytes, sha256, metrics, retention and agreement (with the teacher), drop of the
        main metric from the student, and the share of units that quantization answers otherwise.
    """
    answers, labels = file_logits(open_session(file), head, rows), read_labels(head, rows)
    metrics = score(head, answers, labels)
    name = head.main_metric_of(metrics)
    student = score(head, student_logits, labels)[name]
    teacher = score(head, teacher_logits, labels)[name]
    return {
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
        "metrics": metrics,
        "retention": metrics[name] / max(teacher, 1e-12),
        "agreement": agreement(head, answers, teacher_logits),
        "drop": student - metrics[name],
        "flips": 1 - agreement(head, answers, student_logits),
    }


def choosing_rows(validation: Dataset) -> Dataset:
    """Return the tokenized validation rows by which a target's file is chosen."""
    return validation.select(range(min(VALIDATION_ROWS, len(validation))))


def measure_loss(
    file: Path, head: Head, rows: Dataset, student_logits: Float[np.ndarray, "units classes"]
) -> dict[str, Any]:
    """Hold a quantized file against the student, as the gate will do on the rows that are scored.

    Args:
        file: the quantized one.
        head: knows the metrics.
        rows: of `choosing_rows`.
        student_logits: of the same rows, by the student as it was trained, all its tokens included.

    Returns:
        rows, the drop of the main metric, flips, and the distance of the logits.
    """
    logits, labels = file_logits(open_session(file), head, rows), read_labels(head, rows)
    before, after = score(head, student_logits, labels), score(head, logits, labels)
    name = head.main_metric_of(before)
    return {
        "rows": len(rows),
        "drop": before[name] - after[name],
        "flips": 1 - agreement(head, logits, student_logits),
        "distance": head.distance(logits, student_logits),
    }
