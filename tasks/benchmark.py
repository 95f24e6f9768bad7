"""Task: time all artifacts and the teacher side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import ROWS

if TYPE_CHECKING:
    from distill_core.benchmark import Subject

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
    from distill_core.benchmark import PYTHON, Subject, describe_machine, pick_rows
    from distill_core.verifiers import wasm_timer

    files = {artifact.key: artifact for artifact in artifacts}
    for_web = _for_web(job, files)
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

        split = data.facts["evaluation_split"]
        theirs, ours = (open_tokenized(s.folder / ROWS)[split] for s in (data, shipped_data))
        chosen = pick_rows(ours["length"][:])
        read = theirs.select(chosen if len(theirs) == len(ours) else pick_rows(theirs["length"][:]))
        large = Subject(TEACHER, "torch", teacher.folder, read.to_list())
        texts = ours.select(chosen).to_list()
        return {
            "machine": describe_machine(),
            "timings": _time(files, texts, PYTHON, [large]),
            "wasm_timings": _time(for_web, texts, timer.before) if timer else {},
        }

    stage = run_stage(job.output, "benchmark", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _for_web(job: Job, files: Mapping[str, Stage]) -> dict[str, Stage]:
    """Return the files that targets on the web may get."""
    rows = [row for row in job.pipeline.rows if row.in_wasm]
    names = {scheme.name for row in rows for scheme in row.schemes}
    return {
        key: file
        for key, file in files.items()
        if file.facts.get("base", file.facts["scheme"]) in names
    }


def _time(
    files: Mapping[str, Stage],
    texts: Sequence[Mapping[str, Any]],
    worker: Sequence[str],
    beside: Sequence["Subject"] = (),
) -> dict[str, Any]:
    """Return the timings of files by their keys, and of what is timed beside them by its name.

    Of a small model several schemes make the same file, which is timed once.
    """
    from distill_core.benchmark import Subject, as_facts, time_models
    from distill_core.quantization import QUANTIZED_FILE

    contents = {file.facts["sha256"]: file.folder / QUANTIZED_FILE for file in files.values()}
    subjects = [*beside, *(Subject(sha, "onnx", path) for sha, path in contents.items())]
    timings = as_facts(time_models(subjects, texts, worker))
    others = {subject.name: timings[subject.name] for subject in beside}
    return others | {key: timings[file.facts["sha256"]] for key, file in files.items()}
