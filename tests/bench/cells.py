"""The cells of every table. A new measurement is one row here, and one column list in tables.py."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.harness import ROOT, Cell, slug
from tests.bench.teachers import SHARED

WORK = ROOT / "runs" / "bench"
COMMAND = Path(sys.executable).with_name("distill-deploy")
SST2 = ROOT / "deploy" / "pipelines" / "sst2.yaml"
SST2_COLUMNS = {"text": "sentence", "label": "label"}
MINILM = "minilm-l6-sst2"


def run_pipeline(arguments: list[str], output: Path) -> dict[str, Any]:
    """Run a pipeline and return its report, whether it passed its gate or not."""
    done = subprocess.run([COMMAND, *arguments, "--output", output], check=False, cwd=ROOT)
    report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    if done.returncode != (0 if report["passed"] else 1):
        raise RuntimeError(f"{' '.join(arguments)} ended with exit code {done.returncode}")
    return report


STUDENTS = {
    "default": (),
    "vocabulary trimmed": ("student.vocabulary=auto",),
    "6 x 192": (
        "student.layers=[0,1,2,3,4,5]",
        "student.hidden_size=192",
        "student.heads=6",
        "student.intermediate_size=768",
    ),
}
"""What the main job is asked for, beside what its pipeline file says."""


def main_job(seed: int, student: str = "default") -> Mapping[str, Any]:
    """The whole job on SST-2, all five targets.

    Args:
        seed: of the training.
        student: a row of `STUDENTS`.
    """
    report = run_pipeline(_main_job_arguments(seed, student), _main_job_output(seed, student))
    kept = ("passed", "retention", "agreement", "difference", "artifacts", "training", "timings_s")
    return {
        # Of all stages, when they were made: a cell that was interrupted counts each of them once.
        "minutes": sum(report["timings_s"].values()) / 60,
        "teacher": {name: report["teacher"][name] for name in ("metrics", "parameters", "bytes")},
        "student": report["student"],
        **{name: report[name] for name in kept},
        "benchmark": report["benchmark"],
    }


def _main_job_arguments(seed: int, student: str = "default") -> list[str]:
    settings = (f"training.seed={seed}", *STUDENTS[student])
    return ["run", str(SST2), *(part for setting in settings for part in ("--set", setting))]


def _main_job_output(seed: int, student: str = "default") -> Path:
    name = "" if student == "default" else f"-{slug(student)}"
    return WORK / f"sst2{name}-seed{seed}"


def demo() -> Mapping[str, Any]:
    """The embedded default, from nothing."""
    start = time.perf_counter()
    report = run_pipeline(["demo"], WORK / "demo")
    minutes = (time.perf_counter() - start) / 60
    kept = ("passed", "retention", "agreement", "artifacts", "timings_s")
    return {
        "minutes": minutes,
        "teacher": report["teacher"]["metrics"],
        "student": report["student"]["metrics"],
        "labels": len(report["labels"]),
        **{name: report[name] for name in kept},
    }


def seconds_of(*arguments: str, repeats: int = 5) -> Mapping[str, Any]:
    """Wall time of a command in fresh processes, after one that warms the disk's cache."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        command = [COMMAND, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):  # 1: a gate said no, which takes as long
            raise RuntimeError(done.stderr)
        times.append(time.perf_counter() - start)
    timed = times[1:]
    return {
        "command": " ".join(("distill-deploy", *arguments)).replace(f"{ROOT}{os.sep}", ""),
        "median_s": statistics.median(timed),
        "min_s": min(timed),
        "max_s": max(timed),
        "repeats": repeats,
    }


def second_run() -> Mapping[str, Any]:
    """The main job again, with nothing changed."""
    return seconds_of(*_main_job_arguments(0), "--output", str(_main_job_output(0)))


def _of_main_job() -> list[Cell]:
    """Return the cells on SST-2 and its teachers, by the command line."""
    from tests.bench.agreement import TARGETS, measure_agreement
    from tests.bench.paper_size import NAME, measure_paper_size
    from tests.bench.schemes import WAYS, measure_scheme

    cell, seeds = partial(Cell, model=MINILM, data="sst2", seed=0), (0, 1, 2)
    return [
        *(Cell("main-job", MINILM, "sst2", "default", n, partial(main_job, n)) for n in seeds),
        *(
            cell("main-job", setting=student, measure=partial(main_job, 0, student))
            for student in STUDENTS
            if student != "default"
        ),
        *(
            Cell(
                "paper-size",
                NAME,
                "sst2",
                "one-epoch",
                n,
                partial(measure_paper_size, run_pipeline, SST2, WORK / f"paper-size-seed{n}", n),
            )
            for n in seeds
        ),
        cell("door", setting="help", measure=partial(seconds_of, "--help")),
        cell("door", setting="check", measure=partial(seconds_of, "check", str(SST2))),
        cell("door", setting="second-run", measure=second_run),
        *(
            cell("schemes", setting=name, measure=partial(measure_scheme, name, main_job))
            for name in WAYS
        ),
        *(
            cell("agreement", setting=name, measure=partial(measure_agreement, name, main_job))
            for name in TARGETS
        ),
        Cell("demo", "embedded", "docstrings", "default", 0, demo),
    ]


def _of_public_tasks() -> list[Cell]:
    """Return the cells whose teachers are fine-tuned from one encoder."""
    from tests.bench.recipes import ABLATED_EPOCHS, ABLATED_TASK, ABLATIONS, RECIPES, SIZES
    from tests.bench.retention import in_8_bits, measure_retention, planned

    base = "all-minilm-l6-v2"
    ablate = partial(
        measure_retention, ABLATED_TASK, seed=0, split="validation", epochs=ABLATED_EPOCHS
    )
    of_words = partial(measure_retention, "wikitext2", RECIPES["default"], 0, "validation")
    return [
        *(
            Cell(
                "retention", base, task, name, n, partial(measure_retention, task, RECIPES[name], n)
            )
            for task, name, n in planned()
        ),
        *(
            Cell("ablation", base, ABLATED_TASK, name, 0, partial(ablate, recipe=recipe))
            for name, recipe in ABLATIONS.items()
        ),
        *(
            Cell(
                "size", base, ABLATED_TASK, name, 0, partial(ablate, recipe=recipe, also=in_8_bits)
            )
            for name, recipe in SIZES.items()
        ),
        Cell("masked-language", base, "wikitext2", "default", 0, of_words),
    ]


def _of_speed() -> list[Cell]:
    from tests.bench.scale import COUNTS, measure_scale
    from tests.bench.speed import ROWS, measure_speed

    teacher = SHARED / "models" / MINILM
    return [
        *(
            Cell(
                "scale",
                "bert-4x64",
                "generated",
                f"{n}-rows",
                0,
                partial(measure_scale, teacher, n),
            )
            for n in COUNTS
        ),
        Cell(
            "speed",
            MINILM,
            "sst2",
            f"{ROWS}-rows",
            0,
            partial(measure_speed, teacher, SHARED / "data" / "sst2", SST2_COLUMNS),
        ),
    ]


CELLS = [*_of_main_job(), *_of_public_tasks(), *_of_speed()]
