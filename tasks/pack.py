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
from tasks.distill import telling, training_inputs, training_job, write_steps
from tasks.job import Job
from tasks.stages import MODEL, STEPS, read_steps, training_rows_of
from tasks.tracking import LiveLosses

if TYPE_CHECKING:
    from distill_core.job import StepRecord
    from distill_core.training import EpochRecord, Trained

Record = TypeVar("Record", "StepRecord", "EpochRecord")


@task(name="pack words", task_run_name="pack words", cache_policy=NO_CACHE)
def pack_words(
    job: Job, teacher: Stage, student: Stage, data: Stage, live: LiveLosses
) -> State[Stage]:
    """Return the student with word embeddings that files hold as they are."""
    pipeline = job.pipeline
    inputs = training_inputs(pipeline, teacher=teacher, student=student, data=data)
    scratch = unfinished_folder(job.output, "packed", inputs)

    def build(folder: Path) -> dict[str, Any]:
        from distill_core import packed_training
        from distill_core.quantization.words import write_words
        from distill_core.student import save_model
        from distill_core.vocabulary import seen_tokens

        model, taught_by = load_model(student.folder / MODEL), load_model(teacher.folder)
        work = packed_training.adaptation(training_job(job, teacher, data), model, taught_by)
        seen, after = seen_tokens(training_rows_of(data)), partial(_after, student)
        name, steps = f"{pipeline.name}, words packed", student.facts["steps"] + work.steps
        with telling(name, steps, live) as listen:
            trained, words = packed_training.pack_words(
                model, taught_by, work, seen, lambda record: listen(after(record)), scratch
            )
        save_model(trained.model, teacher.folder, folder / MODEL)
        write_words(words, folder / MODEL)
        write_steps(folder / STEPS, [*read_steps(student), *map(asdict, map(after, trained.steps))])
        return {**student.facts, **_of_both(student, trained), "packed_words": "after"}

    stage = run_stage(job.output, "packed", inputs, build)
    shutil.rmtree(scratch)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


def _after(student: Stage, record: Record) -> Record:
    """Return what is told of this training as of one that goes on from the student's."""
    epochs = student.facts["epochs"][-1]["epoch"]
    return replace(record, step=student.facts["steps"] + record.step, epoch=epochs + record.epoch)


def _of_both(student: Stage, trained: "Trained") -> dict[str, Any]:
    """Return the facts of the student's training and of this one that add up."""
    facts, more = student.facts, trained.summary()
    return {
        "steps": facts["steps"] + more["steps"],
        "epochs": [*facts["epochs"], *(asdict(_after(student, epoch)) for epoch in trained.epochs)],
        "best_epoch": facts["epochs"][-1]["epoch"] + more["best_epoch"],
        "training_s": round(facts["training_s"] + more["training_s"], 1),
    }
