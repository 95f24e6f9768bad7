"""Tasks: fetch the teacher, and prepare the data."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from distill_core.dataset import Splits
from distill_core.errors import SourceUnreachable
from distill_core.files import copy_tree
from distill_core.plan import check_fit
from distill_core.teacher import ModelDescription, load_model, load_tokenizer
from tasks import sources
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import ROWS, head_of


def worth_a_retry(task: Any, task_run: TaskRun, state: State[Any]) -> bool:
    """Tell whether trying again later may help: only where a server did not answer."""
    try:
        state.result()
    except SourceUnreachable:
        return True
    except Exception:
        return False
    return False


@task(
    name="fetch teacher",
    task_run_name="fetch teacher",
    retries=2,
    retry_delay_seconds=[1, 3],
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def fetch_teacher(job: Job) -> State[Stage]:
    """Copy the teacher from its source, check it, and keep it under its fingerprint."""
    source = job.pipeline.teacher
    (job.output / "stages").mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        dir=job.output / "stages", prefix=".fetch-", suffix=".partial"
    ) as scratch:
        sources.fetch(source, Path(scratch))
        teacher = sources.describe_teacher(source, Path(scratch), job.pipeline.task)
        check_fit(job.pipeline, teacher)
        inputs = {"fingerprint": teacher.fingerprint, "task": job.pipeline.task}

        def build(folder: Path) -> dict[str, Any]:
            copy_tree(Path(scratch), folder)
            return teacher_facts(teacher)

        stage = run_stage(job.output, "teacher", inputs, build)
    # Where it came from is no part of its key: a teacher that moves is still the same teacher.
    stage = replace(stage, facts={**source.model_dump(), **stage.facts})
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def teacher_facts(teacher: ModelDescription) -> dict[str, Any]:
    """Return what the report says of a teacher."""
    return {
        "fingerprint": teacher.fingerprint,
        "model_type": teacher.model_type,
        "architecture": teacher.architecture,
        "task": teacher.head.name,
        "labels": list(teacher.head.labels),
        "pooling": teacher.head.pooling,
        "layers": teacher.layers,
        "hidden_size": teacher.stack.hidden_size,
        "max_length": teacher.max_length,
        "parameters": teacher.parameters,
        "bytes": teacher.size_bytes,
    }


@task(
    name="prepare data",
    task_run_name="prepare data",
    retries=2,
    retry_delay_seconds=[1, 3],
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def prepare_data(job: Job, teacher: Stage) -> State[Stage]:
    """Read and check every row, and tokenize it with the teacher's tokenizer."""
    from distill_core.data_files import data_fingerprint
    from distill_core.unlabelled import unlabelled_fingerprint

    source = job.pipeline.data
    inputs = {
        "fingerprint": data_fingerprint(source),
        "unlabelled": unlabelled_fingerprint(source),
        "unlabelled_kept": source.unlabelled_kept,
        "teacher": teacher.key,
        "columns": source.columns.model_dump(),
        "config": source.config,
        "augment": source.augment,
        "max_length": source.max_length,
        "seed": job.pipeline.training.seed,
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import tokenize
        from distill_core.dataset import read_dataset
        from distill_core.unlabelled import count_copies, note_copies

        head, tokenizer = head_of(teacher), load_tokenizer(teacher.folder)
        splits = read_dataset(source, head, job.pipeline.training.seed)
        if source.unlabelled_kept == "telling":
            splits = _telling(splits, teacher, source.max_length)
        copies = count_copies(source.augment, head, len(splits.train))
        more = _augmentation(job, teacher, tokenizer, copies) if copies else None
        tokenize(splits, head, tokenizer, source.max_length, folder / ROWS, more)
        return {
            "fingerprint": inputs["fingerprint"],
            "rows": {name: len(rows) for name, rows in splits.named().items()},
            "evaluation_split": splits.evaluation,
            "notes": [*splits.notes, *note_copies(source.augment, copies)],
        }

    stage = run_stage(job.output, "data", inputs, build)
    stage = replace(stage, facts={"source": source.source, **stage.facts})
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _telling(splits: Splits, teacher: Stage, max_length: int) -> Splits:
    from distill_core.telling import telling_texts

    if splits.unlabelled is None:
        return splits
    head, tokenizer = head_of(teacher), load_tokenizer(teacher.folder)
    model = load_model(teacher.folder)
    texts, notes = telling_texts(splits.unlabelled, model, head, tokenizer, max_length)
    return replace(splits, unlabelled=texts, notes=(*splits.notes, *notes))


def _augmentation(job: Job, teacher: Stage, tokenizer: Any, copies: int) -> Any:
    from distill_core.augmentation import augment

    return partial(
        augment,
        embeddings=load_model(teacher.folder).get_input_embeddings().weight,
        tokenizer=tokenizer,
        copies=copies,
        seed=job.pipeline.training.seed,
    )
