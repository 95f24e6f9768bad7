"""Where a training that was killed goes on."""

import os
import time
from pathlib import Path
from typing import Any

import torch

EVERY_S = 60.0
"""A kill costs a minute at most; writing a checkpoint takes a second for a student of 67M parameters."""


class Checkpoint:
    """A file that holds the state of a training, and is whole at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether the last one is a minute old."""
        return time.monotonic() - self._written_at >= EVERY_S

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file by a state of tensors, numbers, lists and dictionaries."""
        draft = self._path.with_suffix(".partial")
        with draft.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._written_at = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return the state that the file holds, if there is one; no code in it is ever run."""
        if not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return state
