"""A batch in parts: one after the other where memory is short, or side by side on several processes.

Each loss is a mean over rows, labels or tokens. In a part it counts for the share of them that the
part holds, so that all parts together have the losses and the gradients of the whole batch.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill_core.batches import Batch
from distill_core.heads import Head

Counts = Mapping[str, int]
"""By a key of `losses.WHOLE`."""


def count(batch: Batch, head: Head) -> Counts:
    """Return what the losses of a batch are means over."""
    tokens = batch["attention_mask"].sum(dim=-1)
    positions, labels = head.count(batch)
    return {
        "positions": positions,
        "labels": labels,
        "tokens": int(tokens.sum()),
        "pairs": int((tokens**2).sum()),
    }


def parts_of_process(
    batch: Batch, head: Head, rows: int, process: int, processes: int
) -> Iterator[tuple[Batch, dict[str, float]]]:
    """Yield the parts of a batch that one of several processes learns from, and how much of it each is.

    Args:
        batch: the whole, which all processes have.
        head: knows what is counted.
        rows: most in a part.
        process: the number of this one.
        processes: how many there are.
    """
    whole = count(batch, head)
    mine = {name: tensor[process::processes] for name, tensor in batch.items()}
    length = len(mine["input_ids"])
    if length == 0:  # it goes along, for the others wait for it
        yield {name: tensor[:1] for name, tensor in batch.items()}, dict.fromkeys(whole, 0.0)
    for start in range(0, length, rows):
        part = {name: tensor[start : start + rows] for name, tensor in mine.items()}
        counts = count(part, head)
        yield part, {name: counts[name] / max(number, 1) for name, number in whole.items()}


def sum_gradients(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Give every process the sum of all processes' gradients."""
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = _sum(parameter.grad, accelerator)


def _sum(gradient: Tensor, accelerator: Accelerator) -> Tensor:
    if not gradient.is_sparse:
        total: Tensor = accelerator.reduce(gradient, "sum")
        return total
    # Every process touched other rows; padded to the same number of them, zeros to row 0 do no harm.
    gradient = gradient.coalesce()
    rows, values = (
        accelerator.gather(accelerator.pad_across_processes(part))
        for part in (gradient._indices()[0], gradient._values())
    )
    return torch.sparse_coo_tensor(rows[None], values, gradient.shape)
