"""A cell is one resumable measurement; its figures are one small JSON file that is committed.

Cells run one after the other, in the order of their table. One whose file is there is not run
again, so an interrupted bench goes on where it was. To measure a cell anew, delete its file.
"""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from distill_core.benchmark import describe_machine
from distill_core.bundle import versions
from distill_core.files import read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ROOT = HERE.parents[1]


Measure = Callable[[], Mapping[str, Any]]
"""Returns figures, JSON-able."""


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    table: str
    model: str
    data: str
    setting: str
    seed: int
    measure: Measure
    needs_gpu: bool = False

    @property
    def name(self) -> str:
        """The file's name, without its ending."""
        return "--".join((self.model, self.data, slug(self.setting), f"seed{self.seed}"))

    def path(self, machine: str) -> Path:
        """Where the figures are kept."""
        return RESULTS / machine / self.table / f"{self.name}.json"


def has_gpu() -> bool:
    """Tell whether torch finds one."""
    import torch

    return torch.cuda.is_available()


def machine_name() -> str:
    """Name this machine by processor, cores and GPU, if any: figures of two machines never mix."""
    import torch

    gpu = f"-{slug(torch.cuda.get_device_name())}" if has_gpu() else ""
    return f"{slug(describe_machine()['machine'])}-{os.cpu_count()}-cores{gpu}"


def slug(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def latest_stage(stages: Path, *kinds: str) -> Path:
    """Return the folder of the stage of one of these kinds that was made last."""
    found = chain.from_iterable(stages.glob(f"{kind}-*") for kind in kinds)
    return max(found, key=lambda path: path.stat().st_mtime)


def run_cells(cells: Iterable[Cell]) -> list[Path]:
    """Measure the cells that have no figures on this machine, and return the files written."""
    machine = machine_name()
    written = []
    for cell in cells:
        path = cell.path(machine)
        if path.exists():
            continue
        print(f"{cell.table}: {cell.name}", flush=True)
        start = time.perf_counter()
        figures = dict(cell.measure())
        write_json(path, _record(cell, machine, figures, time.perf_counter() - start))
        written.append(path)
    return written


def _record(cell: Cell, machine: str, figures: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "table": cell.table,
        "machine": machine,
        "model": cell.model,
        "data": cell.data,
        "setting": cell.setting,
        "seed": cell.seed,
        "figures": figures,
        "seconds": round(seconds, 1),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "system": platform.platform(),
        "versions": versions(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def read_records(table: str) -> list[dict[str, Any]]:
    """Return the records of a table, of all machines, in a fixed order."""
    return [read_json(path) for path in sorted(RESULTS.glob(f"*/{table}/*.json"))]
