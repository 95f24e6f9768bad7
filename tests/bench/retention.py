"""What a student keeps of its teacher on public tasks, and what the teacher brought."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.teachers import SHARED, TASKS, teacher_of


@dataclass(frozen=True)
class Setting:
    """One way of training a student."""

    losses: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the pipeline file's `losses`."""
    layers: str = "alternate"
    taught: bool = True
    """Whether the teacher speaks, or the labels alone."""
    unlabelled: str | None = None
    """A data set of `shared/data` whose training texts are read too."""


SETTINGS = {
    "default": Setting(),
    "labels-alone": Setting(taught=False),
}


def planned() -> list[tuple[str, str, int]]:
    """Return the task, setting and seed of each cell, the first seed of all tasks first."""
    return [(task, setting, seed) for seed in (0, 1, 2) for task in TASKS for setting in SETTINGS]


def measure_retention(name: str, setting: str, seed: int) -> dict[str, Any]:
    """Train a student of half the depth, and score it on rows that nothing was chosen on.

    Args:
        name: a row of `TASKS`.
        setting: a row of `SETTINGS`.
        seed: of the training.
    """
    from distill_core.batches import open_tokenized, tokenize
    from distill_core.config import (
        Columns,
        DataSource,
        LossWeights,
        StudentShape,
        TrainingSettings,
    )
    from distill_core.dataset import read_dataset
    from distill_core.evaluation import evaluate, model_logits, read_labels
    from distill_core.layers import pick_layers
    from distill_core.step import Job
    from distill_core.student import build_student
    from distill_core.teacher import describe, load_model, load_tokenizer
    from distill_core.training import distill

    task, way = TASKS[name], SETTINGS[setting]
    seen = describe(teacher_of(name))
    teacher = load_model(seen.folder)
    layers = pick_layers(seen.stack.kinds, StudentShape(layers=way.layers))
    start = build_student(teacher, seen.layer_prefix, layers)
    training = TrainingSettings(epochs=task.epochs, seed=seed, patience=task.epochs)
    source = DataSource(
        source=str(SHARED / "data" / name),
        columns=Columns(**task.columns),
        unlabelled=way.unlabelled and str(SHARED / "data" / way.unlabelled / "train.parquet"),
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        splits = read_dataset(source, seen.head, seed)
        tokenize(splits, seen.head, load_tokenizer(seen.folder), 128, folder / "rows")
        rows = open_tokenized(folder / "rows")
        job = Job(
            rows["train"],
            rows["validation"],
            seen.head,
            LossWeights(**way.losses),
            training,
            rows.get("unlabelled") if way.taught else None,
        )
        begin = time.perf_counter()
        trained = distill(start, teacher if way.taught else None, job, _print_epoch, folder)
        minutes = (time.perf_counter() - begin) / 60
        scored = rows[splits.evaluation]
        logits = [model_logits(model, seen.head, scored) for model in (teacher, trained.model)]
        facts = evaluate(seen.head, *logits, read_labels(seen.head, scored), seed)
    return {
        **{key: facts[key] for key in ("main_metric", "rows", "retention", "agreement")},
        **{key: facts[key] for key in ("teacher", "student", "difference")},
        "layers": list(layers),
        "split": splits.evaluation,
        "minutes": minutes,
        "training": trained.summary(),
    }


def _print_epoch(record: Any) -> None:
    if hasattr(record, "metrics"):
        print(f"  epoch {record.epoch}: {record.metrics}", flush=True)
