"""Distillation of tiny models, which takes a second or less."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from distill_core.errors import TrainingError
from distill_core.evaluation import model_logits, read_labels, score
from distill_core.job import Job, StepRecord
from distill_core.loss_weights import LossWeights
from distill_core.mode import DTYPES, modes, not_emulated, time_products, with_attention
from distill_core.optimization import peak_learning_rate
from distill_core.soft_targets import soft_target_loss
from distill_core.teacher import load_model
from distill_core.training import EpochRecord, Trained, distill


def run(student: PreTrainedModel, teacher: PreTrainedModel | None, job: Job) -> Trained:
    return distill(student, teacher, job, listen=lambda record: None)


def accuracy(model: PreTrainedModel, job: Job) -> float:
    labels = read_labels(job.head, job.validation)
    return score(job.head, model_logits(model, job.head, job.validation), labels)["accuracy"]


def distance(student: PreTrainedModel, teacher: PreTrainedModel, job: Job) -> Tensor:
    """Return how far the student's validation answers are from the teacher's: KL, in nats."""
    ours, theirs = (
        torch.tensor(model_logits(m, job.head, job.validation)) for m in (student, teacher)
    )
    return soft_target_loss(ours, theirs, 1.0) - soft_target_loss(theirs, theirs, 1.0)


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy whose losses depend on weights and rows alone."""
    config = copy.deepcopy(model.config)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    copied = type(model)(config)
    copied.load_state_dict(model.state_dict())
    return copied


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_distillation_lowers_the_loss_and_brings_the_student_near_its_teacher(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    settings = job(epochs=3)
    trained = run(student, fitted_teacher, settings)
    totals = [record.total for record in trained.steps]
    assert np.mean(totals[-15:]) < np.mean(totals[:5])
    start, end = (distance(m, fitted_teacher, settings) for m in (student, trained.model))
    assert end < start / 4
    assert accuracy(trained.model, settings) >= max(accuracy(student, settings), 0.95)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    torch.manual_seed(123)
    first = run(student, fitted_teacher, job(seed=5)).model.state_dict()
    torch.rand(7)
    second = run(student, fitted_teacher, job(seed=5)).model.state_dict()
    other = run(student, fitted_teacher, job(seed=6)).model.state_dict()
    assert equal(first, second)
    assert not equal(first, other)


def test_student_and_teacher_are_left_as_they_were(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    student.train()
    before = [copy.deepcopy(model.state_dict()) for model in (student, fitted_teacher)]
    trained = run(student, fitted_teacher, job(max_steps=5))
    assert equal(student.state_dict(), before[0])
    assert equal(fitted_teacher.state_dict(), before[1])
    assert not equal(trained.model.state_dict(), before[0])
    assert (student.training, fitted_teacher.training) == (True, False)
    for model in (student, fitted_teacher):
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert not model.get_input_embeddings().sparse


@pytest.mark.parametrize("layers", [(2, 4), "uniform"])
def test_without_a_teacher_it_is_all_one_which_of_its_layers_are_aligned(
    student: PreTrainedModel, job: Any, layers: Any
) -> None:
    weights = LossWeights(hidden_layers=layers)
    found, expected = (
        [record.total for record in run(student, None, job(w, max_steps=5)).steps]
        for w in (weights, LossWeights())
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_numbers_are_as_small_as_before_once_training_is_over(
    student: PreTrainedModel, job: Any
) -> None:
    smallest = 5e-324
    run(student, None, job(max_steps=1))
    assert smallest * 1.0 > 0


def test_a_trained_model_is_ready_to_answer(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    model = run(student, fitted_teacher, job(max_steps=2, precision="bf16")).model
    assert not any(module.training for module in model.modules())
    assert not model.get_input_embeddings().sparse
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_fp16_learns_what_fp32_learns(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    in_fp32, in_fp16 = (
        run(student, fitted_teacher, job(epochs=3, precision=precision)).steps
        for precision in ("fp32", "fp16")
    )
    assert in_fp16[-1].total < 0.9 * in_fp16[0].total
    assert in_fp16[-1].total == pytest.approx(in_fp32[-1].total, rel=0.02)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler:UserWarning")
def test_a_step_whose_gradients_overflow_fp16_is_left_out(
    student: PreTrainedModel,
    fitted_teacher: PreTrainedModel,
    job: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = job(max_steps=3, precision="fp16")
    monkeypatch.setattr("distill_core.step.FIRST_LOSS_SCALE", 2.0**60)  # halved at each overflow
    assert equal(run(student, fitted_teacher, steps).model.state_dict(), student.state_dict())


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, [1]), (15, [15]), (20, [15, 20])])
def test_max_steps_ends_the_training_wherever_it_is_and_validates_there(
    student: PreTrainedModel, job: Any, max_steps: int, epochs: list[int]
) -> None:
    trained = run(student, None, job(max_steps=max_steps, epochs=9))
    assert [record.step for record in trained.steps] == list(range(1, max_steps + 1))
    assert [record.step for record in trained.epochs] == epochs
    assert [record.epoch for record in trained.epochs] == list(range(1, len(epochs) + 1))


def test_a_job_counts_its_steps(job: Any) -> None:
    assert (job().steps_per_epoch, job(epochs=4).steps) == (15, 60)
    assert (job(batch_size=32).steps_per_epoch, job(batch_size=500).steps) == (4, 1)
    assert (job(epochs=4, max_steps=7).steps, job(epochs=1, max_steps=70).steps) == (7, 15)


def test_training_stops_when_validation_is_no_better_for_the_patience(
    student: PreTrainedModel, job: Any
) -> None:
    # At this rate no weight moves, so no epoch is better than the first, and the last is as good.
    trained = run(student, None, job(epochs=9, patience=2, learning_rate=1e-30))
    assert [record.best for record in trained.epochs] == [True, True, True]
    assert len(trained.steps) == 3 * 15
    assert trained.summary()["best_epoch"] == 3


def test_training_goes_through_all_epochs_where_no_patience_is_given(
    student: PreTrainedModel, job: Any
) -> None:
    trained = run(student, None, job(epochs=4, learning_rate=1e-30))
    assert len(trained.epochs) == 4


def test_answers_that_are_no_numbers_after_the_last_step_are_an_error(
    student: PreTrainedModel, job: Any
) -> None:
    with pytest.raises(
        TrainingError, match=r"no longer numbers; try a lower training.learning_rate"
    ):
        run(student, None, job(max_steps=2, learning_rate=1e38))


def test_the_weights_of_the_best_epoch_are_kept(fitted_teacher: PreTrainedModel, job: Any) -> None:
    # This rate undoes what the teacher had learnt, and its scores jump about.
    settings = job(epochs=6, learning_rate=0.03)
    trained = run(fitted_teacher, None, settings)
    scores = [record.metrics["accuracy"] for record in trained.epochs]
    assert min(scores) < max(scores)
    assert accuracy(trained.model, settings) == max(scores)
    best = [record.metrics["accuracy"] for record in trained.epochs if record.best]
    assert best == sorted(best)
    assert best[-1] == max(scores)


def test_a_loss_that_is_no_number_ends_the_training_with_advice(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    student.classifier.bias.data[0] = float("nan")
    message = r"step 1: the loss is nan .*; try a lower training\.learning_rate, or training"
    with pytest.raises(TrainingError, match=message):
        run(student, fitted_teacher, job())


def test_an_absurd_learning_rate_ends_the_training_with_advice(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf)"):
        run(student, fitted_teacher, job(learning_rate=1e20))


def test_without_a_teacher_the_labels_alone_teach(tiny_bert: Path, job: Any) -> None:
    trained = run(load_model(tiny_bert), None, job(epochs=8))
    assert all(
        record.losses["distillation"] == record.losses["cosine"] == 0 for record in trained.steps
    )
    assert all(record.total == record.losses["task"] for record in trained.steps)
    assert accuracy(trained.model, job()) > 0.9


def test_the_weights_of_the_pipeline_file_make_the_total(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(distillation=0.5, task=3.0, cosine=7.0, temperature=4.0)
    for record in run(student, fitted_teacher, job(weights, max_steps=4)).steps:
        named = record.losses
        expected = 0.5 * named["distillation"] + 3 * named["task"] + 7 * named["cosine"]
        assert record.total == pytest.approx(expected, rel=1e-5)


def test_a_student_that_is_its_teacher_starts_with_no_cosine_loss(
    fitted_teacher: PreTrainedModel, job: Any
) -> None:
    first = run(fitted_teacher, fitted_teacher, job(max_steps=1)).steps[0]
    assert first.losses["cosine"] == pytest.approx(0, abs=1e-5)


def test_the_learning_rate_rises_for_a_tenth_of_the_steps_and_falls_to_the_end(
    student: PreTrainedModel, job: Any
) -> None:
    trained = run(student, None, job(epochs=2, learning_rate=0.001))
    # 30 steps: 3 of warm-up from 0, then down to 0 after the last.
    expected = [0.001 * min(step / 3, (30 - step) / 27) for step in range(30)]
    assert [record.learning_rate for record in trained.steps] == pytest.approx(expected)


def test_the_automatic_learning_rate_is_the_peak(student: PreTrainedModel, job: Any) -> None:
    trained = run(student, None, job(epochs=2))
    peak = max(record.learning_rate for record in trained.steps)
    assert peak == pytest.approx(peak_learning_rate(job().settings, 32))


def test_every_epoch_draws_other_batches(student: PreTrainedModel, job: Any) -> None:
    # At this rate no weight moves, and the mean over all rows stays the same.
    trained = run(without_dropout(student), None, job(epochs=2, learning_rate=1e-30))
    first, second = (
        [r.losses["task"] for r in trained.steps[part]] for part in (slice(15), slice(15, 30))
    )
    assert np.mean(first) == pytest.approx(np.mean(second))
    assert sorted(first) != pytest.approx(sorted(second))


@pytest.mark.parametrize(
    ("dropout", "few_rows", "on"),
    [("auto", 30_000, True), ("auto", 100, False), (False, 30_000, False), (True, 100, True)],
)
def test_beside_a_teacher_dropout_is_on_where_rows_are_few_or_the_user_says_so(
    student: PreTrainedModel,
    fitted_teacher: PreTrainedModel,
    job: Any,
    monkeypatch: pytest.MonkeyPatch,
    dropout: Any,
    few_rows: int,
    on: bool,
) -> None:
    assert student.config.hidden_dropout_prob > 0
    monkeypatch.setattr("distill_core.teaching.FEW_ROWS", few_rows)
    settings = job(epochs=2, dropout=dropout)
    runs = [run(m, fitted_teacher, settings) for m in (student, without_dropout(student))]
    assert equal(*(trained.model.state_dict() for trained in runs)) != on


def test_without_a_teacher_dropout_is_on_again_after_a_validation(
    student: PreTrainedModel, job: Any
) -> None:
    # At this rate no weight moves, so only dropout tells the two second epochs apart.
    settings = job(epochs=2, learning_rate=1e-30, dropout="auto")
    losses = [
        np.mean([record.losses["task"] for record in run(model, None, settings).steps[15:]])
        for model in (student, without_dropout(student))
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_steps_and_validations_are_told_as_they_happen(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    told: list[StepRecord | EpochRecord] = []
    trained = distill(student, fitted_teacher, job(epochs=2), listen=told.append)
    steps, epochs = trained.steps, trained.epochs
    assert told == [*steps[:15], epochs[0], *steps[15:], epochs[1]]
    assert [record.epoch for record in steps] == pytest.approx([n / 15 for n in range(1, 31)])
    assert all(a.timestamp_ms <= b.timestamp_ms for a, b in pairwise(told))
    assert all(record.rows_per_s > 0 for record in steps)


def test_the_mode_is_timed_and_leaves_no_trace_in_the_weights(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    chosen = run(student, fitted_teacher, job(precision="auto", max_steps=4))
    device = Accelerator().device
    tried = not_emulated(modes("auto", "sdpa", device), time_products(DTYPES, device))
    assert list(chosen.choice.step_ms) == [mode.name for mode in tried if len(tried) > 1]
    mode = chosen.choice.mode
    start = with_attention(student, mode.attention)
    told = run(start, fitted_teacher, job(precision=mode.precision, max_steps=4))
    assert (told.choice.mode.precision, told.model.dtype) == (mode.precision, torch.float32)
    if told.choice.mode == mode:
        assert equal(chosen.model.state_dict(), told.model.state_dict())


def test_a_summary_holds_the_facts_of_the_training(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    trained = run(student, fitted_teacher, job(epochs=2))
    summary = trained.summary()
    assert (summary["steps"], summary["precision"], summary["step_ms"]) == (30, "fp32", {})
    assert [epoch["step"] for epoch in summary["epochs"]] == [15, 30]
    assert summary["epochs"][summary["best_epoch"] - 1]["best"]
