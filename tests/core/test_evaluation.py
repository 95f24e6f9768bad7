"""Scores, agreement and intervals against other people's code, and the order of answers."""

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.metrics import classification_report
from transformers import PreTrainedModel

from distill_core.evaluation import (
    Interval,
    agreement,
    difference_interval,
    evaluate,
    model_logits,
    per_class,
    read_labels,
    score,
)
from distill_core.heads import Labels
from distill_core.heads.sequence_classification import SequenceClassification

HEAD = SequenceClassification(("negative", "neutral", "positive"))
seeds = st.integers(0, 2**32 - 1)


def answers(*classes: int) -> NDArray[np.float64]:
    """Return logits of three classes that choose the given ones."""
    return np.eye(3)[list(classes)]


def rowwise(*labels: int) -> Labels:
    return Labels(np.array(labels), np.arange(len(labels)))


def interval_of(student: NDArray, teacher: NDArray, seed: int) -> Interval:
    """Return the interval of two models, of which rows each gets right."""
    logits = (answers(*(1 - right).astype(int)) for right in (student, teacher))
    return difference_interval(HEAD, *logits, rowwise(*np.zeros(len(student), dtype=int)), seed)


def test_a_model_answers_every_row_as_it_answers_it_alone(
    fitted_teacher: PreTrainedModel, rows: DatasetDict
) -> None:
    logits = model_logits(fitted_teacher, HEAD, rows["train"])
    assert (logits.shape, logits.dtype) == ((120, 2), np.float32)
    for number in (0, 1, 50, 119):
        ids = torch.tensor([rows["train"][number]["input_ids"]])
        with torch.inference_mode():
            alone = fitted_teacher(ids).logits[0].numpy()
        np.testing.assert_allclose(logits[number], alone, atol=1e-5)


def test_answers_in_bf16_come_back_in_fp32(
    fitted_teacher: PreTrainedModel, rows: DatasetDict
) -> None:
    narrow = type(fitted_teacher)(fitted_teacher.config).to(torch.bfloat16)
    assert model_logits(narrow, HEAD, rows["validation"]).dtype == np.float32


def test_labels_of_rows_are_whole_numbers(rows: DatasetDict) -> None:
    labels = read_labels(HEAD, rows["validation"]).values
    assert labels.dtype == np.int64
    assert labels.tolist() == rows["validation"]["label"][:]


def test_a_score_is_the_heads_metrics_of_the_largest_logits() -> None:
    metrics = score(HEAD, answers(0, 1, 1, 2), rowwise(0, 1, 2, 2))
    # F1 = 2·hits / (said + meant): 2·1/2, 2·1/3 and 2·1/3.
    assert metrics == pytest.approx({"accuracy": 3 / 4, "f1_macro": (1 + 2 / 3 + 2 / 3) / 3})


def test_agreement_counts_equal_answers_right_or_wrong() -> None:
    assert agreement(HEAD, answers(0, 1, 2, 2), 9 * answers(0, 1, 2, 0)) == 3 / 4


@given(seeds)
def test_agreement_is_the_same_both_ways_and_whole_with_oneself(seed: int) -> None:
    one, other = np.random.default_rng(seed).normal(size=(2, 20, 3))
    assert agreement(HEAD, one, other) == agreement(HEAD, other, one)
    assert agreement(HEAD, one, one) == agreement(HEAD, one, 5 * one + 1) == 1.0


def draw_pair(rows: int, seed: int, student: float, teacher: float) -> tuple[NDArray, NDArray]:
    """Return which rows a student and a teacher of known accuracies get right."""
    draws = np.random.default_rng(seed)
    return tuple((draws.random(rows) < accuracy).astype(float) for accuracy in (student, teacher))


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    student, teacher = draw_pair(500, seed=0, student=0.85, teacher=0.9)
    ours = interval_of(student, teacher, seed=1)
    theirs = bootstrap(
        (student - teacher,), np.mean, method="percentile", n_resamples=10_000, rng=2
    ).confidence_interval
    # Both are quantiles of 10,000 draws of multiples of 1/500.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    assert ours.difference == pytest.approx((student - teacher).mean())


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        interval = interval_of(*draw_pair(300, seed, student=0.8, teacher=0.85), seed)
        covered += interval.low <= 0.8 - 0.85 <= interval.high
    # 190 are expected of a 95% interval, and the deviation of that count is 3.
    assert 180 <= covered <= 200


@given(seeds, st.integers(1, 200))
def test_the_interval_contains_the_difference_itself(seed: int, rows: int) -> None:
    interval = interval_of(*draw_pair(rows, seed, student=0.7, teacher=0.8), seed)
    assert -1 <= interval.low <= interval.difference <= interval.high <= 1


def test_models_that_answer_alike_have_an_interval_of_no_width() -> None:
    right = np.array([1.0, 0.0, 1.0])
    interval = interval_of(right, right, seed=0)
    assert (interval.low, interval.difference, interval.high) == (0, 0, 0)


def test_the_seed_decides_the_interval() -> None:
    pair = draw_pair(100, seed=0, student=0.7, teacher=0.8)
    assert interval_of(*pair, seed=3) == interval_of(*pair, seed=3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_the_table_of_classes_is_scikit_learns_report(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs, dtype=np.int64).T
    report = classification_report(
        labels,
        predictions,
        labels=range(3),
        target_names=HEAD.labels,
        output_dict=True,
        zero_division=0,
    )
    for row in per_class(HEAD, predictions, rowwise(*labels)):
        theirs = report[row["label"]]
        expected = (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        assert (row["precision"], row["recall"], row["f1"], row["rows"]) == pytest.approx(expected)


def test_an_evaluation_is_what_counting_gives_by_hand() -> None:
    labels = rowwise(0, 0, 1, 1, 2, 2, 2, 2)
    teacher = answers(0, 0, 1, 1, 2, 2, 2, 0)  # 7 of 8
    student = answers(0, 1, 1, 1, 2, 2, 0, 0)  # 5 of 8, and 6 of 8 as the teacher
    facts = evaluate(HEAD, teacher, student, labels, seed=0)
    assert (facts["rows"], facts["main_metric"]) == (8, "accuracy")
    assert facts["teacher"]["accuracy"] == 7 / 8
    assert facts["student"]["accuracy"] == 5 / 8
    assert facts["retention"] == pytest.approx(5 / 7)
    assert facts["agreement"] == 6 / 8
    assert facts["difference"]["difference"] == pytest.approx(-2 / 8)
    assert facts["confusion"] == [[1, 1, 0], [0, 2, 0], [2, 0, 2]]
    assert [row["rows"] for row in facts["per_class"]] == [2, 2, 4]


def test_a_teacher_that_is_never_right_does_not_divide_by_zero() -> None:
    facts = evaluate(HEAD, answers(1, 1), answers(0, 1), rowwise(0, 0), seed=0)
    assert facts["teacher"]["accuracy"] == 0
    assert np.isfinite(facts["retention"])


def test_dropout_does_not_touch_the_answers(
    fitted_teacher: PreTrainedModel, rows: DatasetDict
) -> None:
    expected = model_logits(fitted_teacher, HEAD, rows["validation"])
    assert np.array_equal(model_logits(fitted_teacher.train(), HEAD, rows["validation"]), expected)
