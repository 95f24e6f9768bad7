"""A student beside its teacher: copies of both in a mode, what they say of a batch, losses between them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from distill_core.batches import Batch, row_lengths, training_batch
from distill_core.first_token import (
    ROWS,
    FirstTokenMaps,
    compute_first_token_alone,
    first_token_maps,
)
from distill_core.forward import run_model
from distill_core.job import Job
from distill_core.layers import map_layers
from distill_core.losses import WHOLE, Losses, Output, Pair, combine, reads, task_only
from distill_core.mode import DTYPES, Mode, Precision, autocast, with_attention
from distill_core.objective import build_objective
from distill_core.optimization import make_embeddings_sparse
from distill_core.projections import Projections
from distill_core.teacher_outputs import KEPT, Ask, TeacherOutputs, fits
from distill_core.unlabelled import FEW_ROWS


class Models(NamedTuple):
    """Copies of student and teacher in one mode, and what asks them."""

    student: PreTrainedModel
    ask_student: Ask
    ask_teacher: Ask | None


class Teaching:
    """What one batch teaches a student."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        job: Job,
        device: torch.device,
    ) -> None:
        """Settle what is compared.

        Args:
            student: where to start from; it is copied for each mode.
            teacher: None where the labels alone teach.
            job: what is to be learnt.
            device: where the copies learn.
        """
        self.job = job
        self.device = device
        self.dropout = _dropout(job, teacher)
        self._start = student
        self._teacher = teacher
        self._objective = build_objective(
            job.head, job.weights, job.train, student, teacher, device
        )
        self._reads = frozenset() if teacher is None else reads(job.weights)
        self._width = (teacher or student).config.hidden_size
        projections = Projections(student.config.hidden_size, self._width, self._reads)
        self.projections = projections.to(device)
        depth = student.config.num_hidden_layers
        their_depth = depth if teacher is None else teacher.config.num_hidden_layers
        self._first_token_maps = self._find_first_token_maps()
        # Without a teacher nothing is aligned, and an explicit rule numbers layers that are not there.
        rule = "auto" if teacher is None else job.weights.hidden_layers
        alone = bool(self._first_token_maps)
        pairs = map_layers(depth, their_depth, rule, alone)
        self._aligned, self._their_layers = zip(*pairs, strict=True)

    def models(self, mode: Mode) -> Models:
        """Return copies in a mode, on the device: a student that learns, a teacher that is frozen.

        In bf16 and fp16 the teacher's weights are narrowed once, not at every step as autocast would.
        """
        student = self._copy(self._start, mode).to(self.device)
        make_embeddings_sparse(student)
        ask_student = partial(self._student_output, student, mode.precision)
        if self._teacher is None:
            return Models(student.train(self.dropout), ask_student, None)
        teacher = self._copy(self._teacher, mode)
        frozen = teacher.to(self.device, DTYPES[mode.precision]).eval().requires_grad_(False)
        ask_teacher = partial(self._teacher_output, frozen)
        return Models(student.train(self.dropout), ask_student, ask_teacher)

    def keeping_outputs(self, models: Models, folder: Path) -> Models:
        """Ask the teacher about each row only once, if that saves anything and the disk has room.

        Args:
            models: that are asked.
            folder: for what the teacher says.
        """
        if models.ask_teacher is None or not self._reads <= KEPT:
            return models
        lengths = row_lengths(self.job.train)
        embeddings = "embeddings" in self._reads
        shape = (len(self._aligned) + embeddings, self._width)
        budget = 1e9 * self.job.settings.keep_outputs_gb
        again = self.job.epoch_of(self.job.steps) > 1 and not self.job.head.inputs_change
        if not (again and fits(lengths, shape, budget, folder)):
            return models
        kept = TeacherOutputs(models.ask_teacher, lengths, shape, folder, embeddings)
        return models._replace(ask_teacher=kept)

    def losses(
        self,
        models: Models,
        batch: Batch,
        number: int = 1,
        portion: Mapping[str, float] = WHOLE,
    ) -> Losses:
        """Return the losses of a batch.

        Args:
            models: that are asked.
            batch: on their device.
            number: of the step, from 1; weights may change with it.
            portion: of the whole batch that this one is, by a key of `losses.WHOLE`.
        """
        student = models.ask_student(batch)
        if models.ask_teacher is None:
            return task_only(student, batch["labels"], self._objective, portion)
        said = self.projections(student), models.ask_teacher(batch)
        pair = Pair(*said, batch.get("labels"), batch["attention_mask"])
        progress = (number - 1) / max(self.job.steps - 1, 1)
        return combine(pair, self._objective, progress, portion)

    def _find_first_token_maps(self) -> Mapping[PreTrainedModel, FirstTokenMaps]:
        """Return the maps of each model of which the first token alone is read; none, where others may be.

        That is where losses look into the last layer or there is no other, or where any token may be masked.
        """
        models = [self._start] if self._teacher is None else [self._start, self._teacher]
        looked_into = self.job.weights.hidden_layers != "auto" or not self._reads <= KEPT
        if looked_into or self.job.head.inputs_change or self._start.config.num_hidden_layers == 1:
            return {}
        numbers = list(range(min(ROWS, len(self.job.train))))
        batch = training_batch(self.job.train, numbers, self._start.config.pad_token_id)
        found = {model: first_token_maps(model, self.job.head, batch) for model in models}
        return found if all(maps.alone for maps in found.values()) else {}

    def _copy(self, model: PreTrainedModel, mode: Mode) -> PreTrainedModel:
        copied = with_attention(model, mode.attention)
        if model in self._first_token_maps:
            compute_first_token_alone(copied, self._first_token_maps[model])
        return copied

    def _student_output(self, model: PreTrainedModel, precision: Precision, batch: Batch) -> Output:
        with autocast(precision, self.device):
            return run_model(model, self.job.head, batch, self._aligned, self._reads)

    def _teacher_output(self, teacher: PreTrainedModel, batch: Batch) -> Output:
        with torch.no_grad():
            return run_model(teacher, self.job.head, batch, self._their_layers, self._reads)


def _dropout(job: Job, teacher: PreTrainedModel | None) -> bool:
    """Tell whether dropout is on.

    It keeps a model from learning by heart. Beside a teacher, whose answers tell more than labels do,
    a student so small only learns less, unless it reads few rows many times.
    """
    if job.settings.dropout == "auto":
        return teacher is None or job.rows < FEW_ROWS
    return job.settings.dropout
