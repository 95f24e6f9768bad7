"""Task: hold the student against its teacher."""

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


@task(name="evaluate", task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate(job: Job, teacher: Stage, student: Stage, data: Stage) -> State[Stage]:
    """Compare student and teacher on rows that neither was trained on."""
    inputs = {"teacher": teacher.key, "student": student.key, "data": data.key}

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        from distill_core import evaluation
        from distill_core.batches import open_tokenized
        from distill_core.scoring import choosing_rows

        splits = open_tokenized(data.folder / ROWS)
        head, rows = head_of(teacher), splits[data.facts["evaluation_split"]]
        choosing = choosing_rows(splits["validation"], head)
        teacher_logits = evaluation.model_logits(load_model(teacher.folder), head, rows)
        trained = load_model(student.folder / MODEL)
        student_logits = evaluation.model_logits(trained, head, rows)
        on_validation = (
            student_logits if choosing is rows else evaluation.model_logits(trained, head, choosing)
        )
        np.savez(
            folder / LOGITS,
            teacher=teacher_logits,
            student=student_logits,
            student_validation=on_validation,
        )
        labels = evaluation.read_labels(head, rows)
        seed = job.pipeline.training.seed
        return evaluation.evaluate(head, teacher_logits, student_logits, labels, seed)

    stage = run_stage(job.output, "evaluation", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)
