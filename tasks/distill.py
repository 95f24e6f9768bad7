"""Tasks: distil the student, and train it without its teacher."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.config import Pipeline
from distill_core.teacher import load_model
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage, unfinished_folder
from tasks.job import Job
from tasks.stages import MODEL, ROWS, STEPS, head_of
from tasks.tracking import LiveLosses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_core import step
    from distill_core.training import Listener


@task(name="distil", task_run_name="distil", cache_policy=NO_CACHE)
def distil(job: Job, teacher: Stage, start: Stage, data: Stage, live: LiveLosses) -> State[Stage]:
    """Train the student beside its teacher, and keep its best epoch by validation."""
    pipeline = job.pipeline
    inputs = training_inputs(pipeline, teacher=teacher, start=start, data=data)
    scratch = unfinished_folder(job.output, "student", inputs)

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.quantization.words import copy_words
        from distill_core.student import save_model
        from distill_core.training import distill

        work, taught_by = training_job(job, teacher, data), load_model(teacher.folder)
        with telling(pipeline.name, work.steps, live) as listen:
            trained = distill(_load_start(job, start), taught_by, work, listen, scratch)
        save_model(trained.model, teacher.folder, folder / MODEL)
        copy_words(start.folder / MODEL, folder / MODEL)
        write_steps(folder / STEPS, [asdict(step) for step in trained.steps])
        return {**start.facts, **trained.summary()}

    stage = run_stage(job.output, "student", inputs, build)
    shutil.rmtree(scratch)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


@task(name="train without teacher", task_run_name="train without teacher", cache_policy=NO_CACHE)
def train_without_teacher(job: Job, teacher: Stage, start: Stage, data: Stage) -> State[Stage]:
    """Train the same student from the same start on the labels alone."""
    pipeline = job.pipeline
    inputs = {
        "start": start.key,
        "data": data.key,
        "task_loss": pipeline.losses.model_dump(include={"focal_gamma", "class_weights"}),
        "training": pipeline.training.model_dump(),
    }
    scratch = unfinished_folder(job.output, "untaught", inputs)

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.student import save_model
        from distill_core.training import distill
        from tasks.progress import TrainingProgress

        work = replace(training_job(job, teacher, data), unlabelled=None)
        with TrainingProgress(f"{pipeline.name}, labels alone", work.steps) as progress:
            trained = distill(_load_start(job, start), None, work, progress, scratch)
        save_model(trained.model, teacher.folder, folder / MODEL)
        return trained.summary()

    stage = run_stage(job.output, "untaught", inputs, build)
    shutil.rmtree(scratch)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


def _load_start(job: Job, start: Stage) -> "PreTrainedModel":
    """Return where a student starts from; its word embeddings learn, unless they are packed already."""
    model = load_model(start.folder / MODEL)
    if job.pipeline.student.packed_words == "before":
        from distill_core.optimization import freeze_embeddings

        freeze_embeddings(model)
    return model


def training_inputs(pipeline: Pipeline, **stages: Stage) -> dict[str, Any]:
    """Return what decides a training beside a teacher: the stages that it reads, and its settings."""
    return {
        **{name: stage.key for name, stage in stages.items()},
        "losses": pipeline.losses.model_dump(),
        "training": pipeline.training.model_dump(),
    }


@contextmanager
def telling(name: str, steps: int, live: LiveLosses) -> Iterator["Listener"]:
    """Yield a listener for a training of so many steps, which shows it and sends its losses to MLflow."""
    from tasks.progress import TrainingProgress

    with TrainingProgress(name, steps) as progress, live.sending() as tracked:
        yield lambda record: [listener(record) for listener in (progress, tracked)]


def training_job(job: Job, teacher: Stage, data: Stage) -> "step.Job":
    """Return all that a training is determined by, apart from the models."""
    from distill_core import step
    from distill_core.batches import open_tokenized

    rows, pipeline = open_tokenized(data.folder / ROWS), job.pipeline
    return step.Job(
        rows["train"],
        rows["validation"],
        head_of(teacher),
        pipeline.losses,
        pipeline.training,
        rows.get("unlabelled"),
    )


def write_steps(path: Path, steps: list[dict[str, Any]]) -> None:
    """Write one line of JSON a training step."""
    path.write_text("".join(f"{json.dumps(step)}\n" for step in steps), encoding="utf-8")
