"""A training that is killed: it goes on, and its student is that of one that was not, bit for bit."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict, load_from_disk
from transformers import PreTrainedModel

from distill_core import checkpoint
from distill_core.checkpoint import Checkpoint
from distill_core.config import TrainingSettings
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job, StepRecord
from distill_core.loss_weights import LossWeights
from distill_core.student import build_student, save_model
from distill_core.teacher import load_model
from distill_core.training import EpochRecord, Trained, distill
from tests.core.forks import fresh_processes

Weights = dict[str, torch.Tensor]


class Killed(Exception):
    """Ends a training where it is."""


@pytest.fixture
def job(rows: DatasetDict, head: SequenceClassification) -> Job:
    settings = TrainingSettings(epochs=3, batch_size=8, precision="fp32")
    return Job(rows["train"], rows["validation"], head, LossWeights(), settings)


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a second write a checkpoint at each step."""
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)


def train(
    job: Job, teacher: PreTrainedModel | None, start: PreTrainedModel, scratch: Path, last: int = 0
) -> Trained:
    """Train; stop at once when the step `last` is told, before its checkpoint is written."""

    def listen(record: StepRecord | EpochRecord) -> None:
        if isinstance(record, StepRecord) and record.step == last:
            raise Killed

    scratch.mkdir(exist_ok=True)
    return distill(start, teacher, job, listen, scratch)


def same(one: Trained, other: Trained) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("last", "taught"),
    [(2, True), (16, True), (20, False)]
    + [pytest.param(last, True, marks=pytest.mark.slow) for last in (15, 20, 45)]
    + [pytest.param(last, False, marks=pytest.mark.slow) for last in (2, 15, 16, 45)],
)
def test_a_stopped_training_goes_on_bit_for_bit(
    last: int, taught: bool, fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    teacher = fitted_teacher if taught else None
    whole = train(job, teacher, start, tmp_path / "whole")
    with pytest.raises(Killed):
        train(job, teacher, start, tmp_path / "stopped", last)
    torch.rand(5)  # another process would have another state
    rest = train(job, teacher, start, tmp_path / "stopped")
    assert same(rest, whole)
    assert rest.kept_outputs == whole.kept_outputs == taught
    assert [record.total for record in rest.steps] == [record.total for record in whole.steps]
    assert [record.metrics for record in rest.epochs] == [r.metrics for r in whole.epochs]


def test_a_training_that_chose_its_mode_by_time_goes_on_in_it(
    fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    # In bf16 there are two kinds of attention to choose from; elsewhere auto may leave fp32 alone.
    timed = replace(job, settings=job.settings.model_copy(update={"precision": "bf16"}))
    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    with pytest.raises(Killed):
        train(timed, fitted_teacher, start, tmp_path, last=9)
    state = Checkpoint(tmp_path / "checkpoint.pt").read()
    assert state is not None
    rest = train(timed, fitted_teacher, start, tmp_path)
    assert rest.choice.mode == state["mode"]
    assert rest.choice.step_ms == state["step_ms"] != {}


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "checkpoint.pt")
    assert file.read() is None
    file.write({"steps": [1, 2.5], "model": {"w": torch.arange(3)}})
    (tmp_path / "checkpoint.partial").write_bytes(b"half of the next")
    state = Checkpoint(tmp_path / "checkpoint.pt").read()
    assert state is not None
    assert state["steps"] == [1, 2.5]
    assert state["model"]["w"].tolist() == [0, 1, 2]


@pytest.mark.faults
def test_a_process_killed_at_any_step_leaves_a_training_that_goes_on_bit_for_bit(
    fitted_teacher: PreTrainedModel, job: Job, tiny_bert: Path, tmp_path: Path
) -> None:
    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    for name, model in (("teacher", fitted_teacher), ("start", start)):
        save_model(model, tiny_bert, tmp_path / name)
    DatasetDict({"train": job.train, "validation": job.validation}).save_to_disk(tmp_path / "rows")
    whole = run_process(tmp_path, "whole")
    for last in (3, 17, 40):
        assert run_process(tmp_path, "killed", last) is None
    rest = run_process(tmp_path, "killed")
    assert all(torch.equal(rest[name], whole[name]) for name in whole)


def run_process(folder: Path, name: str, last: int = 0) -> Weights | None:
    """Train in a process that kills itself at a step; return the weights, if it got that far."""
    (folder / name).mkdir(exist_ok=True)
    process = fresh_processes().Process(target=train_prepared, args=(folder, name, last))
    process.start()
    process.join()
    if last:
        assert process.exitcode == -signal.SIGKILL
        return None
    assert process.exitcode == 0
    weights: Weights = torch.load(folder / f"{name}.pt", weights_only=True)
    return weights


def train_prepared(folder: Path, name: str, last: int) -> None:
    """Train what a test prepared."""

    def listen(record: Any) -> None:
        if isinstance(record, StepRecord) and record.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    checkpoint.EVERY_S = 0.0
    rows = load_from_disk(str(folder / "rows"))
    head = SequenceClassification(("negative", "positive"))
    settings = TrainingSettings(epochs=3, batch_size=8, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    models = [load_model(folder / part) for part in ("start", "teacher")]
    trained = distill(*models, job, listen, folder / name)
    torch.save(trained.model.state_dict(), folder / f"{name}.pt")
