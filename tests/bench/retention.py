"""What a student keeps of its teacher on public tasks, and what the teacher brought."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.teachers import TASKS, print_validation, teacher_of, tokenized

SETTINGS = {"default": True, "labels-alone": False}
"""Table: setting → whether the teacher speaks."""


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
    from distill_core.config import LossWeights, StudentShape, TrainingSettings
    from distill_core.evaluation import evaluate, model_logits, read_labels
    from distill_core.layers import pick_layers
    from distill_core.step import Job
    from distill_core.student import build_student
    from distill_core.teacher import describe, load_model
    from distill_core.training import distill

    seen, epochs = describe(teacher_of(name)), TASKS[name].epochs
    teacher = load_model(seen.folder)
    layers = pick_layers(seen.stack.kinds, StudentShape())
    start = build_student(teacher, seen.layer_prefix, layers)
    settings = TrainingSettings(epochs=epochs, seed=seed, patience=epochs)
    with TemporaryDirectory() as scratch:
        rows = tokenized(name, seen.head, seen.folder, Path(scratch))
        job = Job(rows["train"], rows["validation"], seen.head, LossWeights(), settings)
        taught_by = teacher if SETTINGS[setting] else None
        begin = time.perf_counter()
        trained = distill(start, taught_by, job, print_validation, Path(scratch))
        minutes = (time.perf_counter() - begin) / 60
        logits = [
            model_logits(model, seen.head, rows["test"]) for model in (teacher, trained.model)
        ]
        facts = evaluate(seen.head, *logits, read_labels(seen.head, rows["test"]), seed)
    kept = ("main_metric", "rows", "retention", "agreement", "teacher", "student", "difference")
    return {
        **{key: facts[key] for key in kept},
        "layers": list(layers),
        "split": "test",
        "minutes": minutes,
        "training": trained.summary(),
    }
