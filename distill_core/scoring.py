"""Hold a quantized file against the teacher and the student."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float

from distill_core.evaluation import agreement, file_logits, read_labels, score
from distill_core.files import file_digest
from distill_core.heads import Head
from distill_core.heads.scores import Labels
from distill_core.session import open_session

VALIDATION_ROWS = 2_000
"""Read to choose among files: on so many, accuracies of 0.9 have a standard error of 0.7 points, and
those of two files of one student, which err alike, a difference of far less."""


class Answers(NamedTuple):
    """What a file says of every unit of some rows, and what is right."""

    head: Head
    logits: Float[np.ndarray, "units classes"]
    labels: Labels

    def score(self, logits: Float[np.ndarray, "units classes"]) -> dict[str, float]:
        """Return the metrics of a model's logits of the same rows."""
        return score(self.head, logits, self.labels)


def ask_file(file: Path, head: Head, rows: Dataset) -> Answers:
    """Return what a quantized file says of tokenized rows, one at a time as a phone runs it."""
    return Answers(head, file_logits(open_session(file), head, rows), read_labels(head, rows))


def score_file(
    file: Path,
    answers: Answers,
    teacher_logits: Float[np.ndarray, "units classes"],
    student_logits: Float[np.ndarray, "units classes"],
) -> dict[str, Any]:
    """Hold a quantized file against teacher and student.

    Args:
        file: the quantized ONNX file.
        answers: its own, to rows that were never trained on.
        teacher_logits: of the same rows.
        student_logits: of the student in PyTorch.

    Returns:
        bytes, sha256, metrics, retention and agreement (with the teacher), drop of the
        main metric from the student, and the share of units that quantization answers otherwise.
    """
    metrics = answers.score(answers.logits)
    name = answers.head.main_metric_of(metrics)
    student = answers.score(student_logits)[name]
    teacher = answers.score(teacher_logits)[name]
    return {
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
        "metrics": metrics,
        "retention": metrics[name] / max(teacher, 1e-12),
        "agreement": agreement(answers.head, answers.logits, teacher_logits),
        "drop": student - metrics[name],
        "flips": 1 - agreement(answers.head, answers.logits, student_logits),
    }


def choosing_rows(validation: Dataset, head: Head) -> Dataset:
    """Return the tokenized validation rows a target's file is chosen by; if they are few, these very ones.

    Where a text takes several windows, all of those of its first ones: as many texts, however they are cut.
    """
    firsts = np.arange(len(validation))
    if head.has_windows:
        firsts = np.flatnonzero(np.asarray(validation["window"][:]) == 0)
    few = len(firsts) <= VALIDATION_ROWS
    return validation if few else validation.select(range(firsts[VALIDATION_ROWS]))


def still_read(before: Labels, after: Labels) -> Bool[np.ndarray, " units"]:
    """Tell which units are read by a tokenizer that cuts words in more pieces, so that texts end sooner.

    Args:
        before: units of some rows, as another tokenizer cuts them.
        after: units of the same rows; of each row the first ones.
    """
    read = np.bincount(after.rows, minlength=int(before.rows[-1]) + 1)
    place = np.arange(len(before.rows)) - np.searchsorted(before.rows, before.rows)
    return np.asarray(place < read[before.rows])


def measure_loss(
    answers: Answers, student_logits: Float[np.ndarray, "units classes"]
) -> dict[str, Any]:
    """Hold a quantized file against the student, as the gate will do on the rows that are scored.

    Args:
        answers: of the file, to `choosing_rows`.
        student_logits: of the same rows, by the student as it was trained, all its tokens included.

    Returns:
        rows, the drop of the main metric, flips, and the distance of the logits.
    """
    before, after = answers.score(student_logits), answers.score(answers.logits)
    name = answers.head.main_metric_of(before)
    return {
        "rows": int(answers.labels.rows[-1]) + 1,
        "drop": before[name] - after[name],
        "flips": 1 - agreement(answers.head, answers.logits, student_logits),
        "distance": answers.head.distance(answers.logits, student_logits),
    }
