"""Task: initialise the student."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.config import Pipeline
from distill_core.layers import count_layers, pick_layers
from distill_core.teacher import ModelDescription, describe, load_model
from distill_core.width import pick_width
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.distill import training_job
from tasks.job import Job
from tasks.stages import MODEL, training_rows_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_core import step

_LENGTH = {"epochs", "max_steps", "patience", "keep_outputs_gb"}
"""Settings of the whole training that the short ones of a search do not read."""


@task(name="initialise student", task_run_name="initialise student", cache_policy=NO_CACHE)
def initialise_student(job: Job, teacher: Stage, data: Stage) -> State[Stage]:
    """Copy layers, embeddings and head of the teacher, or what matters most of them."""
    inputs = {"teacher": teacher.key, **_what_decides(job.pipeline, data)}
    packed_before = job.pipeline.student.packed_words == "before"

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.quantization.words import code_words, write_words
        from distill_core.student import build_student, save_model
        from distill_core.vocabulary import seen_tokens

        described = describe(teacher.folder, job.pipeline.task)
        model, work = load_model(teacher.folder), partial(training_job, job, teacher, data)
        origin, width = _cut(model, described, job, work)
        layers, found = _pick(origin, model, described, job, work)
        student = build_student(origin, described.layer_prefix, layers)
        (folder / MODEL).mkdir()
        if packed_before:
            words = code_words(student, seen_tokens(training_rows_of(data)))
            write_words(words, folder / MODEL)
        save_model(student, teacher.folder, folder / MODEL)
        parameters = describe(folder / MODEL).parameters
        return {
            "layers": list(layers),
            **width,
            "packed_words": "before" if packed_before else None,
            "parameters": parameters,
            "bytes": 4 * parameters,
            "share_of_teacher": parameters / described.parameters,
            **found,
        }

    stage = run_stage(job.output, "start", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _what_decides(pipeline: Pipeline, data: Stage) -> dict[str, Any]:
    """Return what decides a student's start beside its teacher: rows, only where some are read."""
    # A vocabulary is trimmed after the training, and words may be packed then.
    shape = pipeline.student.model_dump(mode="json", exclude={"vocabulary", "packed_words"})
    decides = dict(shape)
    if any(shape[key] for key in ("hidden_size", "heads", "intermediate_size")):
        decides |= {"data": data.key, "seed": pipeline.training.seed}
    if pipeline.student.packed_words == "before":
        decides |= {"data": data.key, "packed_words": "before"}
    if pipeline.student.layers == "search":
        training = pipeline.training.model_dump(exclude=_LENGTH)
        decides |= {"data": data.key, "losses": pipeline.losses.model_dump(), "training": training}
    return decides


def _cut(
    model: "PreTrainedModel", described: ModelDescription, job: Job, work: Callable[[], "step.Job"]
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """Return what the student's layers are picked from, and its width if it is not the teacher's."""
    width = pick_width(described, job.pipeline.student)
    if width is None:
        return model, {}
    from distill_core.pruning import narrow

    narrowed = narrow(model, described, width, work().train, job.pipeline.training.seed)
    return narrowed, {"width": asdict(width)}


def _pick(
    origin: "PreTrainedModel",
    model: "PreTrainedModel",
    described: ModelDescription,
    job: Job,
    work: Callable[[], "step.Job"],
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the layers to copy, and the table of the search if there was one."""
    shape, kinds = job.pipeline.student, described.stack.kinds
    if shape.layers != "search":
        return pick_layers(kinds, shape), {}
    from distill_core.search import Search, as_table, search_layers
    from tasks.progress import TrainingProgress

    with TrainingProgress(f"{job.pipeline.name}, search of layers") as progress:
        search = Search(origin, model, described, work())
        tries = search_layers(search, count_layers(kinds, shape), progress)
    return tries[0].layers, {"search": as_table(tries)}
