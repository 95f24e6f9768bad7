"""Whole jobs, by the command line: SST-2's, and those of other tasks, whose students are quantized too."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.corpora import OTHER_TASKS, REVIEWS, Corpus, readable
from tests.bench.harness import HERE, ROOT, Cell, slug
from tests.bench.teachers import teacher_of

WORK = ROOT / "runs" / "bench"
COMMAND = Path(sys.executable).with_name("distill-deploy")
MINILM = "minilm-l6-sst2"
_FIVE = ("android-arm64", "ios-arm64", "web-wasm", "linux-arm64", "linux-x86-64")
_KEPT = ("passed", "retention", "agreement", "difference", "artifacts", "training", "timings_s")


@dataclass(frozen=True)
class WholeJob:
    """A pipeline file, and the names under which its figures are kept."""

    model: str
    data: str
    pipeline: Path
    settings: tuple[str, ...] = ()
    """What it is asked for, beside what its pipeline file says."""
    student: str = "default"
    fine_tuned: bool = False
    """Whether its teacher is that of `TASKS`, which is made if it is not there."""
    unlabelled: Corpus | None = None
    """What is read between its rows."""

    def arguments(self, seed: int = 0) -> list[str]:
        """Return those of the command that runs it."""
        texts = self.unlabelled and self.unlabelled.file(WORK, self.data)
        more = (f"data.unlabelled={texts}",) if texts else ()
        settings = (f"training.seed={seed}", *more, *self.settings)
        return ["run", str(self.pipeline), *(p for s in settings for p in ("--set", s))]

    def output(self, seed: int = 0) -> Path:
        """Return where it leaves its stages, reports and bundles."""
        name = "" if self.student == "default" else f"-{slug(self.student)}"
        return WORK / f"{self.data}{name}-seed{seed}"


def at_most(mb: float) -> str:
    """Return the setting that limits the files of all five targets of SST-2's job."""
    return f"gate.max_mb={{{', '.join(f'{target}: {mb}' for target in _FIVE)}}}"


SST2 = WholeJob(MINILM, "sst2", ROOT / "deploy" / "pipelines" / "sst2.yaml")
_WORDS_PACKED = {"settings": ("student.packed_words=before",), "student": "words packed"}
_SST2_STUDENTS = {
    "vocabulary trimmed": ("student.vocabulary=auto",),
    "4 x 312": (
        "student.layers=spread",
        "student.count=4",
        "student.hidden_size=312",
        "student.intermediate_size=1200",
    ),
    "6 x 192": (
        "student.layers=[0,1,2,3,4,5]",
        "student.hidden_size=192",
        "student.heads=6",
        "student.intermediate_size=768",
    ),
}
SST2_BETWEEN = replace(SST2, student="texts of other tasks between", unlabelled=OTHER_TASKS)
_MB = 6.05
"""A fifteenth of the teacher's 90.9."""
SST2_WITHIN = replace(
    SST2_BETWEEN,
    student=f"{SST2_BETWEEN.student}, {_MB} MB at most",
    settings=(at_most(_MB),),
)
SST2_REVIEWS = replace(
    SST2_WITHIN,
    student=f"{REVIEWS.name} between, {_MB} MB at most",
    unlabelled=REVIEWS,
)
_PACKED = replace(SST2, **_WORDS_PACKED)
PACKED_WITHIN = replace(
    SST2_WITHIN,
    student=f"{SST2_WITHIN.student}, words packed after",
    settings=(*SST2_WITHIN.settings, "student.packed_words=after"),
)
STUDENTS = [
    _PACKED,
    replace(_PACKED, student=f"{_PACKED.student}, {SST2_BETWEEN.student}", unlabelled=OTHER_TASKS),
    *(replace(SST2, settings=given, student=name) for name, given in _SST2_STUDENTS.items()),
]
_PIPELINES, _BASE = HERE / "pipelines", "all-minilm-l6-v2"
OTHERS = [
    WholeJob(_BASE, "wnut17", _PIPELINES / "wnut17.yaml", fine_tuned=True),
    WholeJob(_BASE, "stsb", _PIPELINES / "stsb.yaml"),
]
"""Entities of words, and sentence embeddings."""
PACKED = [replace(job, **_WORDS_PACKED) for job in (SST2, *OTHERS)]
"""The same with words packed before the training."""


def run_pipeline(arguments: list[str], output: Path) -> dict[str, Any]:
    """Run a pipeline and return its report, whether it passed its gate or not."""
    done = subprocess.run([COMMAND, *arguments, "--output", output], check=False, cwd=ROOT)
    if done.returncode in (0, 1):
        report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
        if report["passed"] == (done.returncode == 0):
            return report
    raise RuntimeError(f"{' '.join(arguments)} ended with exit code {done.returncode}")


def run_job(job: WholeJob, seed: int = 0) -> Mapping[str, Any]:
    """Do a whole job, or what changed of it, and return what its report says.

    Args:
        job: which.
        seed: of the training.
    """
    if job.fine_tuned:
        teacher_of(job.data)
    if job.unlabelled is not None:
        job.unlabelled.write(WORK, job.data)
    report = run_pipeline(job.arguments(seed), job.output(seed))
    return {
        # Of all stages, when they were made: a cell that was interrupted counts each of them once.
        "minutes": sum(report["timings_s"].values()) / 60,
        "teacher": {name: report["teacher"][name] for name in ("metrics", "parameters", "bytes")},
        "student": report["student"],
        "main_metric": report["main_metric"],
        **{name: report[name] for name in _KEPT},
        "benchmark": report["benchmark"],
    }


def run_student(job: WholeJob, seed: int = 0) -> Mapping[str, Any]:
    """Do a whole job, and return what the table of retention tells of its student.

    Args:
        job: which.
        seed: of the training.
    """
    figures = run_job(job, seed)
    kept = ("main_metric", "retention", "agreement", "difference", "training")
    return {
        **{name: figures[name] for name in kept},
        **{who: figures[who]["metrics"] for who in ("teacher", "student")},
        "parameters": figures["student"]["parameters"],
        "minutes": figures["training"]["training_s"] / 60,
    }


def cells_of_jobs() -> list[Cell]:
    """Return a cell for each job and seed."""
    return [
        *(
            Cell("main-job", MINILM, "sst2", job.student, n, partial(run_job, job, n))
            for job in (SST2, SST2_BETWEEN, SST2_WITHIN, PACKED_WITHIN, SST2_REVIEWS)
            if readable(job.unlabelled)
            for n in (0, 1, 2)
        ),
        *(
            Cell("main-job", job.model, job.data, job.student, 0, partial(run_job, job))
            for job in STUDENTS
        ),
        *(
            Cell("other-jobs", job.model, job.data, job.student, 0, partial(run_job, job))
            for job in (*OTHERS, *PACKED[1:])
        ),
    ]
