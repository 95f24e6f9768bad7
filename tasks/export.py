"""Tasks: export the student to ONNX, and quantize it for a target."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.targets import OPSET, find_target
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import LOGITS, MODEL, ONNX, ROWS, head_of


@task(name="export", task_run_name="export", cache_policy=NO_CACHE)
def export(job: Job, teacher: Stage, student: Stage, data: Stage) -> State[Stage]:
    """Write the student as an fp32 ONNX file that answers as it does in PyTorch."""
    inputs = {"student": student.key, "opset": OPSET}

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.export import export_onnx
        from distill_core.teacher import load_model

        rows = open_tokenized(data.folder / ROWS)[data.facts["evaluation_split"]]
        model = load_model(student.folder / MODEL)
        return export_onnx(model, head_of(teacher), rows, OPSET, folder / ONNX)

    stage = run_stage(job.output, "onnx", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


@task(name="quantize", task_run_name="quantize for {target}", cache_policy=NO_CACHE)
def quantize(
    job: Job, target: str, teacher: Stage, exported: Stage, evaluation: Stage, data: Stage
) -> State[Stage]:
    """Quantize for a target, and score the file on rows that were never trained on."""
    scheme = find_target(target).scheme
    inputs = {
        "onnx": exported.key,
        "evaluation": evaluation.key,
        "scheme": vars(scheme),
    }

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        from distill_core.batches import open_tokenized
        from distill_core.quantization import quantize, score_file

        file = quantize(exported.folder / ONNX, scheme, folder)
        rows = open_tokenized(data.folder / ROWS)[data.facts["evaluation_split"]]
        logits = np.load(evaluation.folder / LOGITS)
        head = head_of(teacher)
        return score_file(file, scheme, head, rows, logits["teacher"], logits["student"])

    stage = run_stage(job.output, "artifact", inputs, build)
    publish_facts(job.pipeline.name, stage, target)
    return as_state(stage)
