"""The heads: labels, losses, scores, and which models have one."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score
from torch import tensor
from torch.testing import assert_close

from distill_core.errors import ConfigError, DataError, TeacherError
from distill_core.heads import Labels, find_head
from distill_core.heads.sequence_classification import SequenceClassification

HEAD = SequenceClassification(("negative", "neutral", "positive"))
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
}
classes = st.integers(0, 2)


def rowwise(labels: NDArray[Any]) -> Labels:
    return Labels(labels, np.arange(len(labels)))


def test_labels_are_numbers_or_names_or_both() -> None:
    labels = HEAD.read_labels([0, "positive", np.int32(1), "negative"], "train: column label")
    assert labels.tolist() == [0, 2, 1, 0]
    assert labels.dtype == np.int64


def test_names_may_be_in_capitals_where_no_two_classes_differ_by_them_alone() -> None:
    assert HEAD.read_labels(["NEGATIVE", "Positive"], "train").tolist() == [0, 2]
    alike = SequenceClassification(("us", "US", "them"))
    assert alike.read_labels(["US", "us", "Them"], "train").tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="'Us'"):
        alike.read_labels(["us", "Us"], "train")


@pytest.mark.parametrize("label", [3, -1, "", None, 1.0, True, [0]])
def test_a_label_that_is_no_class_is_named_with_its_row(label: object) -> None:
    with pytest.raises(DataError) as caught:
        HEAD.read_labels([0, 1, label], "train: column label")
    assert str(caught.value) == (
        f"train: column label: row 2 has the label {label!r}; "
        "accepted: 0 to 2, or one of negative, neutral, positive"
    )


@pytest.mark.parametrize("name", ["positiv", "0"])
def test_a_name_that_is_no_class_may_be_told(name: str) -> None:
    says = (
        rf"'{name}'; accepted: .* positive; data\.label_names: \{{'{name}': …\}} says which of them"
    )
    with pytest.raises(DataError, match=says):
        HEAD.read_labels([0, 1, name], "train: column label")


def test_a_message_lists_eight_of_many_classes() -> None:
    many = SequenceClassification(tuple(f"class {number}" for number in range(50)))
    with pytest.raises(DataError, match=r"accepted: 0 to 49, or one of class 0, .*class 7 …$"):
        many.read_labels([50], "train")


@pytest.mark.parametrize("labels", [[], [1], ["neutral", 1, 1]])
def test_labels_of_a_single_class_are_refused(labels: list[object]) -> None:
    with pytest.raises(DataError, match="train: all rows have one label"):
        HEAD.read_labels(labels, "train")


def test_the_task_loss_is_the_mean_log_of_the_right_class() -> None:
    # −ln softmax(ln 2, ln 1, ln 1)[0] = ln 2, and [1] = ln 4: their mean is 3/2·ln 2.
    logits = torch.log(tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    assert_close(HEAD.task_loss(logits, tensor([0, 1])), 1.5 * torch.log(tensor(2.0)))


def test_the_largest_logit_is_the_answer() -> None:
    logits = np.array([[0.1, -2.0, 0.3], [5.0, 4.9, -1.0]])
    assert HEAD.predict(logits).tolist() == [2, 0]
    assert HEAD.answer(logits[0], {}) == "positive"


@given(st.lists(st.tuples(classes, classes), min_size=1))
def test_metrics_are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(rows, dtype=np.int64).T
    expected = {
        "accuracy": accuracy_score(labels, predictions),
        "f1_macro": f1_score(labels, predictions, average="macro", zero_division=0),
    }
    assert HEAD.metrics(predictions, rowwise(labels)) == pytest.approx(expected)


def test_metrics_are_what_counting_gives_by_hand() -> None:
    # One of four is wrong. F1 = 2·hits / (said + meant): 2·1/(1 + 2) = 2/3 and 2·2/(3 + 2) = 4/5.
    metrics = HEAD.metrics(np.array([0, 1, 1, 1]), rowwise(np.array([0, 0, 1, 1])))
    assert metrics == pytest.approx({"accuracy": 3 / 4, "f1_macro": (2 / 3 + 4 / 5) / 2})


@given(st.lists(st.tuples(classes, classes), min_size=1))
def test_the_main_metric_is_made_of_sums_over_rows(rows: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(rows, dtype=np.int64).T
    sums = HEAD.statistics(predictions, rowwise(labels)).sum(axis=0)
    assert HEAD.main_score(sums) == pytest.approx(
        HEAD.metrics(predictions, rowwise(labels))[HEAD.main_metric]
    )


@pytest.mark.parametrize("task", ["auto", "sequence-classification"])
def test_a_head_is_found_by_architecture_with_the_teachers_names(task: str) -> None:
    assert find_head(CONFIG, task, "teacher") == HEAD


@pytest.mark.parametrize("names", [{}, {"id2label": None}, {"num_labels": 2}])
def test_a_teacher_without_names_has_transformers_default_ones(names: dict[str, object]) -> None:
    head = find_head({"architectures": ["XForSequenceClassification"], **names}, "auto", "teacher")
    assert head.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("architectures", [None, [], ["BertForPreTraining"], ["GPT2LMHeadModel"]])
def test_a_teacher_without_a_known_head_is_refused(architectures: list[str] | None) -> None:
    message = r"teacher/config\.json: architectures: .*accepted: …ForSequenceClassification"
    with pytest.raises(TeacherError, match=message):
        find_head({"architectures": architectures}, "auto", "teacher")


@pytest.mark.parametrize("head", ["QuestionAnswering", "MultipleChoice"])
def test_a_head_without_classes_asks_for_no_names(head: str) -> None:
    config = {"architectures": [f"BertFor{head}"], "id2label": {"3": "a relic of its checkpoint"}}
    found = find_head(config, "auto", "teacher")
    assert (type(found).__name__, found.labels) == (head, ())


def test_a_head_other_than_the_task_of_the_file_is_refused() -> None:
    with pytest.raises(TeacherError, match="is sequence-classification, not regression: set task"):
        find_head(CONFIG, "regression", "teacher")


def test_a_task_that_no_head_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task: 'translation'; accepted: auto, .*regression"):
        find_head(CONFIG, "translation", "teacher")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"problem_type": "regression"}, "regression with 3"),
        ({"problem_type": "ranking"}, "ranking with 3"),
        (
            {"problem_type": "single_label_classification", "id2label": {"0": "score"}},
            "single_label_classification with 1",
        ),
    ],
)
def test_a_problem_that_no_head_has_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(TeacherError, match=rf"problem_type {says} label.* fits no head"):
        find_head({**CONFIG, **change}, "auto", "teacher")


def test_label_numbers_with_a_gap_are_refused() -> None:
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"1": "a", "2": "b"}}
    with pytest.raises(TeacherError, match=r"id2label numbers its labels 1, 2; accepted: 0 to 1"):
        find_head(config, "auto", "folder")
