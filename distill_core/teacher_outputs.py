"""What the teacher says of each training row, kept when it is first computed and read ever after."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from distill_core.batches import Batch
from distill_core.files import new_file, read_json, write_json
from distill_core.losses import Output

Ask = Callable[[Batch], Output]
"""Returns what the teacher says of a batch."""

KEPT = frozenset({"logits", "hidden", "embeddings"})
"""The fields of `Output` that are worth their room; attentions have heads · tokens² numbers a layer."""

_BYTES_A_NUMBER = 2


class TeacherOutputs:
    """The teacher's logits and hidden states of all rows, on disk: only the first epoch computes them.

    Logits are kept in fp32. Hidden states and embeddings are kept in bf16, so each number is off by up
    to 2⁻⁹ of itself, 0.2 %. A direction hardly feels that; a squared difference does not fall below some
    4 millionths of the mean square of the numbers.

    The first epoch gets them as they are kept, so that a training that was stopped in it, and
    finds some of them on disk, goes on bit for bit.
    """

    def __init__(
        self,
        compute: Ask,
        lengths: Int[np.ndarray, " rows"],
        shape: tuple[int, int],
        folder: Path,
        embeddings: bool = False,
    ) -> None:
        """Open what a folder keeps, of the same rows and teacher, or begin to keep there.

        Args:
            compute: runs the teacher on a batch.
            lengths: tokens of each row.
            shape: layers that are kept, and the width of their hidden states.
            folder: on a disk with room for `size_bytes` of them.
            embeddings: the first of the layers are the embeddings.
        """
        self._compute = compute
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - lengths
        self._shape = shape
        self._embeddings = embeddings
        self._folder = folder
        tokens, width = int(self._ends[-1]), shape[0] * shape[1]
        self._hidden = _on_disk(folder / "hidden.bf16", torch.bfloat16, tokens, width)
        self._known = _on_disk(folder / "known.bool", torch.bool, len(lengths), 1)
        self._logits = self._open_logits()

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's output for a batch, whose `rows` number its rows; without, it is asked."""
        if "rows" not in batch:
            return self._compute(batch)
        rows, mask = batch["rows"].cpu().numpy(), batch["attention_mask"]
        if not self._known[rows].all():
            self._write(rows, self._compute(batch), mask)
        return self._read(rows, mask)

    def _read(self, rows: Int[np.ndarray, " batch"], mask: Int[Tensor, "batch ..."]) -> Output:
        tokens = mask.flatten(1).bool()
        states = self._scattered(self._hidden, rows, tokens).float().unflatten(2, self._shape)
        logits = (
            self._scattered(self._logits, rows, tokens)
            if self._by_token
            else self._logits[rows].to(mask.device)
        )
        if self._embeddings:
            return Output(logits, states[:, :, 1:], embeddings=states[:, :, 0])
        return Output(logits, states)

    def _scattered(
        self,
        kept: Shaped[Tensor, "all_tokens width"],
        rows: Int[np.ndarray, " batch"],
        tokens: Bool[Tensor, "batch tokens"],
    ) -> Shaped[Tensor, "batch tokens width"]:
        """Return what is kept of each token of some rows, and 0 where there is padding."""
        by_row = [kept[self._starts[row] : self._ends[row]] for row in rows]
        padded = kept.new_zeros(*tokens.shape, kept.shape[1], device=tokens.device)
        padded[tokens] = torch.cat(by_row).to(tokens.device)
        return padded

    def _write(
        self, rows: Int[np.ndarray, " batch"], output: Output, mask: Int[Tensor, "batch ..."]
    ) -> None:
        hidden, logits = output.hidden.flatten(2).cpu(), output.logits.cpu()
        tokens = mask.flatten(1).bool().cpu()
        if output.embeddings is not None:
            hidden = torch.cat([output.embeddings.cpu(), hidden], dim=2)
        if self._logits.numel() == 0:
            facts = {"by_token": logits.ndim == 3, "width": logits.shape[-1]}
            write_json(self._folder / _LOGITS, facts)
            self._logits = self._open_logits()
        for place, row in enumerate(rows):
            start, end = self._starts[row], self._ends[row]
            self._hidden[start:end] = hidden[place][tokens[place]]
            if self._by_token:
                self._logits[start:end] = logits[place][tokens[place]]
            else:
                self._logits[row] = logits[place]
        self._known[rows] = True

    def _open_logits(self) -> Float[Tensor, "units classes"]:
        self._by_token = False
        if not (self._folder / _LOGITS).exists():
            return torch.empty(0, 0)
        facts = read_json(self._folder / _LOGITS)
        self._by_token = facts["by_token"]
        count = int(self._ends[-1]) if self._by_token else len(self._ends)
        return _on_disk(self._folder / "logits.fp32", torch.float32, count, facts["width"])


_LOGITS = "logits.json"
"""What shape the logits have, which only the first answer tells."""


def size_bytes(lengths: Int[np.ndarray, " rows"], shape: tuple[int, int]) -> int:
    """Return what the hidden states of all rows take on disk."""
    return int(np.sum(lengths, dtype=np.int64)) * shape[0] * shape[1] * _BYTES_A_NUMBER


def fits(
    lengths: Int[np.ndarray, " rows"], shape: tuple[int, int], budget_bytes: float, folder: Path
) -> bool:
    """Tell whether the outputs may be kept: within the budget, and half of what is free on the disk."""
    size = size_bytes(lengths, shape)
    return size <= budget_bytes and 2 * size <= shutil.disk_usage(folder).free


def _on_disk(
    path: Path, dtype: torch.dtype, count: int, width: int
) -> Shaped[Tensor, "count width"]:
    size = count * width
    with FileLock(path.with_suffix(".lock")):  # of several processes one makes it
        if not path.exists():
            with new_file(path) as draft, draft.open("wb") as file:
                # Now: a disk that fills up while a mapped file grows kills the process.
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
    flat = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
    return flat.view(count, width)
