"""What a student keeps of its teacher on public tasks, and what the teacher brought."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.corpora import readable
from tests.bench.recipes import ALONE, BETWEEN, DEFAULT, RECIPES, Recipe
from tests.bench.teachers import TASKS, print_validation, teacher_of, tokenized


def planned() -> list[tuple[str, str, int]]:
    """Return the task, recipe and seed of each cell, what matters most first."""
    tasks = [name for name, task in TASKS.items() if task.labels]
    cells = (
        *((task, DEFAULT, seed) for seed in (0, 1, 2) for task in tasks),
        *((task, ALONE, 0) for task in tasks),
        *((task, "no-augmentation", 0) for task in tasks),
        *(("sst2", BETWEEN, seed) for seed in (0, 1, 2)),
        *(("wnut17", recipe, seed) for seed in (0, 1, 2) for recipe in RECIPES),
    )
    return [cell for cell in dict.fromkeys(cells) if readable(RECIPES[cell[1]].unlabelled)]


def measure_retention(
    name: str,
    recipe: Recipe,
    seed: int,
    split: str | None = None,
    epochs: int | None = None,
    also: Callable[[Any, Any, Any], dict[str, Any]] = lambda *_: {},
) -> dict[str, Any]:
    """Train a student, and score it.

    Args:
        name: a row of `TASKS`.
        recipe: how it is made.
        seed: of the training.
        split: what it is scored on; None is the task's own, as with epochs.
        epochs: of the training.
        also: measures more, of the student, its head and the rows of the split.
    """
    from distill_core.config import TrainingSettings
    from distill_core.evaluation import evaluate, model_logits, read_labels
    from distill_core.job import Job
    from distill_core.loss_weights import LossWeights
    from distill_core.teacher import describe, load_model
    from distill_core.training import distill

    seen, epochs = describe(teacher_of(name)), epochs or TASKS[name].epochs
    split = split or TASKS[name].scored_on
    teacher = load_model(seen.folder)
    told = {"epochs": epochs, "seed": seed, **recipe.training}
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        more = recipe.unlabelled and recipe.unlabelled.write(scratch, name)
        rows = tokenized(
            name, seen.head, seen.folder, scratch, more, recipe.augment, recipe.telling
        )
        start = _start(teacher, seen, recipe, rows["train"], seed)
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
        more_facts = also(trained.model, seen.head, rows[split])
    kept = ("main_metric", "rows", "retention", "agreement", "teacher", "student", "difference")
    return {
        **{key: facts[key] for key in kept},
        "parameters": start.num_parameters(),
        "split": split,
        "minutes": minutes,
        "training": trained.summary(),
        **more_facts,
    }


def _start(teacher: Any, seen: Any, recipe: Recipe, train: Any, seed: int) -> Any:
    """Return what the student starts from."""
    import torch

    from distill_core.config import StudentShape
    from distill_core.layers import pick_layers
    from distill_core.pruning import narrow
    from distill_core.student import build_student
    from distill_core.teacher import new_like
    from distill_core.width import pick_width

    shape = StudentShape(**recipe.student)
    width = pick_width(seen, shape)
    origin = teacher if width is None else narrow(teacher, seen, width, train, seed)
    start = build_student(origin, seen.layer_prefix, pick_layers(seen.stack.kinds, shape))
    torch.manual_seed(seed)
    return start if recipe.copied else new_like(start, start.config)


def in_8_bits(student: Any, head: Any, rows: Any) -> dict[str, Any]:
    """Return bytes and time of the file that a phone would get.

    Args:
        student: trained.
        head: its own.
        rows: tokenized.
    """
    from distill_core.benchmark import Subject, as_facts, pick_rows, time_models
    from distill_core.export import export_onnx
    from distill_core.quantization import quantize
    from distill_core.schemes import INT8
    from distill_core.targets import OPSET

    with TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(student, head, rows, OPSET, folder / "model.onnx")
        file = quantize(folder / "model.onnx", INT8, [], folder)
        subjects = [Subject("int8", "onnx", file)]
        timings = time_models(subjects, rows.select(pick_rows(rows["length"][:])).to_list())
        return {"bytes": file.stat().st_size, "timings": as_facts(timings)}
