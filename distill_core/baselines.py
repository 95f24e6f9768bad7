"""What a student must beat to have been worth its teacher.

Two floors that need no transformer at all, and the same student taught by labels alone.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn.functional import embedding_bag

from distill_core.evaluation import difference_interval, read_labels, score
from distill_core.heads import Head, TextHead

FLOOR_ROWS = 50_000
"""More training rows move a linear model no further than its interval, and cost minutes."""

_MOST_TERMS = 200_000


def measure_floors(
    head: Head,
    embeddings: Float[Tensor, "vocabulary width"],
    train: Dataset,
    rows: Dataset,
    seed: int,
) -> dict[str, Float[np.ndarray, "units classes"]]:
    """Train linear models on the labels, and return the logits of each, by name.

    `tf-idf` reads tokens and pairs of tokens; `static embeddings` reads the mean of the teacher's own
    word embeddings, without one layer of it.

    Args:
        head: knows the linear model that fits its labels; one that answers words has no floors.
        embeddings: of the teacher's words.
        train: tokenized rows; at most 50,000 of them, drawn with the seed, are read.
        rows: what to answer.
        seed: decides which rows are drawn.
    """
    if not isinstance(head, TextHead):
        return {}
    if len(train) > FLOOR_ROWS:
        train = train.shuffle(seed=seed).select(range(FLOOR_ROWS))
    labels = read_labels(head, train)
    features = {
        "tf-idf": _terms(train, rows),
        "static embeddings": _static(embeddings, train, rows),
    }
    return {
        name: head.linear_logits(learnt, labels, asked)
        for name, (learnt, asked) in features.items()
    }


def _terms(train: Dataset, rows: Dataset) -> tuple[Any, Any]:
    # Of token ids, not words: every language has them.
    vectorizer = TfidfVectorizer(analyzer=_terms_of, sublinear_tf=True, max_features=_MOST_TERMS)
    return (
        vectorizer.fit_transform(train["input_ids"][:]),
        vectorizer.transform(rows["input_ids"][:]),
    )


def _terms_of(ids: Sequence[int]) -> list[tuple[int, ...]]:
    return [*((token,) for token in ids), *pairwise(ids)]


def _static(embeddings: Tensor, train: Dataset, rows: Dataset) -> tuple[Any, Any]:
    learnt, asked = _means(embeddings, train), _means(embeddings, rows)
    scale = learnt.std(axis=0).clip(min=1e-6)
    return learnt / scale, asked / scale


def _means(
    embeddings: Float[Tensor, "vocabulary width"], rows: Dataset
) -> Float[np.ndarray, "rows width"]:
    ids = [torch.tensor(row) for row in rows["input_ids"]]
    starts = torch.tensor([0, *(len(row) for row in ids[:-1])]).cumsum(0)
    means = embedding_bag(torch.cat(ids), embeddings.detach(), starts, mode="mean")
    return np.asarray(means)


def compare(
    name: str,
    head: Head,
    logits: Float[np.ndarray, "units classes"],
    student_logits: Float[np.ndarray, "units classes"],
    rows: Dataset,
    seed: int,
) -> dict[str, Any]:
    """Return the metrics of a baseline, and how far the student is above it, with its interval."""
    labels = read_labels(head, rows)
    return {
        "name": name,
        "metrics": score(head, logits, labels),
        "student_above": vars(difference_interval(head, student_logits, logits, labels, seed)),
    }


def verdict(baselines: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Say of which baselines the student is not better, beyond doubt, in the main metric."""
    return [
        f"{baseline['name']} reaches {metric} {baseline['metrics'][metric]:.4f}: the student is not "
        "clearly better, so this task may need no distillation"
        for baseline in baselines
        if baseline["student_above"]["low"] <= 0
    ]
