"""Any number of labels for each text, or for each pair of texts."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distill_core.errors import DataError
from distill_core.heads.scores import Labels, f1, sum_by_row
from distill_core.heads.sequence_classification import Classes
from distill_core.heads.text_head import TextHead


class MultiLabelClassification(TextHead):
    """Any number of labels for each text, or for each pair of texts."""

    name = "multi-label-classification"
    main_metric = "f1_micro"
    label_type = pa.list_(pa.float32())
    kind = "a classifier that gives a text any number of labels"
    reading = "A text has every label whose logit is above 0."

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """What the config says; a model cannot be told from one of single labels otherwise."""
        return problem_type == "multi_label_classification"

    def read_labels(self, values: Collection[Any], where: str) -> Iterator[NDArray[np.float32]]:
        """Turn lists of names or numbers of classes into 0 and 1 for each class.

        A column in which every list has as many entries as there are classes, all 0 or 1, is taken for
        what it would become: transformers' own form of these labels.
        """
        if all(self._has_entry_for_each_class(named) for named in values):
            yield from (np.asarray(named, dtype=np.float32) for named in values)
            return
        classes = Classes(self.labels)
        for row, named in enumerate(values):
            if not isinstance(named, list):
                raise DataError(
                    f"{where}: row {row} has {named!r}; accepted: a list of labels, which may be empty"
                )
            labels = np.zeros(len(self.labels), dtype=np.float32)
            labels[[classes.number(value, f"{where}: row {row}") for value in named]] = 1
            yield labels

    def _has_entry_for_each_class(self, named: Any) -> bool:
        fits = isinstance(named, list) and len(named) == len(self.labels)
        return fits and all(entry in (0, 1) for entry in named)

    def soft_loss(
        self,
        student_logits: Float[Any, "positions classes"],
        teacher_logits: Float[Any, "positions classes"],
        temperature: float,
    ) -> Float[Any, ""]:
        """Binary cross entropy of each label between the softened answers, mean over labels.

        With p = σ(t / θ) and q = σ(s / θ): L = θ² · mean(−p·log q − (1 − p)·log(1 − q)), which is
        the soft-target loss of the two classes "it has the label" and "it has not", with logits z
        and 0 (Hinton et al. 2015, arXiv:1503.02531, section 2).
        """
        from torch import sigmoid
        from torch.nn.functional import binary_cross_entropy_with_logits

        probabilities = sigmoid(teacher_logits / temperature)
        loss = binary_cross_entropy_with_logits(student_logits / temperature, probabilities)
        return temperature**2 * loss

    def task_loss(
        self, logits: Float[Any, "batch classes"], labels: Float[Any, "batch classes"]
    ) -> Float[Any, ""]:
        """Binary cross entropy, mean over rows and labels, of tensors."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, labels)

    def predict(
        self, logits: Float[np.ndarray, "units classes"]
    ) -> Int[np.ndarray, "units classes"]:
        """Return 1 for each label with a probability above one half."""
        return np.asarray(logits > 0, dtype=np.int64)

    def metrics(
        self, predictions: Int[np.ndarray, "units classes"], labels: Labels
    ) -> dict[str, float]:
        """Return micro- and macro-averaged F1, and the share of rows with all labels right."""
        from sklearn.metrics import f1_score

        right = (predictions == labels.values).all(axis=1)
        return {
            "f1_micro": float(self.main_score(self.statistics(predictions, labels).sum(axis=0))),
            "f1_macro": float(
                f1_score(labels.values, predictions, average="macro", zero_division=0)
            ),
            "exact_match": float(right.mean()),
        }

    def statistics(
        self, predictions: Int[np.ndarray, "units classes"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return true positives, false positives and false negatives."""
        said, true = predictions == 1, labels.values == 1
        counts = [(said & true).sum(1), (said & ~true).sum(1), (~said & true).sum(1)]
        return sum_by_row(np.stack(counts, axis=1).astype(float), labels)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """F1 over all rows and labels."""
        return f1(sums)

    def linear_logits(
        self, features: Any, labels: Labels, asked: Any
    ) -> Float[np.ndarray, "units classes"]:
        """Logistic regression for each label; one that all rows have or none has is a constant."""
        from sklearn.linear_model import LogisticRegression

        logits = np.empty((asked.shape[0], len(self.labels)))
        for number, column in enumerate(labels.values.T):
            if len(np.unique(column)) == 1:
                logits[:, number] = 2 * column[0] - 1
                continue
            model = LogisticRegression(solver="newton-cg").fit(features, column)
            logits[:, number] = model.decision_function(asked)
        return logits

    def answer(self, logits: Float[np.ndarray, " classes"], row: Mapping[str, Any]) -> str:
        """Return the names of the labels with a probability above one half."""
        return ", ".join(name for name, logit in zip(self.labels, logits, strict=True) if logit > 0)
