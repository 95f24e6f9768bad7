"""DistilBERT's own case: a teacher of 12 layers of width 768 to 6 layers, by the whole pipeline."""

import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

from tests.bench.corpora import REVIEWS, Corpus
from tests.bench.harness import latest_stage
from tests.bench.jobs import SST2, WholeJob, at_most, run_job
from tests.bench.teachers import SHARED, TEACHERS

NAME = "mpnet-base-sst2"
ONE_EPOCH, TRIMMED = "one-epoch", "one-epoch, vocabulary trimmed"
_TEACHER = TEACHERS / NAME
_SETTINGS = (f"teacher.source={_TEACHER}", "name=paper-size")
_JOB = WholeJob(NAME, "sst2", SST2.pipeline, (*_SETTINGS, "training.epochs=1"), "paper-size")


def _job(name: str, *settings: str, unlabelled: Corpus | None = None) -> tuple[str, WholeJob]:
    job = replace(
        _JOB,
        settings=(*_SETTINGS, *settings),
        student=f"{_JOB.student} {name}",
        unlabelled=unlabelled,
    )
    return name, job


def _narrow(neurons: int) -> tuple[str, ...]:
    return f"student.intermediate_size={neurons}", "student.packed_words=before"


_TEXTS = REVIEWS.first(80_000)


def _two_epochs(neurons: int) -> tuple[str, WholeJob]:
    name = f"two epochs, {neurons:,} neurons, words packed"
    return _job(name, "training.epochs=2", *_narrow(neurons))


def _once(name: str, steps: int, *settings: str) -> tuple[str, WholeJob]:
    return _job(
        f"{name}, {_TEXTS.name} between, {steps:,} batches of 16",
        "training.epochs=1",
        "training.batch_size=16",
        f"training.max_steps={steps}",
        *settings,
        unlabelled=_TEXTS,
    )


_MB = 29.1
"""A fifteenth of the teacher's 438."""
_AT_MOST = tuple(
    _once(f"{n:,} neurons, words packed, {_MB} MB at most", steps, *_narrow(n), at_most(_MB))
    for n, steps in ((2176, 6_000), (2048, 7_000))
)
_SMALLER = (
    _two_epochs(1280),
    _two_epochs(1728),
    *_AT_MOST,
    _once("five layers", 3_400, "student.layers=spread", "student.count=5"),
)
STUDENTS = {
    ONE_EPOCH: _JOB,
    TRIMMED: replace(_JOB, settings=(*_JOB.settings, "student.vocabulary=auto")),
    **dict(_SMALLER),
}
"""Table: setting → the job; the two of one epoch share the training of a seed."""

FIFTEENTH, _ = _AT_MOST[-1]
"""The row whose files are a fifteenth of the teacher's and keep 0.99 of its accuracy."""


def measure_paper_size(student: str, seed: int) -> dict[str, Any]:
    """Run the main job's pipeline on the larger teacher, and time both in PyTorch.

    Args:
        student: a row of `STUDENTS`.
        seed: of the training.
    """
    from distill_core.batches import open_tokenized
    from distill_core.benchmark import Subject, as_facts, pick_rows, time_models

    if not _TEACHER.exists():
        assemble = SHARED / "models" / NAME / "assemble.py"
        subprocess.run([sys.executable, assemble, _TEACHER], check=True)
    job = STUDENTS[student]
    figures = run_job(job, seed)
    parameters = [figures[who]["parameters"] for who in ("student", "teacher")]
    stages = job.output(seed) / "stages"
    rows = open_tokenized(latest_stage(stages, "data") / "rows")["validation"]
    subjects = [
        Subject("teacher", "torch", latest_stage(stages, "teacher")),
        Subject("student", "torch", latest_stage(stages, "student", "packed") / "model"),
    ]
    timings = time_models(subjects, rows.select(pick_rows(rows["length"][:])).to_list())
    return {
        **figures,
        "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
        "pytorch": as_facts(timings),
        "fewer_parameters": 1 - parameters[0] / parameters[1],
        "faster": timings["teacher"].p50_ms / timings["student"].p50_ms - 1,
    }
