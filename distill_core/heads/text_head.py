"""What heads share that answer once for each text."""

from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float

from distill_core.heads.head import Head
from distill_core.heads.scores import Labels


class TextHead(Head):
    """One answer for each text, or for each pair of texts."""

    architecture_suffix = "ForSequenceClassification"
    auto_class = "AutoModelForSequenceClassification"
    onnx_task = "text-classification"
    text_columns = ("text", "pair")
    label_column = "label"

    @abstractmethod
    def linear_logits(
        self, features: Any, labels: Labels, asked: Any
    ) -> Float[np.ndarray, "units classes"]:
        """Train a linear model on rows, and return its logits of others.

        Args:
            features: a matrix of training rows, sparse or not.
            labels: of these rows.
            asked: a matrix of the rows to answer.
        """
