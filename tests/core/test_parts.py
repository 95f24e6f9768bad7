"""A batch in parts: fewer rows at once, memory that runs out, two processes; the same losses."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, tensor
from transformers import PreTrainedModel

from distill_core.batches import collate
from distill_core.config import TrainingSettings
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.parts import count, parts_of_process
from distill_core.student import build_student, save_model
from distill_core.training import Trained, distill
from distill_core.training_worker import MODEL, RESULT, WorkerJob

WORDS = TokenClassification(("O", "B"))


def batch_of(lengths: list[int]) -> dict[str, torch.Tensor]:
    rows = [
        {"input_ids": [5] * n, "attention_mask": [1] * n, "label": [-100, *[0] * (n - 1)]}
        for n in lengths
    ]
    return collate(rows, pad_token_id=0)


def test_what_losses_are_means_over_is_counted_without_padding() -> None:
    batch = batch_of([2, 3])
    assert count(batch, WORDS) == {"positions": 5, "labels": 3, "tokens": 5, "pairs": 4 + 9}
    text = SequenceClassification(("no", "yes"))
    assert count(batch, text) == {"positions": 2, "labels": 2, "tokens": 5, "pairs": 13}


@given(st.lists(st.integers(2, 9), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 4))
def test_all_parts_of_all_processes_are_the_whole_batch(
    lengths: list[int], rows: int, processes: int
) -> None:
    batch = batch_of(lengths)
    parts = [
        found
        for process in range(processes)
        for found in parts_of_process(batch, WORDS, rows, process, processes)
    ]
    real = [part for part, portion in parts if portion["tokens"] > 0]
    assert sum(len(part["input_ids"]) for part in real) == len(lengths)
    assert max(len(part["input_ids"]) for part in real) <= rows
    for name in ("positions", "labels", "tokens", "pairs"):
        assert sum(portion[name] for _, portion in parts) == pytest.approx(1)
    assert len(parts) >= processes


@pytest.fixture
def job(rows: DatasetDict, head: SequenceClassification) -> Job:
    settings = TrainingSettings(epochs=2, batch_size=8, precision="fp32", dropout=False)
    weights = LossWeights(attention=1.0, hidden=0.5, hidden_layers="uniform")
    return Job(rows["train"], rows["validation"], head, weights, settings)


def train(job: Job, teacher: PreTrainedModel, start: PreTrainedModel | None = None) -> Trained:
    student = start or build_student(teacher, "bert.encoder.layer.", (0, 2))
    return distill(student, teacher, job, lambda record: None)


def same_losses(one: Trained, other: Trained) -> None:
    for ours, theirs in zip(one.steps, other.steps, strict=True):
        assert ours.losses == pytest.approx(theirs.losses, rel=2e-3, abs=1e-5)
        assert ours.total == pytest.approx(theirs.total, rel=2e-3)


@pytest.mark.parametrize("rows_at_once", [1, 3])
def test_fewer_rows_at_once_teach_the_same(
    rows_at_once: int, job: Job, fitted_teacher: PreTrainedModel
) -> None:
    few = job.settings.model_copy(update={"rows_at_once": rows_at_once})
    same_losses(train(replace(job, settings=few), fitted_teacher), train(job, fitted_teacher))


def test_where_memory_runs_out_fewer_rows_go_at_once_and_it_is_said(
    job: Job, fitted_teacher: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    class Hungry(nn.Module):
        """Asks for a petabyte where more than three rows come at once."""

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            if self.training_rows(hidden):
                torch.empty(10**15)
            return hidden

        def training_rows(self, hidden: torch.Tensor) -> bool:
            return torch.is_grad_enabled() and len(hidden) > 3

    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    whole = train(job, fitted_teacher, start)
    start.dropout = Hungry()
    trained = train(job, fitted_teacher, start)
    assert [record.message for record in caplog.records] == [
        "out of memory: from here on 4 rows at once",
        "out of memory: from here on 2 rows at once",
    ]
    same_losses(trained, whole)
    # In bf16 there are two kinds of attention to choose from; elsewhere auto may leave fp32 alone.
    timed = replace(job, settings=job.settings.model_copy(update={"precision": "bf16"}))
    assert train(timed, fitted_teacher, start).choice.step_ms  # it ran out while being timed


def test_an_error_that_is_not_of_memory_is_not_taken_for_one(
    job: Job, fitted_teacher: PreTrainedModel
) -> None:
    class Broken(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return tensor([1.0, 2.0]) + tensor([1.0, 2.0, 3.0])

    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    start.dropout = Broken()
    with pytest.raises(RuntimeError, match="size of tensor"):
        train(job, fitted_teacher, start)


@pytest.mark.alone
@pytest.mark.integration
@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_learn_what_one_learns(
    processes: int, job: Job, fitted_teacher: PreTrainedModel, tiny_bert: Path, tmp_path: Path
) -> None:
    start = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    for name, model in (("teacher", fitted_teacher), ("start", start)):
        save_model(model, tiny_bert, tmp_path / name)
    # 10 rows, so that a batch of 2 has none for a third process.
    train_rows = job.train.select(range(90))
    DatasetDict({"train": train_rows, "validation": job.validation}).save_to_disk(tmp_path / "rows")
    job = replace(job, train=train_rows, weights=LossWeights(hidden_layers="uniform"))
    (tmp_path / "alone").mkdir()
    alone = distill(start, fitted_teacher, job, lambda record: None, tmp_path / "alone").steps
    together = run_processes(processes, job, tmp_path, output := tmp_path / "together")
    assert len(alone) == len(together["steps"]) == 24
    for one, many in zip(alone, together["steps"], strict=True):
        assert many["losses"] == pytest.approx(one.losses, rel=2e-3, abs=1e-5)
    assert together["summary"]["teacher_outputs_kept"]
    assert (output / MODEL / "model.safetensors").exists()


def run_processes(number: int, job: Job, folder: Path, output: Path) -> dict[str, Any]:
    """Train with so many processes, and return what they leave."""
    output.mkdir()
    work = WorkerJob(
        student=folder / "start",
        teacher=folder / "teacher",
        rows=folder / "rows",
        head=job.head.name,
        labels=job.head.labels,
        weights=job.weights,
        settings=job.settings,
        scratch=output,
        output=output,
    )
    (output / "job.json").write_text(work.model_dump_json(by_alias=True))
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    command = [sys.executable, "-m", *launch, "-m", "distill_core.training_worker"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(output / "job.json")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["step"] for line in lines if "losses" in line] == list(range(1, 25))
    result: dict[str, Any] = json.loads((output / RESULT).read_text())
    return result
