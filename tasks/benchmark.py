"""Task: time all artifacts and the teacher side by side."""

from collections.abc import Mapping, Sequence
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

    What may be shipped to the web is timed in onnxruntime-web too, where the machine has that. Each reads
    the same texts as its own tokenizer cuts them: the teacher those of `data`, the artifacts those of
    `shipped_data`, which is another one where the vocabulary was trimmed.
    """
    from distill_core.benchmark import Subject, as_facts, describe_machine, pick_rows, time_models
    from distill_core.verifiers import wasm_timer

    files = {artifact.key: artifact for artifact in artifacts}
    for_web = _for_web(job, artifacts)
    timer = wasm_timer() if for_web else None
    inputs = {
        "teacher": teacher.key,
        "artifacts": sorted(files),
        "data": sorted({data.key, shipped_data.key}),
        "machine": describe_machine(),
        "wasm": [sorted(for_web), timer.through, timer.made_from] if timer else None,
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
        texts = ours.select(chosen).to_list()
        timings = as_facts(time_models(subjects, texts))
        wanted = {files[key].facts["sha256"] for key in for_web}
        of_web = [subject for subject in subjects if subject.name in wanted]
        in_wasm = as_facts(time_models(of_web, texts, timer.before)) if timer else {}

        def by_key(found: Mapping[str, Any]) -> dict[str, Any]:
            named = {key: artifact.facts["sha256"] for key, artifact in files.items()}
            return {key: found[sha] for key, sha in named.items() if sha in found}

        return {
            "machine": describe_machine(),
            "timings": {TEACHER: timings[TEACHER], **by_key(timings)},
            "wasm_timings": by_key(in_wasm),
        }

    stage = run_stage(job.output, "benchmark", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _for_web(job: Job, artifacts: Sequence[Stage]) -> set[str]:
    """Return the keys of files that targets on the web may get."""
    rows = [row for row in job.pipeline.rows if row.in_wasm]
    names = {scheme.name for row in rows for scheme in row.schemes}
    return {a.key for a in artifacts if a.facts.get("base", a.facts["scheme"]) in names}
