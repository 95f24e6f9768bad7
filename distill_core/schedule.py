"""What each step of a training reads: labelled batches, and unlabelled ones before or among them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from datasets import Dataset

from distill_core.batches import LengthBuckets, row_lengths
from distill_core.job import Job

Numbered = tuple[Dataset, list[int]]
"""A batch: whose rows it has, and their numbers."""


@dataclass(frozen=True)
class Epoch:
    """A part of a training that ends with a validation."""

    number: int
    """From 1; 0 has unlabelled rows alone."""
    steps: int
    batches: Iterator[Numbered]
    """As many; they are named one by one, since there may be millions."""


def epochs(job: Job) -> Iterator[Epoch]:
    """Yield all epochs, whatever `max_steps` says.

    Where unlabelled rows come between the others, every epoch has an equal part of them, at places that
    its number and the seed decide.

    Args:
        job: rows and settings.
    """
    last, steps = job.settings.epochs, job.steps_per_epoch
    first = job.settings.unlabelled == "first"
    if job.unlabelled is not None and first:
        yield Epoch(0, job.unlabelled_steps, _batches(job, job.unlabelled, 0))
    for epoch in range(last):
        batches = _batches(job, job.train, epoch)
        if job.unlabelled is None or first:
            yield Epoch(epoch + 1, steps, batches)
            continue
        start, end = (job.unlabelled_steps * part // last for part in (epoch, epoch + 1))
        more = islice(_batches(job, job.unlabelled, 0), start, end)
        generator = torch.Generator().manual_seed(job.settings.seed * 1_000_003 + epoch)
        places = torch.randperm(steps + end - start, generator=generator)
        yield Epoch(epoch + 1, len(places), _merged(batches, more, (places < steps).tolist()))


def _batches(job: Job, rows: Dataset, epoch: int) -> Iterator[Numbered]:
    buckets = LengthBuckets(row_lengths(rows), job.settings.batch_size, job.settings.seed)
    return ((rows, numbers) for numbers in buckets.of_epoch(epoch))


def _merged(
    some: Iterator[Numbered], others: Iterator[Numbered], turns: list[bool]
) -> Iterator[Numbered]:
    """Yield from both in turn, the first where it is its turn."""
    return (next(some if turn else others) for turn in turns)
