"""What every task of one run is told."""

from dataclasses import dataclass
from pathlib import Path

from distill_core.config import Pipeline


@dataclass(frozen=True)
class Job:
    """One run of a pipeline."""

    pipeline: Pipeline
    output: Path
    """Absolute; the stages, the report and the bundles go there."""
