"""Tiny distillations with every loss that can be had, of students of half the depth or half the width."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from distill_core.batches import collate
from distill_core.errors import ConfigError
from distill_core.loss_weights import LOSSES, RECORDED, LossWeights
from distill_core.step import Learner
from tests.core.family_models import narrow
from tests.core.test_training import distance, equal, run, without_dropout


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name in LOSSES[2:]
        for shape in ("half the depth", "half the width")
        if (name, shape) != ("attention", "half the width")  # head by head, and there are fewer
    ],
)
def test_a_loss_that_is_learnt_alone_falls(
    name: str, shape: str, student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    start = student if shape == "half the depth" else narrow(fitted_teacher)
    draws = torch.Generator().manual_seed(1)
    for parameter in start.parameters():  # some are copies of the teacher's, with nothing to learn
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=draws)
    weights = LossWeights(**(dict.fromkeys(RECORDED, 0.0) | {name: 1.0}), hidden_layers="uniform")
    steps = run(start, fitted_teacher, job(weights, epochs=5, learning_rate=0.005)).steps
    assert set(steps[0].losses) == {*RECORDED, name}
    values = [step.losses[name] for step in steps]
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5])
    assert [step.total for step in steps] == pytest.approx(values)


@pytest.mark.parametrize(
    "weights",
    [
        {"soft": "mse"},
        {"focal_gamma": 2.0},
        {"class_weights": "balanced"},
        {"class_weights": {"positive": 2.0}, "focal_gamma": 1.0},
        {"hidden": 1.0, "embeddings": 1.0, "relation": 1.0, "hidden_layers": "uniform"},
    ],
)
def test_every_option_brings_a_narrower_student_near_its_teacher(
    weights: dict[str, Any], fitted_teacher: PreTrainedModel, job: Any
) -> None:
    settings = job(LossWeights(**weights), epochs=6, learning_rate=0.005)
    start = narrow(fitted_teacher)
    trained = run(start, fitted_teacher, settings)
    before, after = (distance(m, fitted_teacher, settings) for m in (start, trained.model))
    assert after < before / 2
    assert trained.model.state_dict().keys() == start.state_dict().keys()


def test_a_narrower_student_is_the_same_for_the_same_seed_and_feels_the_cosine(
    fitted_teacher: PreTrainedModel, job: Any
) -> None:
    settings = job(max_steps=6)
    first = run(narrow(fitted_teacher), fitted_teacher, settings).model.state_dict()
    torch.rand(5)
    second = run(narrow(fitted_teacher), fitted_teacher, settings).model.state_dict()
    without = job(LossWeights(cosine=0.0), max_steps=6)
    assert equal(first, second)
    other = run(narrow(fitted_teacher), fitted_teacher, without).model.state_dict()
    assert not equal(first, other)


def test_what_is_learnt_beside_a_narrower_student_is_its_projections(
    fitted_teacher: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(hidden=1.0, embeddings=1.0, relation=1.0)
    learner = Learner(narrow(fitted_teacher), fitted_teacher, job(weights), Accelerator())
    before = copy.deepcopy(learner.projections.state_dict())
    assert list(before) == ["maps.hidden.weight", "maps.embeddings.weight"]
    learnt = {
        id(p)
        for optimizer in learner.optimizers
        for g in optimizer.param_groups
        for p in g["params"]
    }
    parts = (learner.model, learner.projections)
    assert learnt == {id(p) for part in parts for p in part.parameters()}
    rows = [learner.job.train[number] for number in range(8)]
    for number in (1, 2):  # the first step of the warm-up is of no length
        learner.step(collate(rows, 0), number)
    assert all(not torch.equal(before[n], p) for n, p in learner.projections.state_dict().items())
    assert all(p.grad is None for part in parts for p in part.parameters())


def test_a_weight_that_changes_is_what_it_should_be_at_the_first_and_the_last_step(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(distillation=0.0, cosine=0.0, task={"from": 1.0, "to": 3.0})
    steps = run(student, fitted_teacher, job(weights, max_steps=5)).steps
    shown = [step.total / step.losses["task"] for step in steps]
    assert shown == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])


def test_a_loss_that_sets_in_late_leaves_the_first_step_as_it_was(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    late = LossWeights(hidden={"from": 0.0, "to": 4.0})
    plain, rising = (run(student, fitted_teacher, job(w, max_steps=3)) for w in (None, late))
    totals = [[step.total for step in trained.steps] for trained in (plain, rising)]
    assert totals[1][0] == totals[0][0]
    assert totals[1][2] > totals[0][2]


def test_the_labels_alone_are_learnt_with_the_tasks_loss_of_the_pipeline_file(
    student: PreTrainedModel, job: Any
) -> None:
    frozen = without_dropout(student)
    focal, plain = (
        run(frozen, None, job(LossWeights(focal_gamma=gamma), max_steps=1)).steps[0].losses["task"]
        for gamma in (2.0, 0.0)
    )
    assert 0 < focal < plain


def test_teacher_and_student_of_other_heads_are_refused_before_the_first_step(
    fitted_teacher: PreTrainedModel, job: Any
) -> None:
    with pytest.raises(ConfigError, match=r"losses\.attention: the student has 2 attention heads"):
        run(narrow(fitted_teacher), fitted_teacher, job(LossWeights(attention=1.0)))


def test_every_loss_is_a_number_in_bf16_too(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    everything = LossWeights(**dict.fromkeys(LOSSES, 1.0), hidden_layers="uniform")
    fp32, bf16, fp16 = (
        run(student, fitted_teacher, job(everything, max_steps=1, precision=precision)).steps[0]
        for precision in ("fp32", "bf16", "fp16")
    )
    assert fp16.losses == pytest.approx(fp32.losses, rel=0.02, abs=0.005)
    assert bf16.losses == pytest.approx(fp32.losses, rel=0.1, abs=0.02)
    assert bf16.losses != fp32.losses
