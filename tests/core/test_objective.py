"""What is to be learnt: classes weighed by name or by number of rows, and heads that can be compared."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from sklearn.utils.class_weight import compute_class_weight
from transformers import PreTrainedModel

from distill_core.errors import ConfigError
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.loss_weights import LossWeights
from distill_core.losses import Objective
from distill_core.objective import build_objective


@pytest.fixture
def build(rows: DatasetDict, head: SequenceClassification, fitted_teacher: PreTrainedModel) -> Any:
    """Make an objective of a student with other heads or another width."""

    def make(config: dict[str, Any] | None = None, **weights: Any) -> Objective:
        changed = copy.deepcopy(fitted_teacher.config)
        changed.update(config or {})
        student = type(fitted_teacher)(changed)
        asked = LossWeights(**weights)
        return build_objective(
            head, asked, rows["train"], student, fitted_teacher, torch.device("cpu")
        )

    return make


def test_classes_count_alike_unless_told_otherwise(build: Any) -> None:
    assert build().class_weights is None


def test_classes_are_weighed_by_name(build: Any) -> None:
    assert build(class_weights={"positive": 3.0}).class_weights.tolist() == [1.0, 3.0]


def test_balanced_classes_are_scikit_learns(build: Any, rows: DatasetDict) -> None:
    labels = np.asarray(rows["train"]["label"][:])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    weights = build(class_weights="balanced").class_weights
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected)


def test_attentions_of_other_heads_are_refused(build: Any) -> None:
    build({"num_attention_heads": 2}, hidden=1.0)
    with pytest.raises(
        ConfigError, match=r"losses\.attention: the student has 2 .* teacher 4.* accep"
    ):
        build({"num_attention_heads": 2}, attention=1.0)


@pytest.mark.parametrize(
    ("config", "asked", "parts"),
    [
        ({}, None, 4),
        ({}, 8, 8),
        ({"hidden_size": 16, "num_attention_heads": 2}, None, 4),
        ({"hidden_size": 20, "num_attention_heads": 5}, 2, 2),
    ],
)
def test_relations_are_taken_in_the_teachers_heads_or_as_told(
    build: Any, config: dict[str, int], asked: int | None, parts: int
) -> None:
    assert build(config, relation=1.0, relation_heads=asked).relation_heads == parts


def test_parts_that_do_not_divide_both_widths_are_refused(build: Any) -> None:
    narrow = {"hidden_size": 20, "num_attention_heads": 5}
    with pytest.raises(
        ConfigError,
        match=r"losses\.relation_heads: 8 parts of 20 \(student\) and 32 \(teacher\) .* 1, 2, 4$",
    ):
        build(narrow, relation=1.0, relation_heads=8)
    build(narrow, relation_heads=8)  # not read
