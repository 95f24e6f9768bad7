"""What a student keeps of its teacher on public tasks, and what the teacher brought."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.recipes import ALONE, DEFAULT, RECIPES, Recipe, write_unlabelled
from tests.bench.teachers import TASKS, print_validation, teacher_of, tokenized


def planned() -> list[tuple[str, str, int]]:
    """Return the task, recipe and seed of each cell, what matters most first."""
    cells = (
        *((task, DEFAULT, seed) for seed in (0, 1, 2) for task in TASKS),
        *((task, ALONE, 0) for task in TASKS),
        *(("wnut17", recipe, seed) for seed in (0, 1, 2) for recipe in RECIPES),
    )
    return list(dict.fromkeys(cells))


def measure_retention(
    name: str, recipe: Recipe, seed: int, split: str = "test", epochs: int | None = None
) -> dict[str, Any]:
    """Train a student of half the depth, and score it.

    Args:
        name: a row of `TASKS`.
        recipe: how it is made.
        seed: of the training.
        split: what it is scored on; nothing was chosen on test.
        epochs: None is as many as the task has in `TASKS`.
    """
    from distill_core.config import LossWeights, StudentShape, TrainingSettings
    from distill_core.evaluation import evaluate, model_logits, read_labels
    from distill_core.job import Job
    from distill_core.layers import pick_layers
    from distill_core.student import build_student
    from distill_core.teacher import describe, load_model
    from distill_core.training import distill

    seen, epochs = describe(teacher_of(name)), epochs or TASKS[name].epochs
    teacher = load_model(seen.folder)
    layers = pick_layers(seen.stack.kinds, StudentShape(**recipe.student))
    start = build_student(teacher, seen.layer_prefix, layers)
    told = {"epochs": epochs, "seed": seed, "patience": epochs, **recipe.training}
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        more = scratch / "unlabelled.txt" if recipe.unlabelled else None
        if more is not None:
            write_unlabelled(more, name)
        rows = tokenized(name, seen.head, seen.folder, scratch, more)
        job = Job(
            rows["train"],
            rows["validation"],
            seen.head,
            LossWeights(**recipe.losses),
            TrainingSettings(**told),
            rows.get("unlabelled"),
        )
        begin = time.perf_counter()
        trained = distill(start, teacher if recipe.taught else None, job, print_validation, scratch)
        minutes = (time.perf_counter() - begin) / 60
        logits = [model_logits(model, seen.head, rows[split]) for model in (teacher, trained.model)]
        facts = evaluate(seen.head, *logits, read_labels(seen.head, rows[split]), seed)
    kept = ("main_metric", "rows", "retention", "agreement", "teacher", "student", "difference")
    return {
        **{key: facts[key] for key in kept},
        "layers": list(layers),
        "split": split,
        "minutes": minutes,
        "training": trained.summary(),
    }
