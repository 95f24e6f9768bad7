"""A fresh process that loads one model and times it: `python -m distill_core.benchmark_worker JOB`.

It imports only what the model's runtime needs, so that its peak memory is the consumer's. Without a job it
imports PyTorch, and forks such a process for each name of a job file that it reads from stdin.
"""

import gc
import inspect
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Sequence[int]]


def main(job_file: Path) -> None:
    """Run a job and print its figures as one line of JSON.

    The job: `kind` (onnx or torch), `path`, `rows` (token ids and masks by input name),
    `repeats`, `warm_up` (calls that are not timed), `threads`.
    """
    job = json.loads(job_file.read_text(encoding="utf-8"))
    load = {"onnx": load_onnx, "torch": load_torch}[job["kind"]]
    run, load_ms = load(Path(job["path"]), job["threads"])
    for call in range(job["warm_up"]):
        run(job["rows"][call % len(job["rows"])])
    latencies_ms = [timed_ms(run, row) for _ in range(job["repeats"]) for row in job["rows"]]
    sys.stdout.write(
        json.dumps({"load_ms": load_ms, "latencies_ms": latencies_ms, "peak_rss_mb": peak_rss_mb()})
    )


def fork_for_jobs() -> None:
    """Answer each job with a line, which is empty where its process failed.

    Importing PyTorch and transformers takes longer than all that is timed.
    """
    gc.disable()  # while PyTorch is imported, it would take a quarter of the time
    _import_torch()
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    gc.freeze()  # collecting would copy what the processes share
    gc.enable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(answers, sys.stdout.fileno())
            main(Path(line.strip()))
            return
        os.waitpid(child, 0)
        os.write(answers, b"\n")


def _import_torch() -> None:
    # transformers reads it for generating text, where it is installed: two seconds, and memory.
    sys.modules["sklearn"] = None  # type: ignore[assignment]

    import torch  # noqa: F401 - loaded here, and found by the forks
    import transformers.modeling_utils  # noqa: F401

    import distill_core.teacher  # noqa: F401


def load_onnx(path: Path, threads: int) -> tuple[Callable[[Row], Any], float]:
    """Load an ONNX file; return what runs a row, and the milliseconds that loading took."""
    from distill_core.session import open_session, run_row

    start = time.perf_counter()
    session = open_session(path, threads, exact=False)  # as an app does
    load_ms = 1000 * (time.perf_counter() - start)
    return lambda row: run_row(session, row), load_ms


def load_torch(path: Path, threads: int) -> tuple[Callable[[Row], Any], float]:
    """Load a transformers folder in PyTorch; return as `load_onnx` does."""
    import torch

    from distill_core.teacher import load_model

    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = load_model(path)
    load_ms = 1000 * (time.perf_counter() - start)
    read = inspect.signature(model.forward).parameters

    def run(row: Row) -> Any:
        with torch.inference_mode():
            return model(**{name: torch.tensor([ids]) for name, ids in row.items() if name in read})

    return run, load_ms


def timed_ms(run: Callable[[Row], Any], row: Row) -> float:
    """Return how many milliseconds a row takes."""
    start = time.perf_counter()
    run(row)
    return 1000 * (time.perf_counter() - start)


def peak_rss_mb() -> float:
    """Return the largest resident memory that this process has had, in 10^6 bytes.

    Linux counts it for this program alone (proc(5), VmHWM); getrusage's figure would start from
    the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = next(
            line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line
        )
        return int(kilobytes) * 1024 / 1e6
    unit = (
        1 if sys.platform == "darwin" else 1024
    )  # getrusage(2): bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        fork_for_jobs()
