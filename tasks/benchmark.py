"""Task: time all artifacts and the teacher side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import ROWS

TEACHER = "teacher"


@task(name="benchmark", task_run_name="benchmark", cache_policy=NO_CACHE)
def benchmark(
    job: Job, teacher: Stage, artifacts: Sequence[Stage], data: Stage, shipped_data: Stage
) -> State[Stage]:
    """Time the teacher in PyTorch and every artifact in onnxruntime, interleaved.

    Each reads the same texts as its own tokenizer cuts them: the teacher those of `data`, the artifacts
    those of `shipped_data`, which is another one where the vocabulary was trimmed.
    """
    from distill_core.benchmark import Subject, as_facts, describe_machine, pick_rows, time_models

    files = {artifact.key: artifact for artifact in artifacts}
    inputs = {
        "teacher": teacher.key,
        "artifacts": sorted(files),
        "data": sorted({data.key, shipped_data.key}),
        "machine": describe_machine(),
    }

    def build(_: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.quantization import QUANTIZED_FILE

        split = data.facts["evaluation_split"]
        theirs, ours = (open_tokenized(s.folder / ROWS)[split] for s in (data, shipped_data))
        chosen = pick_rows(ours["length"][:])
        read = theirs.select(chosen if len(theirs) == len(ours) else pick_rows(theirs["length"][:]))
        # Of a small model several schemes make the same file, which is timed once.
        contents = {artifact.facts["sha256"]: artifact for artifact in files.values()}
        subjects = [
            Subject(TEACHER, "torch", teacher.folder, read.to_list()),
            *(Subject(sha, "onnx", file.folder / QUANTIZED_FILE) for sha, file in contents.items()),
        ]
        timings = as_facts(time_models(subjects, ours.select(chosen).to_list()))
        of_files = {key: timings[artifact.facts["sha256"]] for key, artifact in files.items()}
        return {
            "machine": describe_machine(),
            "timings": {TEACHER: timings[TEACHER], **of_files},
        }

    stage = run_stage(job.output, "benchmark", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)
