"""A score for each text, or for each pair of texts, such as how alike they are."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distill_core.errors import DataError
from distill_core.heads.scores import Labels
from distill_core.heads.text_head import TextHead


class Regression(TextHead):
    """A score for each text, or for each pair of texts, such as how alike they are."""

    name = "regression"
    main_metric = "spearman"
    kind = "a model that scores texts"
    reading = "The single logit is the score."

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """One output, as transformers takes it too."""
        return problem_type in (None, "regression") and labels == 1

    def read_labels(self, values: Collection[Any], where: str) -> NDArray[np.float32]:
        """Check that every label is a number, and that they are not all one."""
        for row, value in enumerate(values):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise DataError(f"{where}: row {row} has {value!r}; accepted: a number")
        labels = np.fromiter(values, np.float32, len(values))
        if len(np.unique(labels)) < 2:
            raise DataError(f"{where}: all rows have one score, so there is nothing to tell apart")
        return labels

    def soft_loss(
        self,
        student_logits: Float[Any, "positions classes"],
        teacher_logits: Float[Any, "positions classes"],
        temperature: float,
    ) -> Float[Any, ""]:
        """Squared difference of the scores, mean over the batch: L = (s − t)².

        A single output has no softmax to soften; this is the limit of the soft-target loss at high
        temperature, up to a factor (Hinton et al. 2015, arXiv:1503.02531, section 2.1).
        """
        from torch.nn.functional import mse_loss

        return mse_loss(student_logits, teacher_logits)

    def task_loss(
        self, logits: Float[Any, "batch 1"], labels: Float[Any, " batch"]
    ) -> Float[Any, ""]:
        """Squared difference to the labels, mean over the batch: L = (s − y)², of tensors."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits[:, 0], labels)

    def predict(self, logits: Float[np.ndarray, "units 1"]) -> Float[np.ndarray, " units"]:
        """Return the score of each row."""
        return logits[:, 0]

    def metrics(self, predictions: Float[np.ndarray, " units"], labels: Labels) -> dict[str, float]:
        """Return Spearman's and Pearson's correlation with the labels, and the mean squared error."""
        return {
            "spearman": float(self.main_score(self.statistics(predictions, labels).sum(axis=0))),
            "pearson": float(_correlation(_moments(predictions, labels.values).sum(axis=0))),
            "mse": float(np.mean((predictions - labels.values) ** 2)),
        }

    def statistics(
        self, predictions: Float[np.ndarray, " units"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return the moments of the ranks. They are of all rows: a draw of them ranks nothing anew."""
        from scipy.stats import rankdata

        rows = len(predictions)
        return _moments(rankdata(predictions) / rows, rankdata(labels.values) / rows)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Spearman's correlation: Pearson's, of ranks."""
        return _correlation(sums)

    def agreement(
        self, predictions: Float[np.ndarray, " units"], others: Float[np.ndarray, " units"]
    ) -> float:
        """Return Spearman's correlation of two models: no two scores are ever quite alike."""
        labels = Labels(others, np.arange(len(others)))
        return float(self.main_score(self.statistics(predictions, labels).sum(axis=0)))

    def linear_logits(
        self, features: Any, labels: Labels, asked: Any
    ) -> Float[np.ndarray, "units 1"]:
        """Ridge regression."""
        from sklearn.linear_model import Ridge

        return np.asarray(Ridge().fit(features, labels.values).predict(asked))[:, None]

    def answer(self, logits: Float[np.ndarray, " 1"], row: Mapping[str, Any]) -> str:
        """Return the score, to four digits."""
        return f"{float(logits[0]):.4g}"

    def same_answer(
        self,
        logits: Float[np.ndarray, " 1"],
        others: Float[np.ndarray, " 1"],
        row: Mapping[str, Any],
        other_row: Mapping[str, Any],
    ) -> bool:
        """Tell whether two scores differ by no more than the tolerance."""
        return bool(abs(logits[0] - others[0]) <= self.tolerance)


def _moments(
    x: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows 6"]:
    """Return 1, x, y, x², y² and xy of each row."""
    x, y = x.astype(float), y.astype(float)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _correlation(sums: Float[np.ndarray, "*draws 6"]) -> Float[np.ndarray, "*draws"]:
    """Pearson's r = cov(x, y) / √(var(x)·var(y)), of sums of moments; 0 where nothing varies."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance = xy / n - x / n * (y / n)
    variances = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
    return np.asarray(
        np.where(variances > 1e-18, covariance / np.sqrt(np.maximum(variances, 1e-18)), 0.0)
    )
