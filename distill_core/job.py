"""What a training is determined by, and what is told of each of its steps."""

import math
from dataclasses import dataclass

from datasets import Dataset

from distill_core.config import TrainingSettings
from distill_core.heads import Head
from distill_core.loss_weights import LossWeights


@dataclass(frozen=True)
class Job:
    """All that a training is determined by, apart from the models."""

    train: Dataset
    validation: Dataset
    head: Head
    weights: LossWeights
    settings: TrainingSettings
    unlabelled: Dataset | None = None
    """Rows without labels, which are read once."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold all training rows once."""
        return math.ceil(len(self.train) / self.settings.batch_size)

    @property
    def rows(self) -> int:
        """Rows to learn from, labelled or not."""
        return len(self.train) + len(self.unlabelled or ())

    @property
    def unlabelled_steps(self) -> int:
        """Batches that hold all unlabelled rows once."""
        return math.ceil(len(self.unlabelled or ()) / self.settings.batch_size)

    @property
    def steps(self) -> int:
        """Batches of the whole training, unless it stops early."""
        return min(self._all_steps, self.settings.max_steps or self._all_steps)

    @property
    def _all_steps(self) -> int:
        return self.unlabelled_steps + self.settings.epochs * self.steps_per_epoch

    def epoch_of(self, step: int) -> float:
        """Return how often the labelled rows were read after a step."""
        if self.settings.unlabelled == "first":
            return max(step - self.unlabelled_steps, 0) / self.steps_per_epoch
        return self.settings.epochs * step / self._all_steps


@dataclass(frozen=True)
class StepRecord:
    """One training step, as MLflow and the report show it."""

    step: int
    """From 1."""
    epoch: float
    losses: dict[str, float]
    """Each that is computed, unweighted."""
    total: float
    """Their weighted sum."""
    learning_rate: float
    rows_per_s: float
    """Rows of this step / its time."""
    timestamp_ms: int
