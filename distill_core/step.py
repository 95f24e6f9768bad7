"""The distillation step: what is learnt from one batch."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from distill_core.batches import Batch, collate, model_inputs
from distill_core.config import LossWeights, TrainingSettings
from distill_core.errors import TrainingError
from distill_core.heads import Head
from distill_core.layers import map_layers
from distill_core.losses import Losses, Output, combine, task_only
from distill_core.optimization import (
    MAX_GRADIENT_NORM,
    automatic_learning_rate,
    build_optimizers,
    clip_gradients,
)
from distill_core.precision import Precision, autocast, choose_precision
from distill_core.teacher_outputs import Ask, TeacherOutputs, fits

WARM_UP_SHARE = 0.1
ADVICE = "try a lower training.learning_rate, or training.precision: fp32"


@dataclass(frozen=True)
class Job:
    """All that a training is determined by, apart from the models."""

    train: Dataset
    validation: Dataset
    head: Head
    weights: LossWeights
    settings: TrainingSettings

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold all training rows once."""
        return math.ceil(len(self.train) / self.settings.batch_size)

    @property
    def steps(self) -> int:
        """Batches of the whole training, unless it stops early."""
        steps = self.settings.epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)


@dataclass(frozen=True)
class StepRecord:
    """One training step, as MLflow and the report show it."""

    step: int
    """From 1."""
    epoch: float
    distillation: float
    task: float
    cosine: float
    total: float
    learning_rate: float
    rows_per_s: float
    """Rows of this step / its time."""
    timestamp_ms: int


class Learner:
    """Takes one distillation step after another."""

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: PreTrainedModel | None,
        job: Job,
        accelerator: Accelerator,
        keep_in: Path | None = None,
    ) -> None:
        """Build the optimizers, and choose the precision by timing steps on some training rows."""
        self.model = model
        self.job = job
        self.accelerator = accelerator
        setting = job.settings.learning_rate
        rate = automatic_learning_rate(model.config.hidden_size) if setting == "auto" else setting
        self.optimizers = build_optimizers(model, rate)
        warm_up = math.ceil(WARM_UP_SHARE * job.steps)
        self.schedules = [
            get_linear_schedule_with_warmup(optimizer, warm_up, job.steps)
            for optimizer in self.optimizers
        ]
        depth = model.config.num_hidden_layers
        their_depth = depth if teacher is None else teacher.config.num_hidden_layers
        pairs = map_layers(depth, their_depth, job.weights.hidden_layers)
        self.aligned, theirs = zip(*pairs, strict=True)
        self.teachers = _in_precisions(teacher, job, theirs, accelerator.device)
        self.precision = choose_precision(job.settings.precision, self._trial_step())
        self.ask_teacher = self.teachers.get(self.precision.precision)
        if self.ask_teacher is not None and keep_in is not None:
            self.ask_teacher = self._keep_outputs(self.ask_teacher, keep_in)

    def step(self, batch: Batch, number: int) -> StepRecord:
        """Learn from one batch.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        start = time.perf_counter()
        losses = self._losses(batch, self.precision.precision, self.ask_teacher)
        distillation, task, cosine, total = losses.values().tolist()
        if not math.isfinite(total):
            raise TrainingError(
                f"step {number}: the loss is {total} (distillation {distillation:.4g}, task {task:.4g}, "
                f"cosine {cosine:.4g}); {ADVICE}"
            )
        self.accelerator.backward(losses.total)
        clip_gradients(self.model.parameters(), MAX_GRADIENT_NORM)
        rate = self.schedules[0].get_last_lr()[0]
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        self.model.zero_grad(set_to_none=True)
        rows_per_s = len(batch["labels"]) / (time.perf_counter() - start)
        epoch = number / self.job.steps_per_epoch
        return StepRecord(
            number, epoch, distillation, task, cosine, total, rate, rows_per_s, now_ms()
        )

    def _losses(self, batch: Batch, precision: Precision, ask_teacher: Ask | None) -> Losses:
        with autocast(precision, self.accelerator.device):
            student = _output(self.model, self.job.head, batch, self.aligned)
        if ask_teacher is None:
            return task_only(student, batch["labels"], self.job.head)
        teacher = ask_teacher(batch)
        mask = batch["attention_mask"]
        return combine(student, teacher, batch["labels"], mask, self.job.head, self.job.weights)

    def _keep_outputs(self, ask_teacher: Ask, folder: Path) -> Ask:
        """Ask the teacher about each row only once, if that saves anything and the disk has room."""
        lengths = self.job.train["length"][:]
        shape = (len(self.aligned), self.model.config.hidden_size)
        budget = 1e9 * self.job.settings.keep_outputs_gb
        again = self.job.steps > self.job.steps_per_epoch and not self.job.head.inputs_change
        if not (again and fits(lengths, shape, budget, folder)):
            return ask_teacher
        return TeacherOutputs(ask_teacher, lengths, shape, folder)

    def _trial_step(self) -> Callable[[Precision], None]:
        """Return a step that leaves no trace in the model, on the rows at the start of the data."""
        rows = [
            self.job.train[i] for i in range(min(self.job.settings.batch_size, len(self.job.train)))
        ]
        batch = collate(rows, self.model.config.pad_token_id)
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

        def step(precision: Precision) -> None:
            self._losses(batch, precision, self.teachers.get(precision)).total.backward()
            self.model.zero_grad(set_to_none=True)

        return step


def _output(model: PreTrainedModel, head: Head, batch: Batch, layers: Sequence[int]) -> Output:
    answer = head.run(model, model_inputs(model, batch), batch["labels"], output_hidden_states=True)
    hidden = torch.stack([answer.hidden_states[layer] for layer in layers], dim=2)
    logits = head.read_output(answer, batch["attention_mask"])
    return Output(logits.float(), hidden.float())


def _in_precisions(
    teacher: PreTrainedModel | None, job: Job, layers: Sequence[int], device: torch.device
) -> dict[Precision, Ask]:
    """Return what asks a frozen copy of the teacher, for each precision it may run in.

    In bf16 its weights are narrowed once, not at every step as autocast would.
    """
    if teacher is None:
        return {}
    types: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        precision: partial(
            _ask,
            copy.deepcopy(teacher).to(device, dtype).eval().requires_grad_(False),
            job.head,
            layers,
        )
        for precision, dtype in types.items()
        if job.settings.precision in ("auto", precision)
    }


def _ask(teacher: PreTrainedModel, head: Head, layers: Sequence[int], batch: Batch) -> Output:
    with torch.no_grad():
        return _output(teacher, head, batch, layers)


def now_ms() -> int:
    """Return the time of day, in ms since 1970."""
    return int(1000 * time.time())
