"""A vector for each text, near those of texts that mean the same."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distill_core.heads.head import Head
from distill_core.heads.regression import Regression
from distill_core.heads.scores import Labels, ratio
from distill_core.pooling import read_pooling

_FOUND_AMONG = 10
_QUERIES_AT_ONCE = 500
_TIE = 1e-6
"""Cosines of one text, tokenized beside others, differ by less."""

_SAME = 0.95
"""Cosine of two vectors of one text. Of STS-B's pairs with the highest score, which mean the same, half have
less than 0.94 (a student of all-minilm-l6-v2). Of 400 texts its files of 8 and 4 bits leave each 0.984 or
more, those of 3 bits 0.946, and two of them less than this."""

_SCORES = Regression(("similarity",))


class SentenceEmbeddings(Head):
    """A vector for each text: the mean of its tokens' vectors or that of the first, divided by its norm.

    Each text of a pair is a row of its own. Labels, if there are any, say how alike the two are, and
    are only scored by: the teacher's vector alone teaches, so the task's own loss is 0.
    """

    name = "sentence-embeddings"
    architecture_suffix = "Model"
    auto_class = "AutoModel"
    onnx_task = "feature-extraction"
    main_metric = "spearman"
    text_columns = ("text", "pair")
    needs_pair = True
    encoded_rows = 2
    label_column = "label"
    without_labels = "each text's pair is looked for among those of the split"
    has_classes = False
    taught_by_labels = False
    kind = "an encoder of texts as vectors"
    tolerance = 0.03  # all-minilm-l6-v2: what quantization itself moves; another text, 0.2
    agreeing = "cosine between the teacher's vectors and these, mean over texts"
    reading = (
        "`last_hidden_state` holds a vector for each token. That of a text is their mean over the tokens "
        "whose attention_mask is 1 or, where `pooling` in manifest.json is cls, the first of them; divide "
        "it by its norm, and two texts are as alike as the dot product of their vectors. transformers.js "
        'does both: `pipeline("feature-extraction", …)`, called with `{ pooling, normalize: true }`. The '
        "logits of golden examples are pooled and divided by their norm."
    )

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Whatever the config says of problems and labels: there are none."""
        return True

    def of_folder(self, folder: Path) -> Head:
        """Return this head with the pooling that sentence-transformers saved, or the mean.

        Raises:
            TeacherError: vectors are made in a way that is not supported.
        """
        return replace(self, pooling=read_pooling(folder) or "mean")

    def read_labels(self, values: Collection[Any], where: str) -> NDArray[np.float32]:
        """Check that every label is a number, and that they are not all one."""
        return _SCORES.read_labels(values, where)

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize both texts of each pair, as two rows, with the pair's label; NaN where it has none."""
        texts = [text for pair in zip(rows["text"], rows["pair"], strict=True) for text in pair]
        scores = rows.get("label", [float("nan")] * len(rows["text"]))
        return {
            "text": texts,
            "label": [score for score in scores for _ in ("text", "pair")],
            **tokenizer(texts, truncation=True, max_length=max_length),
        }

    def read_output(
        self, outputs: Mapping[str, Any], attention_mask: Int[Any, "batch tokens"]
    ) -> Float[Any, "batch width"]:
        """Return a vector for each text, of tensors or of arrays; not divided by its norm yet."""
        hidden = outputs["last_hidden_state"]
        if self.pooling == "cls":
            return hidden[:, 0]
        counted = attention_mask[:, :, None]
        return (hidden * counted).sum(1) / counted.sum(1)

    def soft_loss(
        self,
        student_logits: Float[Any, "batch width"],
        teacher_logits: Float[Any, "batch width"],
        temperature: float,
    ) -> Float[Any, ""]:
        """Squared distance of the vectors after division by their norms, mean over the batch.

            L = (1 / B) · Σ_b ‖ŝ_b − t̂_b‖² = (2 / B) · Σ_b (1 − cos(s_b, t_b))

        The mean squared error of Reimers and Gurevych 2020 (arXiv:2004.09813, section 2), of vectors of
        norm 1, since texts are compared by their angle alone; summed over the width, so that it weighs
        the same at every width. There is nothing to soften: the temperature is not read.
        """
        from torch.nn.functional import cosine_similarity

        return 2 * (1 - cosine_similarity(student_logits, teacher_logits, dim=-1)).mean()

    def task_loss(
        self, logits: Float[Any, "batch width"], labels: Float[Any, " batch"]
    ) -> Float[Any, ""]:
        """Return 0: a text alone has no label, and the texts of a pair are seldom in one batch."""
        return 0 * logits.sum()

    def read_units(self, columns: Mapping[str, Sequence[Any]]) -> Labels:
        """Return the score of each text's pair; the rows are the pairs."""
        labels = columns["label"]
        return Labels(np.asarray(labels, dtype=float), np.arange(len(labels)) // 2)

    def predict(self, logits: Float[np.ndarray, "units width"]) -> Float[np.ndarray, "units width"]:
        """Return the vectors, divided by their norms."""
        return _normalise(logits)

    def metrics(
        self, predictions: Float[np.ndarray, "units width"], labels: Labels
    ) -> dict[str, float]:
        """Return how well cosines follow the scores, or how often a text finds its pair.

        With scores, Spearman's and Pearson's correlation of the cosine of each pair with its score.
        Without, the texts are queries and their pairs the documents: the mean reciprocal rank of the
        right one, 0 where ten others are nearer, and the share of queries it is the nearest of.
        """
        if _scored(labels):
            found = _SCORES.metrics(_cosines(predictions), _pair_labels(labels))
            return {name: found[name] for name in ("spearman", "pearson")}
        ranks = _ranks(predictions)
        return {
            "mrr": float(_reciprocal(ranks).mean()),
            "recall_at_1": float(np.mean(ranks == 1)),
        }

    def main_metric_of(self, metrics: Mapping[str, float]) -> str:
        """Return spearman, or mrr where the rows have no scores."""
        return "spearman" if "spearman" in metrics else "mrr"

    def statistics(
        self, predictions: Float[np.ndarray, "units width"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return the moments of the ranks of cosines and scores, or reciprocal ranks and queries.

        Both are of all rows: in a draw of them nothing is ranked anew, and the documents stay.
        """
        if _scored(labels):
            return _SCORES.statistics(_cosines(predictions), _pair_labels(labels))
        ranks = _ranks(predictions)
        return np.stack([_reciprocal(ranks), np.ones(len(ranks))], axis=1)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Spearman's correlation of moments, or the mean reciprocal rank."""
        if sums.shape[-1] == 2:
            return ratio(sums)
        return _SCORES.main_score(sums)

    def agreement(
        self,
        predictions: Float[np.ndarray, "units width"],
        others: Float[np.ndarray, "units width"],
    ) -> float:
        """Return the mean cosine of the two models' vectors of each text.

        At 1 either model finds what the other has indexed, which no correlation of their similarities
        would tell.
        """
        return float(np.mean((predictions * others).sum(axis=1)))

    def answer(self, logits: Float[np.ndarray, " width"], row: Mapping[str, Any]) -> str:
        """Say how long the vector is, and how it begins."""
        start = " ".join(f"{number:.3f}" for number in self.golden(logits)[:4])
        return f"{len(logits)} numbers: {start} …"

    def same_answer(
        self,
        logits: Float[np.ndarray, " width"],
        others: Float[np.ndarray, " width"],
        row: Mapping[str, Any],
        other_row: Mapping[str, Any],
    ) -> bool:
        """Tell whether two vectors are nearer than those of two texts that mean the same usually are."""
        return bool(self.golden(logits) @ self.golden(others) >= _SAME)

    def golden(self, logits: Float[np.ndarray, " width"]) -> Float[np.ndarray, " width"]:
        """Return the vector, divided by its norm."""
        return _normalise(logits)


def _normalise(vectors: Float[np.ndarray, "*units width"]) -> Float[np.ndarray, "*units width"]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12))


def _scored(labels: Labels) -> bool:
    return not np.isnan(labels.values).any()


def _pair_labels(labels: Labels) -> Labels:
    return Labels(labels.values[::2], labels.rows[::2])


def _cosines(vectors: Float[np.ndarray, "units width"]) -> Float[np.ndarray, " rows"]:
    return np.asarray((vectors[::2] * vectors[1::2]).sum(axis=1))


def _ranks(vectors: Float[np.ndarray, "units width"]) -> Int[np.ndarray, " rows"]:
    """Return the place of each text's pair among all pairs, from 1; of equals the best place."""
    queries, documents = vectors[::2], vectors[1::2]
    right = _cosines(vectors)[:, None] + _TIE
    ranks = [
        1 + (queries[start:end] @ documents.T > right[start:end]).sum(axis=1)
        for start in range(0, len(queries), _QUERIES_AT_ONCE)
        for end in [start + _QUERIES_AT_ONCE]
    ]
    return np.concatenate(ranks)


def _reciprocal(ranks: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    return np.where(ranks <= _FOUND_AMONG, 1 / ranks, 0.0)
