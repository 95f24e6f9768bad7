"""Task: pack the student's word embeddings, and train what reads them a third longer."""

import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.teacher import load_model
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage, unfinished_folder
from tasks.distill import training_job, write_steps
from tasks.job import Job
from tasks.stages import MODEL, STEPS, read_steps, seen_tokens_of
from tasks.tracking import LiveLosses

if TYPE_CHECKING:
    from distill_core.job import StepRecord
    from distill_core.training import EpochRecord

Record = TypeVar("Record", "StepRecord", "EpochRecord")


@task(name="pack words", task_run_name="pack words", cache_policy=NO_CACHE)
def pack_words(
    job: Job, teacher: Stage, student: Stage, data: Stage, live: LiveLosses
) -> State[Stage]:
    """Return the student with word embeddings that files hold as they are."""
    pipeline = job.pipeline
    inputs = {
        "teacher": teacher.key,
        "student": student.key,
        "data": data.key,
        "losses": pipeline.losses.model_dump(),
        "training": pipeline.training.model_dump(),
    }
    scratch = unfinished_folder(job.output, "packed", inputs)

    def build(folder: Path) -> dict[str, Any]:
        from distill_core import packed_training
        from distill_core.quantization.words import write_words
        from distill_core.student import save_model
        from tasks.progress import TrainingProgress

        model, taught_by = load_model(student.folder / MODEL), load_model(teacher.folder)
        work = packed_training.adaptation(training_job(job, teacher, data), model, taught_by)
        steps, after = student.facts["steps"] + work.steps, partial(_after, student)
        with (
            TrainingProgress(f"{pipeline.name}, words packed", steps) as progress,
            live.sending() as tracked,
        ):
            trained, words = packed_training.pack_words(
                model,
                taught_by,
                work,
                seen_tokens_of(data),
                lambda record: [listen(after(record)) for listen in (progress, tracked)],
                scratch,
            )
        save_model(trained.model, teacher.folder, folder / MODEL)
        write_words(words, folder / MODEL)
        write_steps(folder / STEPS, [*read_steps(student), *map(asdict, map(after, trained.steps))])
        best = [record for record in trained.epochs if record.best][-1]
        return {
            **student.facts,
            "packed_words": "after",
            "steps": student.facts["steps"] + len(trained.steps),
            "epochs": [*student.facts["epochs"], *map(asdict, map(after, trained.epochs))],
            "best_epoch": after(best).epoch,
            "training_s": round(student.facts["training_s"] + trained.summary()["training_s"], 1),
        }

    stage = run_stage(job.output, "packed", inputs, build)
    shutil.rmtree(scratch)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


def _after(student: Stage, record: Record) -> Record:
    """Return what is told of this training as of one that goes on from the student's."""
    epochs = student.facts["epochs"][-1]["epoch"]
    return replace(record, step=student.facts["steps"] + record.step, epoch=epochs + record.epoch)
