"""Table: head → its columns, its task loss, what it answers and how it is scored.

A new head is one new class here and one row in `HEADS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distill_core.errors import DataError, TeacherError


@dataclass(frozen=True)
class SequenceClassification:
    """One label for each text."""

    labels: tuple[str, ...]
    """The name of each class, in the order of the logits."""

    name = "sequence-classification"
    architecture_suffix = "ForSequenceClassification"
    auto_class = "AutoModelForSequenceClassification"
    onnx_task = "text-classification"
    main_metric = "accuracy"

    def read_labels(self, values: Sequence[Any], where: str) -> NDArray[np.int64]:
        """Turn a column of labels into class numbers.

        Args:
            values: whole numbers from 0, or names of classes.
            where: file and column, for the message.

        Raises:
            DataError: a label that is not one of the teacher's classes.
        """
        numbers = {name: number for number, name in enumerate(self.labels)}
        labels = np.empty(len(values), dtype=np.int64)
        for row, value in enumerate(values):
            number: Any = numbers.get(value) if isinstance(value, str) else value
            whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
            if not whole or not 0 <= number < len(self.labels):
                raise DataError(
                    f"{where}: row {row} has the label {value!r}; accepted: 0 to "
                    f"{len(self.labels) - 1}, or one of {', '.join(self.labels[:8])}"
                    f"{' …' if len(self.labels) > 8 else ''}"
                )
            labels[row] = number
        if len(np.unique(labels)) < 2:
            raise DataError(f"{where}: all rows have one label, so there is nothing to tell apart")
        return labels

    def task_loss(
        self, logits: Float[Any, "batch classes"], labels: Int[Any, " batch"]
    ) -> Float[Any, ""]:
        """Cross entropy with the labels, mean over the batch: L = −log softmax(z)[y], of tensors."""
        from torch.nn.functional import cross_entropy  # here: `check` does without torch's seconds

        return cross_entropy(logits, labels)

    def predict(self, logits: Float[np.ndarray, "rows classes"]) -> Int[np.ndarray, " rows"]:
        """Return the class with the largest logit of each row."""
        return np.asarray(logits.argmax(axis=-1))

    def correct(
        self, predictions: Int[np.ndarray, " rows"], labels: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Return each row's part in the main metric, which is their mean: 1.0 right, 0.0 wrong."""
        return np.asarray(predictions == labels, dtype=np.float64)

    def metrics(
        self, predictions: Int[np.ndarray, " rows"], labels: Int[np.ndarray, " rows"]
    ) -> dict[str, float]:
        """Return accuracy and macro-averaged F1."""
        from sklearn.metrics import accuracy_score, f1_score

        return {
            "accuracy": float(accuracy_score(labels, predictions)),
            "f1_macro": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        }

    def answer(self, logits: Float[np.ndarray, " classes"]) -> str:
        """Return the name of the class that one row's logits choose."""
        return self.labels[int(logits.argmax())]


HEADS = {head.name: head for head in (SequenceClassification,)}


def find_head(config: Mapping[str, Any], task: str, where: str) -> SequenceClassification:
    """Return the head of a model from its `config.json`.

    Args:
        config: the parsed config.json.
        task: a name in `HEADS`, or auto.
        where: the folder, for the message.

    Raises:
        TeacherError: no head that is supported, or another one than the pipeline file names.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    heads = [head for head in HEADS.values() if architecture.endswith(head.architecture_suffix)]
    if not heads:
        suffixes = ", ".join(f"…{head.architecture_suffix}" for head in HEADS.values())
        raise TeacherError(
            f"{where}/config.json: architectures: {architecture} has no head that can be distilled; "
            f"accepted: {suffixes}"
        )
    if task not in ("auto", heads[0].name):
        raise TeacherError(
            f"{where}: the teacher's head is {heads[0].name}, not {task}: set task: auto"
        )
    problem = config.get("problem_type") or "single_label_classification"
    labels = _label_names(config, where)
    if problem != "single_label_classification" or len(labels) < 2:
        raise TeacherError(
            f"{where}/config.json: problem_type {problem} with {len(labels)} label(s) is not supported; "
            "accepted: single_label_classification with 2 or more labels"
        )
    return heads[0](labels)


def _label_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names: Mapping[str, str] = config.get("id2label") or {}
    # transformers writes no id2label when it would be the default one, of two labels.
    count = len(names) or config.get("num_labels") or 2
    numbers = [str(number) for number in range(count)]
    if names and set(names) != set(numbers):
        raise TeacherError(
            f"{where}/config.json: id2label numbers its labels {', '.join(names)}; accepted: 0 to "
            f"{count - 1}, in the order of the logits"
        )
    return tuple(names.get(number, f"LABEL_{number}") for number in numbers)
