"""The distillation step: what is learnt from one batch."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.amp import GradScaler
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from distill_core.batches import Batch, collate, row_lengths
from distill_core.errors import TrainingError
from distill_core.forward import run_model
from distill_core.job import Job, StepRecord
from distill_core.layers import map_layers
from distill_core.losses import WHOLE, Losses, Output, Pair, combine, reads, task_only
from distill_core.mode import (
    DTYPES,
    Mode,
    ModeChoice,
    Precision,
    attention_of,
    autocast,
    choose_mode,
    modes,
    with_attention,
)
from distill_core.objective import build_objective
from distill_core.optimization import (
    MAX_GRADIENT_NORM,
    automatic_learning_rate,
    build_optimizers,
    clip_gradients,
    make_embeddings_sparse,
)
from distill_core.parts import parts_of_process, sum_gradients
from distill_core.projections import Projections
from distill_core.teacher_outputs import KEPT, Ask, TeacherOutputs, fits
from distill_core.unlabelled import FEW_ROWS

WARM_UP_SHARE = 0.1

FIRST_LOSS_SCALE = 2.0**10
"""Of fp16, whose smallest gradients would vanish; it is doubled and halved as the steps need it."""

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
ADVICE = "try a lower training.learning_rate, or training.precision: fp32"


class _Models(NamedTuple):
    """Copies of student and teacher in one mode, and what asks them."""

    student: PreTrainedModel
    ask_student: Ask
    ask_teacher: Ask | None


class Learner:
    """Takes one distillation step after another."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        job: Job,
        accelerator: Accelerator,
        keep_in: Path | None = None,
        choice: ModeChoice | None = None,
    ) -> None:
        """Build the optimizers, and choose the mode by timing steps on some training rows.

        Args:
            student: where to start from; a copy learns.
            teacher: None where the labels alone teach.
            job: what is to be learnt.
            accelerator: knows the device and the processes.
            keep_in: a folder for the teacher's outputs; None keeps none.
            choice: of the same job in an earlier process; None times the modes.
        """
        self.job = job
        self.dropout = _dropout(job, teacher)
        self.accelerator = accelerator
        self.rows_at_once = job.settings.rows_at_once or job.settings.batch_size
        self.objective = build_objective(job.head, job.weights, job.train, student, teacher)
        self.reads = frozenset() if teacher is None else reads(job.weights)
        self.width = (teacher or student).config.hidden_size
        projections = Projections(student.config.hidden_size, self.width, self.reads)
        self.projections = projections.to(accelerator.device)
        depth = student.config.num_hidden_layers
        their_depth = depth if teacher is None else teacher.config.num_hidden_layers
        pairs = map_layers(depth, their_depth, job.weights.hidden_layers)
        self.aligned, self._their_layers = zip(*pairs, strict=True)
        candidates = modes(job.settings.precision, attention_of(student), accelerator.device)
        models = {
            mode: _Models(*self._student(student, mode), self._teacher(teacher, mode))
            for mode in ([choice.mode] if choice else candidates)
        }
        self.choice = choice or self._choose_mode(models)
        self.model, self.ask_student, self.ask_teacher = models[self.choice.mode]
        if self.ask_teacher is not None and keep_in is not None:
            with accelerator.main_process_first():
                self.ask_teacher = self._keep_outputs(self.ask_teacher, keep_in)
        rate = job.settings.learning_rate
        if rate == "auto":
            rate = automatic_learning_rate(self.model.config.hidden_size)
        self.optimizers = build_optimizers(self.model, rate, self.projections.parameters())
        warm_up = math.ceil(WARM_UP_SHARE * job.steps)
        scheduled = partial(get_linear_schedule_with_warmup, num_warmup_steps=warm_up)
        self.schedules = [scheduled(o, num_training_steps=job.steps) for o in self.optimizers]
        fp16 = self.choice.mode.precision == "fp16"
        self.scaler = GradScaler(accelerator.device.type, FIRST_LOSS_SCALE, enabled=fp16)

    def step(self, batch: Batch, number: int) -> StepRecord:
        """Learn from one batch.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        start = time.perf_counter()
        named, total = self._within_memory(lambda: self._gradients(batch, number))
        if not math.isfinite(total):
            parts = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            raise TrainingError(f"step {number}: the loss is {total} ({parts}); {ADVICE}")
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        clip_gradients(self._parameters(), MAX_GRADIENT_NORM)
        rate = self.schedules[0].get_last_lr()[0]
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            self.scaler.step(optimizer)
            schedule.step()
        self.scaler.update()
        self._forget_gradients()
        rows_per_s = len(batch["input_ids"]) / (time.perf_counter() - start)
        epoch = self.job.epoch_of(number)
        return StepRecord(number, epoch, named, total, rate, rows_per_s, now_ms())

    def state_dict(self) -> dict[str, Any]:
        """Return all that steps change beside the model."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "projections": self.projections.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rows_at_once": self.rows_at_once,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another learner of the same job was."""
        for name, parts in (("optimizers", self.optimizers), ("schedules", self.schedules)):
            for part, value in zip(parts, state[name], strict=True):
                part.load_state_dict(value)
        self.projections.load_state_dict(state["projections"])
        self.scaler.load_state_dict(state["scaler"])
        self.rows_at_once = state["rows_at_once"]

    def _within_memory(self, work: Callable[[], T]) -> T:
        """Do what goes through at most `rows_at_once` rows at a time; fewer, where memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if self.rows_at_once == 1 or not _out_of_memory(error):
                    raise
            self.rows_at_once = -(-self.rows_at_once // 2)
            _LOG.warning("out of memory: from here on %d rows at once", self.rows_at_once)

    def _gradients(self, batch: Batch, number: int) -> tuple[dict[str, float], float]:
        """Add up the gradients of a batch, part by part and over all processes.

        Returns:
            Its losses by name, and their weighted sum.
        """
        self._forget_gradients()  # of a try that ran out of memory
        place = self.accelerator.process_index, self.accelerator.num_processes
        sums: Tensor | float = 0.0
        for rows, portion in parts_of_process(batch, self.job.head, self.rows_at_once, *place):
            part = send_to_device(rows, self.accelerator.device)
            losses = self._losses(self.ask_student, self.ask_teacher, part, number, portion)
            self.accelerator.backward(self.scaler.scale(losses.total))
            sums = sums + losses.values()
        sum_gradients(self._parameters(), self.accelerator)
        *named, total = self.accelerator.reduce(sums, "sum").tolist()
        return dict(zip(losses.named, named, strict=True)), total

    def _losses(
        self,
        ask_student: Ask,
        ask_teacher: Ask | None,
        batch: Batch,
        number: int = 1,
        portion: Mapping[str, float] = WHOLE,
    ) -> Losses:
        student = ask_student(batch)
        if ask_teacher is None:
            return task_only(student, batch["labels"], self.objective, portion)
        said = self.projections(student), ask_teacher(batch)
        pair = Pair(*said, batch.get("labels"), batch["attention_mask"])
        progress = (number - 1) / max(self.job.steps - 1, 1)
        return combine(pair, self.objective, progress, portion)

    def _parameters(self) -> Iterator[nn.Parameter]:
        """Yield all that is learnt: the student, and what it needs to be compared with its teacher."""
        return chain(self.model.parameters(), self.projections.parameters())

    def _forget_gradients(self) -> None:
        for parameter in self._parameters():
            parameter.grad = None

    def _keep_outputs(self, ask_teacher: Ask, folder: Path) -> Ask:
        """Ask the teacher about each row only once, if that saves anything and the disk has room."""
        if not self.reads <= KEPT:
            return ask_teacher
        lengths = row_lengths(self.job.train)
        embeddings = "embeddings" in self.reads
        shape = (len(self.aligned) + embeddings, self.width)
        budget = 1e9 * self.job.settings.keep_outputs_gb
        again = self.job.epoch_of(self.job.steps) > 1 and not self.job.head.inputs_change
        if not (again and fits(lengths, shape, budget, folder)):
            return ask_teacher
        return TeacherOutputs(ask_teacher, lengths, shape, folder, embeddings)

    def _choose_mode(self, models: Mapping[Mode, _Models]) -> ModeChoice:
        """Return the same choice on all processes."""
        if len(models) == 1:
            return ModeChoice(next(iter(models)))
        choice = self._within_memory(lambda: choose_mode(self._trial_steps(models)))
        return broadcast_object_list([choice])[0]  # type: ignore[no-any-return]

    def _trial_steps(self, models: Mapping[Mode, _Models]) -> dict[Mode, Callable[[], None]]:
        """Return a step in each mode, without a trace in the weights.

        Its rows are as long as those in the middle of all tokens: the median row of SST-2 has 10 tokens, and
        most of an epoch's time goes to longer ones.
        """
        lengths, count = row_lengths(self.job.train), self.rows_at_once
        longest_last = np.argsort(lengths, kind="stable")
        tokens = np.cumsum(lengths[longest_last])
        middle = int(np.searchsorted(tokens, tokens[-1] / 2))
        first = max(min(middle - count // 2, len(lengths) - count), 0)
        rows = self.job.train.select(longest_last[first:][:count]).to_list()
        batch = collate(rows, next(iter(models.values())).student.config.pad_token_id)
        batch = send_to_device(batch, self.accelerator.device)

        def step(tried: _Models) -> None:
            tried.student.zero_grad()
            self.projections.zero_grad()
            self._losses(tried.ask_student, tried.ask_teacher, batch).total.backward()
            if self.accelerator.device.type != "cpu":
                torch.accelerator.synchronize()  # else only its start would be timed

        return {mode: partial(step, tried) for mode, tried in models.items()}

    def _student(self, student: PreTrainedModel, mode: Mode) -> tuple[PreTrainedModel, Ask]:
        """Return a copy that learns, and what asks it."""
        model = with_attention(student, mode.attention).to(self.accelerator.device)
        make_embeddings_sparse(model)
        return model.train(self.dropout), partial(self._student_output, model, mode.precision)

    def _student_output(self, model: PreTrainedModel, precision: Precision, batch: Batch) -> Output:
        with autocast(precision, self.accelerator.device):
            return run_model(model, self.job.head, batch, self.aligned, self.reads)

    def _teacher(self, teacher: PreTrainedModel | None, mode: Mode) -> Ask | None:
        """Return what asks a frozen copy of the teacher.

        In bf16 and fp16 its weights are narrowed once, not at every step as autocast would.
        """
        if teacher is None:
            return None
        dtype = DTYPES[mode.precision]
        frozen = with_attention(teacher, mode.attention).to(self.accelerator.device, dtype)
        return partial(self._teacher_output, frozen.eval().requires_grad_(False))

    def _teacher_output(self, teacher: PreTrainedModel, batch: Batch) -> Output:
        with torch.no_grad():
            return run_model(teacher, self.job.head, batch, self._their_layers, self.reads)


def _dropout(job: Job, teacher: PreTrainedModel | None) -> bool:
    """Tell whether dropout is on.

    It keeps a model from learning by heart. Beside a teacher, whose answers tell more than labels do,
    a student so small only learns less, unless it reads few rows many times.
    """
    if job.settings.dropout == "auto":
        return teacher is None or job.rows < FEW_ROWS
    return job.settings.dropout


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def now_ms() -> int:
    """Return the time of day, in ms since 1970."""
    return int(1000 * time.time())
