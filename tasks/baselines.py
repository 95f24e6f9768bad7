"""Task: hold against the student what needs no teacher, or no transformer."""

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
        metric = evaluation.facts["main_metric"]
        return {"baselines": found, "notes": baselines.verdict(found, metric)}

    stage = run_stage(job.output, "baselines", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)
