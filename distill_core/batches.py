"""Tokenize a data set once, and give it out in padded batches of texts of like length."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.dataset import Splits
from distill_core.heads import Head
from distill_core.heads.token_classification import NOT_COUNTED
from distill_core.session import MODEL_INPUTS

Batch = Mapping[str, Tensor]
"""`input_ids`, `attention_mask` and what else the model reads, Int "batch tokens", or "batch choices
tokens" where a row is several sequences; `labels`, by row, or by token with -100 where none counts,
and not there of unlabelled rows; `rows`, the number of each row."""

Augment = Callable[[Dataset, str], Dataset]
"""Returns more rows, without labels, made of tokenized ones, in an Arrow file."""

ForTraining = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns a row as it is learnt from in an epoch; `Head.for_training`."""

_TEXTS_A_CALL = 1_000
_WINDOW_BATCHES = 50


def tokenize(
    splits: Splits,
    head: Head,
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    folder: Path,
    augment: Augment | None = None,
) -> None:
    """Write every split with its token ids to a folder that `open_tokenized` maps into memory.

    Args:
        splits: checked rows.
        head: knows what of them the model reads.
        tokenizer: the teacher's.
        max_length: longer texts are cut to this many tokens, the special ones included.
        folder: where the Arrow files go.
        augment: makes more unlabelled rows of train; None makes none.
    """

    def encode(rows: Mapping[str, list[Any]]) -> dict[str, Any]:
        return _with_lengths(head.encode(rows, tokenizer, max_length))

    def encode_unlabelled(rows: Mapping[str, list[Any]]) -> dict[str, Any]:
        return _with_lengths(tokenizer(rows["text"], truncation=True, max_length=max_length))

    with TemporaryDirectory(dir=folder.parent) as scratch:
        tokenized = DatasetDict(
            {
                name: rows.map(
                    encode_unlabelled if name == "unlabelled" else encode,
                    batched=True,
                    batch_size=_TEXTS_A_CALL,
                    remove_columns=rows.column_names,  # `encode` returns all that is kept
                    cache_file_name=f"{scratch}/{name}.arrow",
                    # Else `encode` is taken apart and hashed, for a cache that nobody looks into again.
                    new_fingerprint=f"tokenized-{name}",
                )
                for name, rows in splits.named().items()
            }
        )
        if augment is not None:
            more = augment(tokenized["train"], f"{scratch}/augmented.arrow")
            given = [tokenized["unlabelled"]] if "unlabelled" in tokenized else []
            tokenized["unlabelled"] = concatenate_datasets([*given, more])
        tokenized.save_to_disk(folder)


def _with_lengths(encoded: Mapping[str, list[Any]]) -> dict[str, Any]:
    return {**encoded, "length": [int(np.sum(mask)) for mask in encoded["attention_mask"]]}


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
        name: _pad([row[name] for row in rows], pad_token_id if name == "input_ids" else 0)
        for name in names
    }
    if "label" in rows[0]:
        batch["labels"] = _collate_labels([row["label"] for row in rows])
    if "row" in rows[0]:
        batch["rows"] = torch.tensor([row["row"] for row in rows])
    return batch


def model_inputs(model: PreTrainedModel, batch: Batch) -> Batch:
    """Return what a model reads of a batch; not every one knows of the segments that its tokenizer marks."""
    read = inspect.signature(model.forward).parameters
    return {name: batch[name] for name in MODEL_INPUTS if name in batch and name in read}


def _pad(rows: Sequence[Any], value: int) -> Tensor:
    """Pad the last dimension of rows, the tokens; whatever is before it is the same in all."""
    tokens_first = [torch.tensor(row).movedim(-1, 0) for row in rows]
    padded = pad_sequence(tokens_first, batch_first=True, padding_value=value)
    return padded.movedim(1, -1).contiguous()


def _collate_labels(labels: Sequence[Any]) -> Tensor:
    if not isinstance(labels[0], list):
        return torch.tensor(labels)
    padded = [torch.tensor(label) for label in labels]
    return pad_sequence(padded, batch_first=True, padding_value=NOT_COUNTED)


@dataclass(frozen=True)
class LengthBuckets:
    """Batches of rows of like length, shuffled anew each epoch.

    Rows are shuffled, sorted by length within windows of 50 batches, cut into batches, and the
    batches are shuffled: next to no padding, while long and short texts still alternate.
    """

    lengths: Int[np.ndarray, " rows"]
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[list[int]]:
        """Yield the row numbers of each batch; the same seed and epoch give the same ones."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).numpy()
        window = _WINDOW_BATCHES * self.batch_size
        for start in range(0, len(rows), window):
            part = rows[start : start + window]
            rows[start : start + window] = part[np.argsort(-self.lengths[part], kind="stable")]
        for number in torch.randperm(len(self), generator=generator).numpy():
            yield rows[number * self.batch_size :][: self.batch_size].tolist()


def row_lengths(rows: Dataset) -> Int[np.ndarray, " rows"]:
    """Return the tokens of each row."""
    return np.asarray(rows.with_format("numpy")["length"][:])


def training_batch(
    rows: Dataset,
    numbers: list[int],
    pad_token_id: int,
    for_training: ForTraining = lambda row: row,
) -> Batch:
    """Return a batch of rows, by their numbers; one of labelled rows tells these numbers too."""
    picked: Sequence[Mapping[str, Any]] = rows.__getitems__(numbers)
    if "label" in rows.column_names:
        numbered = zip(numbers, picked, strict=True)
        picked = [for_training({**row, "row": number}) for number, row in numbered]
    return collate(picked, pad_token_id)


def evaluation_batches(
    rows: Dataset, batch_size: int, pad_token_id: int
) -> Iterator[tuple[list[int], Batch]]:
    """Yield all rows from the shortest to the longest, each batch with the numbers of its rows."""
    lengths = rows["length"][:]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        yield numbers, collate(rows.__getitems__(numbers), pad_token_id)
