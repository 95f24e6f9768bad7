"""The progress bar of a training."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from distill_core.job import StepRecord
from distill_core.training import EpochRecord

_SMOOTHING = 0.05


class TrainingProgress:
    """A bar with loss, rate and time left; each validation is a line that stays.

    Where the output is no terminal, only those lines are printed.
    """

    def __init__(self, name: str, steps: int | None = None) -> None:
        """Make a bar of this many steps; None if they are not known."""
        self._rate: float | None = None
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # it would leave an empty line
        )
        self._task = self._bar.add_task(f"distil {name}", total=steps, figures="")

    def __enter__(self) -> "TrainingProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def __call__(self, record: StepRecord | EpochRecord) -> None:
        """Show a step or a validation."""
        if isinstance(record, EpochRecord):
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())
            best = "best so far" if record.best else "no better"
            self._bar.console.print(
                f"  epoch {record.epoch}, step {record.step}: validation {metrics} ({best})",
                highlight=False,
            )
            return
        last = record.rows_per_s if self._rate is None else self._rate
        self._rate = (1 - _SMOOTHING) * last + _SMOOTHING * record.rows_per_s
        self._bar.update(
            self._task,
            completed=record.step,
            figures=f"loss {record.total:.3f}, {self._rate:.0f} rows/s",
        )
