"""Training on a GPU, where torch finds one; every other test of training runs there too."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from distill_core.evaluation import model_logits, read_labels, score
from distill_core.loss_weights import LossWeights
from distill_core.training import distill

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


@pytest.fixture
def another_device() -> Iterator[None]:
    """Let accelerate choose its device anew after the test."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_gpu_takes_the_steps_of_the_cpu(
    student: PreTrainedModel,
    fitted_teacher: PreTrainedModel,
    job: Any,
    another_device: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def totals(device: str) -> list[float]:
        AcceleratorState._reset_state(reset_partial_state=True)
        assert Accelerator().device.type == device
        trained = distill(student, fitted_teacher, job(), listen=lambda record: None)
        assert trained.model.device == student.device
        return [record.total for record in trained.steps]

    on_gpu = totals("cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert totals("cpu") == pytest.approx(on_gpu, rel=1e-3)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_a_student_learns_in_every_precision(
    precision: str, student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    settings = job(precision=precision, epochs=3)
    trained = distill(student, fitted_teacher, settings, listen=lambda record: None)
    modes = {"auto": 3}.get(precision, 0)
    assert len(trained.choice.step_ms) == modes
    labels = read_labels(settings.head, settings.validation)
    logits = model_logits(trained.model, settings.head, settings.validation)
    assert score(settings.head, logits, labels)["accuracy"] >= 0.95


def test_classes_that_count_more_do_so_there_too(
    student: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(class_weights={"positive": 3.0})
    trained = distill(student, fitted_teacher, job(weights), listen=lambda record: None)
    assert trained.steps[-1].total < trained.steps[0].total
