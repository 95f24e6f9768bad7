"""One label for each text, or for each pair of texts."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distill_core.errors import DataError
from distill_core.heads.scores import Labels, count_right, ratio
from distill_core.heads.text_head import TextHead


class SequenceClassification(TextHead):
    """One label for each text, or for each pair of texts."""

    name = "sequence-classification"
    main_metric = "accuracy"
    kind = "a text classifier"
    reading = "The label is the one with the largest logit."
    single_label = True

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Several labels, of which one is right."""
        return problem_type in (None, "single_label_classification") and labels > 1

    def read_labels(self, values: Collection[Any], where: str) -> NDArray[np.int64]:
        """Turn whole numbers from 0, or names of classes, into class numbers."""
        classes = Classes(self.labels)
        labels = np.empty(len(values), dtype=np.int64)
        for row, value in enumerate(values):
            labels[row] = classes.number(value, f"{where}: row {row}")
        if len(np.unique(labels)) < 2:
            raise DataError(f"{where}: all rows have one label, so there is nothing to tell apart")
        return labels

    def task_loss(
        self, logits: Float[Any, "batch classes"], labels: Int[Any, " batch"]
    ) -> Float[Any, ""]:
        """Cross entropy with the labels, mean over the batch: L = −log softmax(z)[y], of tensors."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def predict(self, logits: Float[np.ndarray, "units classes"]) -> Int[np.ndarray, " units"]:
        """Return the class with the largest logit of each row."""
        return np.asarray(logits.argmax(axis=-1))

    def metrics(self, predictions: Int[np.ndarray, " units"], labels: Labels) -> dict[str, float]:
        """Return accuracy and macro-averaged F1."""
        from sklearn.metrics import accuracy_score, f1_score

        return {
            "accuracy": float(accuracy_score(labels.values, predictions)),
            "f1_macro": float(
                f1_score(labels.values, predictions, average="macro", zero_division=0)
            ),
        }

    def statistics(
        self, predictions: Int[np.ndarray, " units"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return right answers and answers."""
        return count_right(predictions, labels)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Accuracy: right answers / answers."""
        return ratio(sums)

    def linear_logits(
        self, features: Any, labels: Labels, asked: Any
    ) -> Float[np.ndarray, "units classes"]:
        """Logistic regression; a class that no training row has is never answered."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(solver="newton-cg").fit(features, labels.values)
        logits = np.full((asked.shape[0], len(self.labels)), -np.inf)
        logits[:, model.classes_] = model.predict_log_proba(asked)
        return logits

    def answer(self, logits: Float[np.ndarray, " classes"], row: Mapping[str, Any]) -> str:
        """Return the name of the class that one row's logits choose."""
        return self.labels[int(logits.argmax())]


class Classes:
    """The classes of a teacher, found by number or by name."""

    def __init__(self, labels: Sequence[str]) -> None:
        """Keep their names.

        Args:
            labels: in the order of their numbers.
        """
        self._labels = labels
        self._numbers = {name: number for number, name in enumerate(labels)}
        shared = Counter(name.lower() for name in labels)
        self._in_lower_case = {
            name.lower(): number
            for name, number in self._numbers.items()
            if shared[name.lower()] == 1
        }

    def number(self, value: Any, where: str) -> int:
        """Return the number of a class, given as number or name, in capitals or not.

        Args:
            value: as it stands in the data set.
            where: file, column and row, for the message.

        Raises:
            DataError: there is no such class.
        """
        number: Any = self._of_name(value) if isinstance(value, str) else value
        whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not whole or not 0 <= number < len(self._labels):
            raise DataError(
                f"{where} has the label {value!r}; accepted: 0 to {len(self._labels) - 1}, or one of "
                f"{', '.join(self._labels[:8])}{' …' if len(self._labels) > 8 else ''}"
                f"{self._hint(value)}"
            )
        return int(number)

    def _hint(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            return ""
        return f"; data.label_names: {{{value!r}: …}} says which of them it is"

    def _of_name(self, name: str) -> int | None:
        return self._numbers.get(name, self._in_lower_case.get(name.lower()))
