"""What the teacher says of each training row, kept when it is first computed and read ever after."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distill_core.batches import Batch
from distill_core.losses import Output

Ask = Callable[[Batch], Output]
"""Returns what the teacher says of a batch."""

_BYTES_A_NUMBER = 2


class TeacherOutputs:
    """The teacher's logits and hidden states of all rows, on disk: only the first epoch computes them.

    Hidden states are kept in bf16, since the losses read their directions alone; logits in fp32.
    """

    def __init__(
        self, compute: Ask, lengths: Sequence[int], shape: tuple[int, int], folder: Path
    ) -> None:
        """Keep outputs in a folder, which may be removed afterwards.

        Args:
            compute: runs the teacher on a batch.
            lengths: tokens of each row that are not padding.
            shape: layers that are aligned, and the width of their hidden states.
            folder: on a disk with room for `size_bytes` of them.
        """
        self._compute = compute
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - np.asarray(lengths, dtype=np.int64)
        self._hidden = _on_disk(folder, int(self._ends[-1]), shape[0] * shape[1])
        self._logits: dict[int, Tensor] = {}
        self._shape = shape

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's output for a batch, whose `rows` number its rows."""
        rows = batch["rows"].numpy()
        if all(row in self._logits for row in rows):
            return self._read(rows, batch["attention_mask"])
        output = self._compute(batch)
        self._write(rows, output, batch["attention_mask"])
        return output

    def _read(self, rows: Int[np.ndarray, " batch"], mask: Int[Tensor, "batch ..."]) -> Output:
        kept = [self._hidden[self._starts[row] : self._ends[row]] for row in rows]
        tokens = mask.flatten(1).bool()
        hidden = torch.zeros(*tokens.shape, kept[0].shape[1], device=mask.device)
        hidden[tokens] = torch.cat(kept).to(mask.device).float()
        hidden = hidden.unflatten(2, self._shape)
        logits = pad_sequence([self._logits[row] for row in rows], batch_first=True)
        return Output(logits.to(mask.device), hidden)

    def _write(
        self, rows: Int[np.ndarray, " batch"], output: Output, mask: Int[Tensor, "batch ..."]
    ) -> None:
        hidden, logits = output.hidden.flatten(2).cpu(), output.logits.cpu()
        tokens = mask.flatten(1).bool().cpu()
        for place, row in enumerate(rows):
            self._hidden[self._starts[row] : self._ends[row]] = hidden[place][tokens[place]]
            by_token = logits.ndim == 3
            self._logits[row] = (
                logits[place][tokens[place]] if by_token else logits[place]
            ).clone()


def size_bytes(lengths: Sequence[int], shape: tuple[int, int]) -> int:
    """Return what the hidden states of all rows take on disk."""
    return int(np.sum(lengths, dtype=np.int64)) * shape[0] * shape[1] * _BYTES_A_NUMBER


def fits(lengths: Sequence[int], shape: tuple[int, int], budget_bytes: float, folder: Path) -> bool:
    """Tell whether the outputs may be kept: within the budget, and half of what is free on the disk."""
    size = size_bytes(lengths, shape)
    return size <= budget_bytes and 2 * size <= shutil.disk_usage(folder).free


def _on_disk(folder: Path, tokens: int, width: int) -> Float[Tensor, "all_tokens width"]:
    path = folder / "hidden.bf16"
    with path.open("wb") as file:
        # Now: a disk that fills up while a mapped file grows kills the process.
        os.posix_fallocate(file.fileno(), 0, tokens * width * _BYTES_A_NUMBER)
    flat = torch.from_file(str(path), shared=True, size=tokens * width, dtype=torch.bfloat16)
    return flat.view(tokens, width)
