"""Tokenize a data set once, and give it out in padded batches of texts of like length."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, load_from_disk
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.trainer_pt_utils import get_length_grouped_indices

from distill_core.dataset import Splits
from distill_core.heads import Head
from distill_core.heads.token_classification import NOT_COUNTED
from distill_core.runtime import MODEL_INPUTS

Batch = Mapping[str, Tensor]
"""`input_ids`, `attention_mask` and what else the model reads, Int "batch tokens"; `labels`,
by row, or by token with -100 where none counts; `rows`, the number of each row."""

_TEXTS_A_CALL = 1_000


def tokenize(
    splits: Splits, head: Head, tokenizer: PreTrainedTokenizerFast, max_length: int, folder: Path
) -> None:
    """Write every split with its token ids to a folder that `open_tokenized` maps into memory.

    Args:
        splits: checked rows.
        head: knows what of them the model reads.
        tokenizer: the teacher's.
        max_length: longer texts are cut to this many tokens, the special ones included.
        folder: where the Arrow files go.
    """

    def encode(rows: Mapping[str, list[Any]]) -> dict[str, Any]:
        encoded = head.encode(rows, tokenizer, max_length)
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

    with TemporaryDirectory(dir=folder.parent) as scratch:
        DatasetDict(
            {
                name: rows.map(
                    encode,
                    batched=True,
                    batch_size=_TEXTS_A_CALL,
                    remove_columns=rows.column_names,  # `encode` returns all that is kept
                    cache_file_name=f"{scratch}/{name}.arrow",
                )
                for name, rows in splits.named().items()
            }
        ).save_to_disk(folder)


def open_tokenized(folder: Path) -> DatasetDict:
    """Map the splits that `tokenize` wrote into memory."""
    return load_from_disk(str(folder))


def draw_rows(rows: Dataset, count: int, seed: int) -> Dataset:
    """Return some rows, drawn without replacement, in their order; all, if there are no more."""
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.select(np.sort(drawn))


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad rows to the longest of them: token ids with the padding id, everything else with 0."""
    names = [name for name in MODEL_INPUTS if name in rows[0]]
    batch = {
        name: pad_sequence(
            [torch.tensor(row[name]) for row in rows],
            batch_first=True,
            padding_value=pad_token_id if name == "input_ids" else 0,
        )
        for name in names
    }
    batch["labels"] = _collate_labels([row["label"] for row in rows])
    if "row" in rows[0]:
        batch["rows"] = torch.tensor([row["row"] for row in rows])
    return batch


def model_inputs(model: PreTrainedModel, batch: Batch) -> Batch:
    """Return what a model reads of a batch; not every one knows of the segments that its tokenizer marks."""
    read = inspect.signature(model.forward).parameters
    return {name: batch[name] for name in MODEL_INPUTS if name in batch and name in read}


def _collate_labels(labels: Sequence[Any]) -> Tensor:
    if not isinstance(labels[0], list):
        return torch.tensor(labels)
    padded = [torch.tensor(label) for label in labels]
    return pad_sequence(padded, batch_first=True, padding_value=NOT_COUNTED)


class _Numbered(torch.utils.data.Dataset[Mapping[str, Any]]):
    """Rows that know their number, by which the teacher's word on them is kept."""

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
        rows = self._rows.__getitems__(numbers)
        return [{**row, "row": number} for number, row in zip(numbers, rows, strict=True)]


class LengthBuckets(Sampler[list[int]]):
    """Batches of rows of like length, shuffled anew each epoch.

    Rows are shuffled, sorted by length within windows of 50 batches (transformers'
    `get_length_grouped_indices`), cut into batches, and the batches are shuffled: next to no
    padding, while long and short texts still alternate.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order: the same seed and epoch give the same batches."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = [
            indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)
        ]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number]


def training_batches(
    rows: Dataset, batch_size: int, seed: int, pad_token_id: int
) -> DataLoader[Batch]:
    """Return all rows in length buckets; `batch_sampler.set_epoch` chooses the order."""
    return DataLoader(
        _Numbered(rows),
        batch_sampler=LengthBuckets(rows["length"][:], batch_size, seed),
        collate_fn=lambda rows: collate(rows, pad_token_id),
    )


def evaluation_batches(
    rows: Dataset, batch_size: int, pad_token_id: int
) -> Iterator[tuple[list[int], Batch]]:
    """Yield all rows from the shortest to the longest, each batch with the numbers of its rows."""
    lengths = rows["length"][:]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        yield numbers, collate([rows[number] for number in numbers], pad_token_id)
