"""The loop around the distillation step: epochs, validation, the best of them."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from distill_core.batches import Batch, training_batch
from distill_core.checkpoint import Checkpoint
from distill_core.errors import TrainingError
from distill_core.evaluation import model_logits, read_labels, score
from distill_core.job import Job, StepRecord
from distill_core.mode import Mode, ModeChoice, autocast
from distill_core.schedule import Numbered, epochs
from distill_core.step import ADVICE, Learner, now_ms
from distill_core.teacher_outputs import TeacherOutputs


@dataclass(frozen=True)
class EpochRecord:
    """Validation after an epoch."""

    epoch: int
    step: int
    metrics: dict[str, float]
    best: bool
    timestamp_ms: int


@dataclass
class Trained:
    """What a training leaves."""

    model: PreTrainedModel
    """With the weights of its best epoch, in fp32 and eval mode, on the device that the student came on."""
    choice: ModeChoice
    kept_outputs: bool
    """Whether the teacher ran in the first epoch alone."""
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the facts of the training, without its steps."""
        best = [record for record in self.epochs if record.best][-1]
        seconds = (self.steps[-1].timestamp_ms - self.steps[0].timestamp_ms) / 1000
        return {
            "steps": len(self.steps),
            "epochs": [asdict(record) for record in self.epochs],
            "best_epoch": best.epoch,
            "precision": self.choice.mode.precision,
            "attention": self.choice.mode.attention,
            "step_ms": self.choice.step_ms,
            "teacher_outputs_kept": self.kept_outputs,
            "training_s": round(seconds, 1),
        }


Listener = Callable[[StepRecord | EpochRecord], object]


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    job: Job,
    listen: Listener,
    scratch: Path | None = None,
) -> Trained:
    """Train a copy of the student beside its teacher, and keep its best epoch by validation.

    The same models, job and machine give the same weights, bit for bit; so does a training that
    was killed at any step and goes on from what it left in its scratch folder.

    Args:
        student: where to start from; not changed.
        teacher: loaded in fp32; it runs in eval mode and without gradients. None trains on the
            labels alone.
        job: rows, head, loss weights and settings.
        listen: told of every step and every validation as it happens.
        scratch: a folder of this training alone, for its checkpoints and for the teacher's outputs;
            None keeps neither.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    with _denormals_flushed():
        return _Run(student, teacher, job, scratch).finish(listen)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Take denormal numbers as 0: the moments of rare tokens decay into them, and they are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Run:
    """A training between its steps: all that a checkpoint holds, and the way on from there."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        job: Job,
        scratch: Path | None,
    ) -> None:
        self.checkpoint = None if scratch is None else Checkpoint(scratch / "checkpoint.pt")
        found = self.checkpoint.read() if self.checkpoint else None
        self.job = job
        self.accelerator = Accelerator()
        self._writes = self.accelerator.is_main_process
        keep_in = scratch if found is None or found["kept_outputs"] else None
        choice = None if found is None else ModeChoice(Mode(*found["mode"]), found["step_ms"])
        self.learner = Learner(student, teacher, job, self.accelerator, keep_in, choice)
        self.model = self.learner.model
        set_seed(job.settings.seed)  # after the timing of modes, which draws dropout masks too
        kept_outputs = isinstance(self.learner.models.ask_teacher, TeacherOutputs)
        self.trained = Trained(copy.deepcopy(student), self.learner.choice, kept_outputs)
        self.best_state: dict[str, Tensor] = {}
        if found is not None:
            self._restore(found)

    def finish(self, listen: Listener) -> Trained:
        """Take the steps that are left."""
        for epoch, batches in self._epochs():
            for batch in batches:
                record = self.learner.step(batch, len(self.trained.steps) + 1)
                self.trained.steps.append(record)
                listen(record)
                if self.checkpoint and self._writes and self.checkpoint.is_due():
                    self.checkpoint.write(self._state())
            if not self._validated(epoch):
                self._validate(epoch)
                listen(self.trained.epochs[-1])
            if self._gave_up():
                break
        self.trained.model.load_state_dict(self.best_state)
        self.trained.model.eval()
        return self.trained

    def _epochs(self) -> Iterator[tuple[int, Iterable[Batch]]]:
        """Yield the number and the batches of each epoch, but for the steps that were taken."""
        start = 0
        for epoch in epochs(self.job):
            end = min(start + epoch.steps, self.job.steps)
            taken = min(max(len(self.trained.steps), start), end)
            left = islice(epoch.batches, taken - start, end - start)
            yield epoch.number, self._batches(left, max(epoch.number - 1, 0))
            start = end
            if start == self.job.steps:
                return

    def _batches(self, planned: Iterable[Numbered], epoch: int) -> Iterator[Batch]:
        drawn = partial(self.job.head.for_training, seed=self.job.settings.seed, epoch=epoch)
        for rows, numbers in planned:
            yield training_batch(rows, numbers, self.model.config.pad_token_id, drawn)

    def _validated(self, epoch: int) -> bool:
        return any(record.epoch == epoch for record in self.trained.epochs)

    def _validate(self, epoch: int) -> None:
        with autocast(self.trained.choice.mode.precision, self.accelerator.device):
            validation = _validate(self.model, self.job, epoch, self.trained)
        self.model.train(self.learner.teaching.dropout)
        if validation.best:
            self.best_state = {n: tensor.clone() for n, tensor in self.model.state_dict().items()}
        self.trained.epochs.append(validation)

    def _gave_up(self) -> bool:
        patience = self.job.settings.patience
        if patience is None:
            return False
        records = self.trained.epochs
        name = self.job.head.main_metric_of(records[-1].metrics)
        scores = [record.metrics[name] for record in records]
        return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "best": self.best_state,
            "learner": self.learner.state_dict(),
            "kept_outputs": self.trained.kept_outputs,
            "mode": tuple(self.trained.choice.mode),
            "step_ms": self.trained.choice.step_ms,
            "steps": [asdict(record) for record in self.trained.steps],
            "epochs": [asdict(record) for record in self.trained.epochs],
            "random": torch.get_rng_state(),
            "random_of_devices": torch.cuda.get_rng_state_all(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.best_state = state["best"]
        self.learner.load_state_dict(state["learner"])
        self.trained.steps = [StepRecord(**record) for record in state["steps"]]
        self.trained.epochs = [EpochRecord(**record) for record in state["epochs"]]
        torch.set_rng_state(state["random"])
        # Another machine may have fewer of them.
        torch.cuda.set_rng_state_all(state["random_of_devices"][: torch.cuda.device_count()])


def _validate(model: PreTrainedModel, job: Job, epoch: int, trained: Trained) -> EpochRecord:
    logits = model_logits(model, job.head, job.validation)
    if not np.isfinite(logits).all():
        raise TrainingError(f"epoch {epoch}: the student's answers are no longer numbers; {ADVICE}")
    metrics = score(job.head, logits, read_labels(job.head, job.validation))
    name = job.head.main_metric_of(metrics)
    # Of equals the later one: it has seen more, at a lower learning rate.
    best = all(metrics[name] >= earlier.metrics[name] for earlier in trained.epochs)
    return EpochRecord(epoch, len(trained.steps), metrics, best, now_ms())
