"""One of several processes that train a student together; torchrun starts them.

`python -m torch.distributed.run --nproc_per_node 2 -m distill_core.training_worker JOB.json`
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distill_core.config import TrainingSettings
from distill_core.loss_weights import LossWeights
from distill_core.pooling import Pooling

RESULT = "result.json"
MODEL = "model"


class WorkerJob(BaseModel):
    """All that a process needs to know, as a file."""

    student: Path
    """A transformers folder, where to start from."""
    teacher: Path | None
    """A transformers folder; None trains on the labels alone."""
    rows: Path
    """A tokenized data set."""
    head: str
    labels: tuple[str, ...]
    pooling: Pooling | None = None
    weights: LossWeights
    settings: TrainingSettings
    scratch: Path
    """For checkpoints and the teacher's outputs; the same on all machines, or one on each."""
    output: Path
    """Where the student goes, with `result.json`."""


def main(path: Path) -> None:
    """Train; the first process says on standard output, a line of JSON each, what it does."""
    import torch
    from accelerate import PartialState

    from distill_core.batches import open_tokenized
    from distill_core.errors import TrainingError
    from distill_core.files import write_json
    from distill_core.heads import HEADS
    from distill_core.job import Job
    from distill_core.student import save_model
    from distill_core.teacher import load_model
    from distill_core.training import distill

    work = WorkerJob.model_validate_json(path.read_text(encoding="utf-8"))
    # Told of no accelerator, accelerate would not join processes on CPUs.
    first = PartialState(cpu=not torch.accelerator.is_available()).is_main_process

    def say(record: Any) -> None:
        if first:
            _tell(asdict(record))

    rows = open_tokenized(work.rows)
    job = Job(
        rows["train"],
        rows["validation"],
        HEADS[work.head](work.labels, work.pooling),
        work.weights,
        work.settings,
        rows.get("unlabelled") if work.teacher else None,
    )
    try:
        teacher = load_model(work.teacher) if work.teacher else None
        trained = distill(load_model(work.student), teacher, job, say, work.scratch)
    except TrainingError as error:
        if first:
            _tell({"error": str(error)})
        sys.exit(1)
    if first:
        save_model(trained.model, work.student, work.output / MODEL)
        steps = [asdict(step) for step in trained.steps]
        write_json(work.output / RESULT, {"summary": trained.summary(), "steps": steps})


def _tell(record: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(record)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
