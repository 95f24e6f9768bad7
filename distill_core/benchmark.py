"""Time models side by side: interleaved, in fresh processes, with fixed threads."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Literal, cast

import numpy as np

from distill_core.errors import RunError
from distill_core.processor import processor_name
from distill_core.session import MODEL_INPUTS

ROUNDS = 3
ROWS = 40
REPEATS = 3
WARM_UP = 10
THREADS = 1

PYTHON = (sys.executable, "-m", "distill_core.benchmark_worker")
"""The command that loads and times one model, but for the name of its job file."""


@dataclass(frozen=True)
class Subject:
    """One model to time."""

    name: str
    kind: Literal["onnx", "torch"]
    path: Path
    rows: Sequence[Mapping[str, Any]] | None = None
    """Tokenized texts, if its tokenizer cuts them otherwise than the others' do."""


@dataclass(frozen=True)
class Timing:
    """What one model took. Latencies are of one text at a time, over texts of many lengths."""

    p50_ms: float
    p95_ms: float
    p50_rounds_ms: tuple[float, ...]
    """The median of each round, each in a process of its own: how far to trust the p50."""
    load_ms: float
    """Median of the rounds."""
    peak_rss_mb: float
    """Largest of the rounds, in 10^6 bytes: the whole process with its runtime; of PyTorch, without the pages
    of its libraries that importing them alone reads."""


def time_models(
    subjects: Sequence[Subject],
    rows: Sequence[Mapping[str, Any]],
    worker: Sequence[str] = PYTHON,
    rounds: int = ROUNDS,
) -> dict[str, Timing]:
    """Time models side by side: in each round every one of them, in a fresh process.

    Args:
        subjects: what to time; the names must differ.
        rows: tokenized texts; `pick_rows` chooses them.
        worker: the command that times a file, but for the name of its job file.
        rounds: how often.

    Returns:
        A timing for each name.

    Raises:
        RunError: a process failed.
    """
    with _Workers(worker) as workers:
        timed = [
            {s.name: workers.run(s, _inputs(s.rows or rows)) for s in subjects}
            for _ in range(rounds)
        ]
    return {s.name: _summarise([figures[s.name] for figures in timed]) for s in subjects}


def _inputs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in MODEL_INPUTS if name in row} for row in rows]


def pick_rows(lengths: Sequence[int], count: int = ROWS) -> list[int]:
    """Return the numbers of rows at even steps through the lengths, the shortest and longest included."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[step]) for step in steps]


def describe_machine() -> dict[str, Any]:
    """Return what the timings hold for: processor, threads, and how they were taken."""
    return {
        "machine": processor_name(),
        "threads": THREADS,
        "rounds": ROUNDS,
        "texts": ROWS,
        "calls_a_round": ROWS * REPEATS,
    }


class _Workers:
    """Starts a fresh process for each job; those of PyTorch are forks of one that has imported it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._folder = Path(mkdtemp())
        self._log = self._folder / "log"
        self._with_torch: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._with_torch is not None:
            self._with_torch.communicate()  # ends it
        shutil.rmtree(self._folder)

    def run(self, subject: Subject, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the figures of one model.

        Raises:
            RunError: its process failed.
        """
        job = {
            "kind": subject.kind,
            "path": str(subject.path),
            "rows": rows,
            "repeats": REPEATS,
            "warm_up": WARM_UP,
            "threads": THREADS,
        }
        job_file = self._folder / "job.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        self._log.write_text("")  # what earlier jobs said is not this one's reason
        answer = (self._fork if subject.kind == "torch" else self._start)(job_file)
        if not answer:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = said[-1] if said else "its process ended"
            raise RunError(f"benchmark of {subject.name} ({subject.path}) failed: {reason}")
        figures: dict[str, Any] = json.loads(answer.splitlines()[-1])
        return figures

    def _start(self, job_file: Path) -> str:
        process = self._popen([*self._command, str(job_file)])
        answer, _ = process.communicate()
        return answer if process.returncode == 0 else ""

    def _fork(self, job_file: Path) -> str:
        if self._with_torch is None:
            self._with_torch = self._popen(PYTHON)
        jobs, answers = (
            cast(IO[str], self._with_torch.stdin),
            cast(IO[str], self._with_torch.stdout),
        )
        with suppress(BrokenPipeError):  # it ended; what it said is in the log
            jobs.write(f"{job_file}\n")
            jobs.flush()
        return answers.readline().strip()

    def _popen(self, command: Sequence[str]) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
            "TOKENIZERS_PARALLELISM": "false",
        }
        pipe = subprocess.PIPE
        with self._log.open("a") as log:
            return subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment
            )


def _summarise(rounds: Sequence[Mapping[str, Any]]) -> Timing:
    latencies = np.concatenate([figures["latencies_ms"] for figures in rounds])
    return Timing(
        p50_ms=float(np.median(latencies)),
        p95_ms=float(np.percentile(latencies, 95)),
        p50_rounds_ms=tuple(statistics.median(figures["latencies_ms"]) for figures in rounds),
        load_ms=statistics.median(figures["load_ms"] for figures in rounds),
        peak_rss_mb=max(figures["peak_rss_mb"] for figures in rounds),
    )


def as_facts(timings: Mapping[str, Timing]) -> dict[str, dict[str, Any]]:
    """Return timings as JSON-able values."""
    return {name: asdict(timing) for name, timing in timings.items()}
