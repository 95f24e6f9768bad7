"""The distillation step: what is learnt from one batch."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.amp import GradScaler
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from distill_core.batches import Batch, collate, row_lengths
from distill_core.errors import TrainingError
from distill_core.job import Job, StepRecord
from distill_core.mode import (
    Mode,
    ModeChoice,
    PrecisionError,
    attention_of,
    choose_mode,
    modes,
    not_emulated,
    time_products,
)
from distill_core.optimization import (
    MAX_GRADIENT_NORM,
    build_optimizers,
    clip_gradients,
    peak_learning_rate,
)
from distill_core.parts import parts_of_process, sum_gradients
from distill_core.teaching import Models, Teaching

WARM_UP_SHARE = 0.1

FIRST_LOSS_SCALE = 2.0**10
"""Of fp16, whose smallest gradients would vanish; it is doubled and halved as the steps need it."""

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
ADVICE = "try a lower training.learning_rate, or training.precision: fp32"


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

        Raises:
            PrecisionError: the models' own code does not compute in the one that was asked for.
        """
        self.job = job
        self.accelerator = accelerator
        self.rows_at_once = job.settings.rows_at_once or job.settings.batch_size
        self.teaching = Teaching(student, teacher, job, accelerator.device)
        self.projections = self.teaching.projections
        tried = [choice.mode] if choice else self._modes(attention_of(student))
        models = {mode: self.teaching.models(mode) for mode in tried}
        self.choice = choice or self._choose_mode(models)
        self.models = models[self.choice.mode]
        if keep_in is not None:
            with accelerator.main_process_first():
                self.models = self.teaching.keeping_outputs(self.models, keep_in)
        rate = peak_learning_rate(job.settings, self.model.config.hidden_size)
        self.optimizers = build_optimizers(self.model, rate, self.projections.parameters())
        # All that is learnt: the student, and what it needs to be compared with its teacher. Once, since
        # modules are slow to walk through.
        self._learnt = [*self.model.parameters(), *self.projections.parameters()]
        warm_up = math.ceil(WARM_UP_SHARE * job.steps)
        scheduled = partial(get_linear_schedule_with_warmup, num_warmup_steps=warm_up)
        self.schedules = [scheduled(o, num_training_steps=job.steps) for o in self.optimizers]
        fp16 = self.choice.mode.precision == "fp16"
        self.scaler = GradScaler(accelerator.device.type, FIRST_LOSS_SCALE, enabled=fp16)

    @property
    def model(self) -> PreTrainedModel:
        """Return the student that learns."""
        return self.models.student

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
        clip_gradients(self._learnt, MAX_GRADIENT_NORM)
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
            losses = self.teaching.losses(self.models, part, number, portion)
            self.accelerator.backward(self.scaler.scale(losses.total))
            sums = sums + losses.values()
        sum_gradients(self._learnt, self.accelerator)
        *named, total = self.accelerator.reduce(sums, "sum").tolist()
        return dict(zip(losses.named, named, strict=True)), total

    def _forget_gradients(self) -> None:
        for parameter in self._learnt:
            parameter.grad = None

    def _modes(self, attention: str) -> list[Mode]:
        """Return the same ones on all processes."""
        device = self.accelerator.device
        tried = modes(self.job.settings.precision, attention, device)
        if self.job.settings.precision != "auto":
            return tried
        products = time_products({mode.precision for mode in tried}, device)
        return broadcast_object_list([not_emulated(tried, products)])[0]  # type: ignore[no-any-return]

    def _choose_mode(self, models: Mapping[Mode, Models]) -> ModeChoice:
        """Return the same choice on all processes."""
        mode, *others = models
        if mode.precision == "fp32" and not others:
            return ModeChoice(mode)
        choice = self._within_memory(lambda: choose_mode(self._trial_steps(models)))
        return broadcast_object_list([choice])[0]  # type: ignore[no-any-return]

    def _trial_steps(self, models: Mapping[Mode, Models]) -> dict[Mode, Callable[[], None]]:
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

        def step(precision: str, tried: Models) -> None:
            tried.student.zero_grad()
            self.projections.zero_grad()
            try:
                self.teaching.losses(tried, batch).total.backward()
            except RuntimeError as error:
                if precision == "fp32" or _out_of_memory(error):
                    raise
                raise PrecisionError(precision, error) from error
            if self.accelerator.device.type != "cpu":
                torch.accelerator.synchronize()  # else only its start would be timed

        return {mode: partial(step, mode.precision, tried) for mode, tried in models.items()}


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def now_ms() -> int:
    """Return the time of day, in ms since 1970."""
    return int(1000 * time.time())
