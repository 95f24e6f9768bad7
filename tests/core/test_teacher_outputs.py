"""The teacher's outputs, kept: as it gave them, asked for once, and gone afterwards."""

from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from torch.testing import assert_close
from transformers import PreTrainedModel

from distill_core.batches import Batch, collate, model_inputs, row_lengths
from distill_core.config import TrainingSettings
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.losses import Output
from distill_core.student import build_student
from distill_core.teacher_outputs import TeacherOutputs, fits, size_bytes
from distill_core.training import Trained, distill
from tests.conftest import PATIENCE_S
from tests.core.family_models import narrow
from tests.core.forks import fresh_processes

SHAPE = (1, 32)
ROW = 2 * 32
"""Bytes of a token."""


class Teacher:
    """Answers batches, and counts them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.batches = 0

    def __call__(self, batch: Batch) -> Output:
        self.batches += 1
        with torch.no_grad():
            answer = self.model(**model_inputs(self.model, batch), output_hidden_states=True)
        return Output(answer.logits, answer.hidden_states[-1][:, :, None])


def batch_of(rows: DatasetDict, *numbers: int) -> Batch:
    return collate([{**rows["train"][number], "row": number} for number in numbers], pad_token_id=0)


@pytest.fixture
def job(rows: DatasetDict, head: SequenceClassification) -> Job:
    settings = TrainingSettings(epochs=3, batch_size=8, precision="fp32", dropout=False)
    return Job(rows["train"], rows["validation"], head, LossWeights(), settings)


def test_a_row_is_asked_once_and_answered_alike_in_any_company(
    fitted_teacher: PreTrainedModel, rows: DatasetDict, tmp_path: Path
) -> None:
    teacher = Teacher(fitted_teacher)
    outputs = TeacherOutputs(teacher, row_lengths(rows["train"]), SHAPE, tmp_path)
    for numbers in ((0, 1, 2), (5, 3, 4)):
        outputs(batch_of(rows, *numbers))
    assert teacher.batches == 2
    again = batch_of(rows, 4, 0, 5)
    kept, fresh = outputs(again), teacher(again)
    assert teacher.batches == 3  # ours, not theirs
    assert_close(kept.logits, fresh.logits, atol=1e-5, rtol=1e-5)
    tokens = again["attention_mask"].bool()
    assert_close(kept.hidden[tokens], fresh.hidden[tokens], atol=0.02, rtol=0.01)  # bf16's 8 bits
    outputs(batch_of(rows, 0, 6))  # one of them is new
    assert teacher.batches == 4


def test_room_is_taken_before_anything_is_written(rows: DatasetDict, tmp_path: Path) -> None:
    tokens = row_lengths(rows["train"])
    TeacherOutputs(lambda batch: pytest.fail("asked"), tokens, SHAPE, tmp_path)
    file = tmp_path / "hidden.bf16"
    assert file.stat().st_size == size_bytes(tokens, SHAPE) == ROW * sum(tokens)
    assert file.stat().st_blocks * 512 >= file.stat().st_size


def said_of(batch: Batch) -> Output:
    """What a teacher could say of a batch, told by the number of each row."""
    numbers = batch["rows"].float()
    tokens = batch["attention_mask"].shape[1]
    return Output(
        numbers[:, None].repeat(1, 2), numbers[:, None, None, None].repeat(1, tokens, *SHAPE)
    )


ROWS = 4
LENGTHS = np.full(ROWS, 6)


def rows_of(*numbers: int) -> Batch:
    mask = torch.ones(len(numbers), int(LENGTHS[0]), dtype=torch.int64)
    return {"rows": torch.tensor(numbers), "attention_mask": mask}


def keep(folders: list[Path], number: int, together: Barrier) -> None:
    for folder in folders:
        together.wait(timeout=PATIENCE_S)
        TeacherOutputs(said_of, LENGTHS, SHAPE, folder)(rows_of(number))


def test_processes_that_open_one_folder_at_once_keep_the_same_outputs(tmp_path: Path) -> None:
    processes = fresh_processes()
    folders = [tmp_path / str(turn) for turn in range(20)]
    for folder in folders:
        folder.mkdir()
    together = processes.Barrier(ROWS)
    keepers = [
        processes.Process(target=keep, args=(folders, number, together)) for number in range(ROWS)
    ]
    for keeper in keepers:
        keeper.start()
    for keeper in keepers:
        keeper.join()
    assert [keeper.exitcode for keeper in keepers] == [0] * ROWS
    for folder in folders:
        kept = TeacherOutputs(no_teacher, LENGTHS, SHAPE, folder)(rows_of(*range(ROWS)))
        assert_close(kept.logits, torch.arange(float(ROWS))[:, None].repeat(1, 2))


def no_teacher(_: Batch) -> Output:
    raise AssertionError("all of it was kept")


def test_outputs_are_kept_within_budget_and_disk(tmp_path: Path) -> None:
    assert fits(np.array([10, 20]), SHAPE, budget_bytes=1.0 * ROW * 30, folder=tmp_path)
    assert not fits(np.array([10, 20]), SHAPE, budget_bytes=1.0 * ROW * 30 - 1, folder=tmp_path)
    assert not fits(np.array([10**9] * 1000), (1, 1024), budget_bytes=1e18, folder=tmp_path)


def train(job: Job, teacher: PreTrainedModel, scratch: Path | None) -> Trained:
    student = build_student(teacher, "bert.encoder.layer.", (0, 2))
    return distill(student, teacher, job, lambda record: None, scratch)


def test_a_training_with_kept_outputs_goes_as_one_that_asks_again(
    fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    asked, kept = (train(job, fitted_teacher, scratch) for scratch in (None, tmp_path))
    assert (asked.kept_outputs, kept.kept_outputs) == (False, True)
    assert kept.summary()["teacher_outputs_kept"]
    assert [step.total for step in kept.steps] == pytest.approx(
        [step.total for step in asked.steps], rel=1e-3
    )


def test_every_layers_hidden_states_are_kept_where_all_are_aligned(
    fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    everywhere = replace(job, weights=LossWeights(hidden_layers="uniform"))
    asked, kept = (train(everywhere, fitted_teacher, scratch) for scratch in (None, tmp_path))
    assert kept.kept_outputs
    losses = [[step.losses["cosine"] for step in trained.steps] for trained in (asked, kept)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    last = [step.losses["cosine"] for step in train(job, fitted_teacher, tmp_path).steps]
    assert last[0] != pytest.approx(losses[0][0], rel=1e-3)


def test_squared_differences_of_kept_states_and_embeddings_are_those_of_fresh_ones(
    fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    weights = LossWeights(hidden=1.0, embeddings=1.0, hidden_layers="uniform")
    inside = replace(job, weights=weights)
    asked, kept = (train(inside, fitted_teacher, scratch) for scratch in (None, tmp_path))
    assert kept.kept_outputs
    for name in ("hidden", "embeddings"):
        ours, fresh = ([step.losses[name] for step in t.steps] for t in (kept, asked))
        assert ours == pytest.approx(fresh, rel=2e-2, abs=1e-5)


@pytest.mark.parametrize("name", ["attention", "relation"])
def test_a_loss_between_what_is_too_large_to_keep_asks_the_teacher_in_every_epoch(
    name: str, fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    inside = replace(job, weights=LossWeights(**{name: 1.0}))
    asked, kept = (train(inside, fitted_teacher, scratch) for scratch in (None, tmp_path))
    assert not kept.kept_outputs
    assert [step.total for step in kept.steps] == [step.total for step in asked.steps]


def test_a_narrower_students_teacher_is_kept_in_its_own_width(
    fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    student = narrow(fitted_teacher)
    asked, kept = (
        distill(student, fitted_teacher, job, lambda record: None, scratch)
        for scratch in (None, tmp_path)
    )
    assert kept.kept_outputs
    assert [step.total for step in kept.steps] == pytest.approx(
        [step.total for step in asked.steps], rel=1e-3
    )


@pytest.mark.parametrize("change", [{"epochs": 1}, {"keep_outputs_gb": 0.0}, {"max_steps": 5}])
def test_outputs_that_no_epoch_would_read_again_or_find_no_room_are_not_kept(
    change: dict[str, float], fitted_teacher: PreTrainedModel, job: Job, tmp_path: Path
) -> None:
    settings = job.settings.model_copy(update=change)
    assert not train(replace(job, settings=settings), fitted_teacher, tmp_path).kept_outputs
