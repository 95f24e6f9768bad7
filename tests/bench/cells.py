"""The cells of every table. A new measurement is one row here, and one column list in tables.py."""

import os
import statistics
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.bench.corpora import REVIEWS, readable
from tests.bench.harness import ROOT, Cell, Measure
from tests.bench.jobs import (
    COMMAND,
    MINILM,
    OTHERS,
    PACKED,
    SST2,
    SST2_REVIEWS,
    WORK,
    WholeJob,
    cells_of_jobs,
    run_pipeline,
    run_student,
)
from tests.bench.teachers import SHARED

SMALL = SHARED / "models" / MINILM
SST2_COLUMNS = {"text": "sentence", "label": "label"}


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
    return seconds_of(*SST2.arguments(), "--output", str(SST2.output()))


def _of_paper_size() -> list[Cell]:
    from tests.bench.paper_size import FIFTEENTH, NAME, ONE_EPOCH, STUDENTS, measure_paper_size

    rows = [*((name, 0) for name in STUDENTS), (FIFTEENTH, 1), (ONE_EPOCH, 1), (ONE_EPOCH, 2)]
    return [
        Cell("paper-size", NAME, "sst2", name, n, partial(measure_paper_size, name, n))
        for name, n in rows
        if readable(STUDENTS[name].unlabelled)
    ]


def _of_the_front_door() -> list[Cell]:
    cell = partial(Cell, "door", MINILM, "sst2", seed=0)
    return [
        cell(setting="help", measure=partial(seconds_of, "--help")),
        cell(setting="check", measure=partial(seconds_of, "check", str(SST2.pipeline))),
        cell(setting="second-run", measure=second_run),
        Cell("demo", "embedded", "docstrings", "default", 0, demo),
    ]


def _of_files() -> list[Cell]:
    """Return the cells that hold the files of students against each other."""
    from tests.bench.agreement import TARGETS, measure_agreement
    from tests.bench.schemes import (
        WAYS,
        WAYS_ELSEWHERE,
        WAYS_PACKED,
        measure_scheme,
        measure_side_by_side,
    )

    def of(job: WholeJob, table: str, setting: str, measure: Measure) -> Cell:
        return Cell(table, job.model, job.data, setting, 0, measure)

    ways = [
        (SST2, WAYS),
        *((job, WAYS_PACKED) for job in PACKED),
        *((job, WAYS_ELSEWHERE) for job in OTHERS),
    ]
    return [
        *(
            of(job, "schemes", setting, partial(measure_scheme, name, job))
            for job, names in ways
            for name in names
            for setting in [name if job.student == "default" else f"{job.student}, {name}"]
        ),
        *(
            of(job, "side-by-side", job.student, partial(measure_side_by_side, job))
            for job in PACKED
        ),
        *(of(SST2, "agreement", name, partial(measure_agreement, name)) for name in TARGETS),
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
            Cell(
                "retention",
                base,
                "sst2",
                "reviews-between",
                n,
                partial(run_student, SST2_REVIEWS, n),
            )
            for n in (0, 1, 2)
            if readable(REVIEWS)
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


def _race_on_sst2(rows: int, **more: Any) -> Measure:
    from tests.bench.speed import measure_speed

    data = SHARED / "data" / "sst2"
    return partial(measure_speed, SMALL, data, SST2_COLUMNS, rows, **more)


def _of_speed() -> list[Cell]:
    from tests.bench.scale import COUNTS, measure_scale

    return [
        *(
            Cell(
                "scale",
                "bert-4x64",
                "generated",
                f"{n}-rows",
                0,
                partial(measure_scale, SMALL, n),
            )
            for n in COUNTS
        ),
        Cell("speed", MINILM, "sst2", "3000-rows", 0, _race_on_sst2(3_000)),
    ]


def _of_gpu() -> list[Cell]:
    from tests.bench.gpu import WAYS, measure_bert_base

    gpu = partial(Cell, "gpu", seed=0, needs_gpu=True)
    return [
        gpu(MINILM, "sst2", "SST-2", measure=_race_on_sst2(4_800, others=WAYS)),
        gpu(
            "bert-12x768",
            "generated",
            "BERT-base's size",
            measure=partial(measure_bert_base, SMALL, 6_400, 128),
        ),
    ]


CELLS = [
    *cells_of_jobs(),
    *_of_paper_size(),
    *_of_files(),
    *_of_the_front_door(),
    *_of_public_tasks(),
    *_of_speed(),
    *_of_gpu(),
]
