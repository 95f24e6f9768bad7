"""Tasks: train the student without its teacher, and hold it and two linear floors against the student."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.teacher import load_model
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import LOGITS, MODEL, ROWS, head_of

NO_TEACHER = "labels alone"
"""The name of the student that was trained without its teacher."""


@task(name="train without teacher", task_run_name="train without teacher", cache_policy=NO_CACHE)
def train_without_teacher(job: Job, teacher: Stage, start: Stage, data: Stage) -> State[Stage]:
    """Train the same student from the same start on the labels alone."""
    pipeline = job.pipeline
    inputs = {
        "start": start.key,
        "data": data.key,
        "training": pipeline.training.model_dump(),
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core import training
        from distill_core.batches import open_tokenized
        from distill_core.student import save_model
        from tasks.progress import TrainingProgress

        rows = open_tokenized(data.folder / ROWS)
        work = training.Job(
            rows["train"], rows["validation"], head_of(teacher), pipeline.losses, pipeline.training
        )
        with TrainingProgress(f"{pipeline.name}, {NO_TEACHER}", work.steps) as progress:
            trained = training.distill(load_model(start.folder / MODEL), None, work, progress)
        save_model(trained.model, teacher.folder, folder / MODEL)
        return trained.summary()

    stage = run_stage(job.output, "untaught", inputs, build)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


@task(name="compare baselines", task_run_name="compare baselines", cache_policy=NO_CACHE)
def compare_baselines(
    job: Job, teacher: Stage, data: Stage, evaluation: Stage, untaught: Stage | None
) -> State[Stage]:
    """Score what needs no teacher, or no transformer, on the student's rows."""
    inputs = {
        "data": data.key,
        "evaluation": evaluation.key,
        "untaught": untaught.key if untaught else None,
    }

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        from distill_core import baselines
        from distill_core.batches import open_tokenized
        from distill_core.evaluation import model_logits

        splits = open_tokenized(data.folder / ROWS)
        rows, head = splits[data.facts["evaluation_split"]], head_of(teacher)
        seed = job.pipeline.training.seed
        words = load_model(teacher.folder).get_input_embeddings().weight
        answers = baselines.measure_floors(head, words, splits["train"], rows, seed)
        if untaught:
            model = load_model(untaught.folder / MODEL)
            answers[NO_TEACHER] = model_logits(model, head, rows)
        student = np.load(evaluation.folder / LOGITS)["student"]
        found = [
            baselines.compare(name, head, logits, student, rows, seed)
            for name, logits in answers.items()
        ]
        return {"baselines": found, "notes": baselines.verdict(found, head.main_metric)}

    stage = run_stage(job.output, "baselines", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)
