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

from tests.bench.harness import ROOT, Cell

WORK = ROOT / "runs" / "bench"
COMMAND = Path(sys.executable).with_name("distill-deploy")
SST2 = ROOT / "deploy" / "pipelines" / "sst2.yaml"
SHARED = ROOT.parent / "shared"


def distill_deploy(*arguments: str) -> dict[str, Any]:
    """Run a command with --json, and return its result."""
    done = subprocess.run(
        [COMMAND, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main_job(seed: int) -> Mapping[str, Any]:
    """The whole job on SST-2, all five targets."""
    start = time.perf_counter()
    report = distill_deploy(*_main_job_arguments(seed))
    minutes = (time.perf_counter() - start) / 60
    kept = ("passed", "retention", "agreement", "difference", "artifacts", "training", "timings_s")
    return {
        "minutes": minutes,
        "teacher": {name: report["teacher"][name] for name in ("metrics", "parameters", "bytes")},
        "student": report["student"],
        **{name: report[name] for name in kept},
        "benchmark": report["benchmark"],
    }


def _main_job_arguments(seed: int) -> list[str]:
    output = WORK / f"sst2-seed{seed}"
    return ["run", str(SST2), "--set", f"training.seed={seed}", "--output", str(output)]


def demo() -> Mapping[str, Any]:
    """The embedded default, from nothing."""
    output = WORK / "demo"
    start = time.perf_counter()
    subprocess.run([COMMAND, "demo", "--output", output], check=True, cwd=ROOT)
    minutes = (time.perf_counter() - start) / 60
    report = distill_deploy("report", str(output))
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
        subprocess.run([COMMAND, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
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
    return seconds_of(*_main_job_arguments(0))


def _cells() -> list[Cell]:
    from tests.bench.schemes import SCHEMES, measure_scheme

    minilm, sst2 = "minilm-l6-sst2", "sst2"
    return [
        *(
            Cell("main-job", minilm, sst2, "default", seed, partial(main_job, seed))
            for seed in (0, 1, 2)
        ),
        Cell("door", minilm, sst2, "help", 0, partial(seconds_of, "--help")),
        Cell("door", minilm, sst2, "check", 0, partial(seconds_of, "check", str(SST2))),
        Cell("door", minilm, sst2, "second-run", 0, second_run),
        *(
            Cell("schemes", minilm, sst2, name, 0, partial(measure_scheme, name, main_job))
            for name in SCHEMES
        ),
        Cell("demo", "embedded", "docstrings", "default", 0, demo),
    ]


CELLS = _cells()
