"""The loop around the distillation step: epochs, validation, the best of them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from distill_core.batches import Batch, training_batches
from distill_core.errors import TrainingError
from distill_core.evaluation import model_logits, read_labels, score
from distill_core.optimization import word_embeddings
from distill_core.precision import PrecisionChoice
from distill_core.step import ADVICE, Job, Learner, StepRecord, now_ms
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
    """With the weights of its best epoch, in fp32 and eval mode."""
    precision: PrecisionChoice
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
            "precision": self.precision.precision,
            "step_ms": self.precision.step_ms,
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

    Without dropout: SST-2, 6 → 3 layers, 700 steps, KL from the teacher at θ = 2 0.0454, with it 0.0528.

    The same models, job and machine give the same weights, bit for bit.

    Args:
        student: where to start from; not changed.
        teacher: loaded in fp32; it runs in eval mode and without gradients. None trains on the
            labels alone, with dropout.
        job: rows, head, loss weights and settings.
        listen: told of every step and every validation as it happens.
        scratch: where the teacher's outputs may be kept from the first epoch on, as long as this
            runs; None computes them in every epoch.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    room = nullcontext() if scratch is None else TemporaryDirectory(dir=scratch)
    with _denormals_flushed(), room as kept:
        return _train(student, teacher, job, listen, None if kept is None else Path(kept))


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Take denormal numbers as 0: the moments of rare tokens decay into them, and they are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _train(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    job: Job,
    listen: Listener,
    keep_in: Path | None,
) -> Trained:
    accelerator = Accelerator()
    # Dropout keeps a model from learning labels by heart; beside a teacher, whose answers tell more
    # than labels do, a student so small only learns less.
    model = copy.deepcopy(student).to(accelerator.device).train(teacher is None)
    loader = training_batches(
        job.train,
        job.settings.batch_size,
        job.settings.seed,
        model.config.pad_token_id,
        job.head.for_training,
    )
    learner = Learner(model, teacher, job, accelerator, keep_in)
    set_seed(job.settings.seed)  # after the timing of precisions, which draws dropout masks too
    trained = Trained(model, learner.precision, isinstance(learner.ask_teacher, TeacherOutputs))
    best_state: dict[str, Tensor] = {}
    for epoch, batches in _epochs(accelerator.prepare(loader), job):
        for batch in batches:
            record = learner.step(batch, len(trained.steps) + 1)
            trained.steps.append(record)
            listen(record)
        validation = _validate(model, job, epoch, trained)
        model.train(teacher is None)
        if validation.best:
            best_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trained.epochs.append(validation)
        listen(validation)
        name = job.head.main_metric_of(validation.metrics)
        scores = [record.metrics[name] for record in trained.epochs]
        if _gave_up(scores, job.settings.patience):
            break
    model.load_state_dict(best_state)
    word_embeddings(model).sparse = False
    model.eval()
    return trained


def _epochs(loader: Iterable[Batch], job: Job) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Yield the number and the batches of each epoch, cut where the steps of the job end."""
    left = job.steps
    for epoch in range(1, job.settings.epochs + 1):
        if left <= 0:
            return
        yield epoch, islice(iter(loader), left)
        left -= job.steps_per_epoch


def _validate(model: PreTrainedModel, job: Job, epoch: int, trained: Trained) -> EpochRecord:
    logits = model_logits(model, job.head, job.validation)
    if not np.isfinite(logits).all():
        raise TrainingError(f"epoch {epoch}: the student's answers are no longer numbers; {ADVICE}")
    metrics = score(job.head, logits, read_labels(job.head, job.validation))
    name = job.head.main_metric_of(metrics)
    # Of equals the later one: it has seen more, at a lower learning rate.
    best = all(metrics[name] >= earlier.metrics[name] for earlier in trained.epochs)
    return EpochRecord(epoch, len(trained.steps), metrics, best, now_ms())


def _gave_up(scores: Sequence[float], patience: int) -> bool:
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
