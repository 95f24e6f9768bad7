"""Trim a vocabulary: tokens that a domain never uses leave tokenizer and embeddings.

Text whose tokens all stay is cut as before, and answered as before, bit for bit. Any other text is cut
into shorter pieces, and into no unknown ones that it was not cut into before.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Int
from transformers import PreTrainedModel

from distill_core.spelling import needed_within
from distill_core.teacher import new_like

Ids = Int[np.ndarray, " tokens"]

_RARE = 300_000
"""Tokens of which a used one is at least one. SST-2 with texts of other tasks, 1.4 million: 13,017 of the
19,433 kinds that stand there, and what packing changes by their errors is 0.0034 where it would be 0.0030
(KL of the answers to validation texts); its own texts alone, 10,904 of 11,572, and 0.0030 as before."""


def training_rows(rows: Mapping[str, Dataset]) -> list[Dataset]:
    """Return the tokenized rows that a student learns from, with labels or without."""
    return [rows[name] for name in ("train", "unlabelled") if name in rows]


def count_tokens(rows: Sequence[Dataset], size: int) -> Int[np.ndarray, " size"]:
    """Return how often each token id stands in tokenized rows.

    Args:
        rows: with `input_ids`, of one sequence or several.
        size: number of ids.
    """
    counts = np.zeros(size, dtype=np.int64)
    for ids in _read_ids(rows):
        counts += np.bincount(ids, minlength=size)
    return counts


def used_tokens(rows: Sequence[Dataset]) -> Ids:
    """Return the ids of the tokens that tokenized rows make use of, in rising order.

    Those are at least one of 300,000 of their tokens; up to so many, each that stands there at all.

    Args:
        rows: with `input_ids`, of one sequence or several.
    """
    counts = _count_known(rows)
    return np.flatnonzero(counts * _RARE >= max(counts.sum(), 1))


def seen_tokens(rows: Sequence[Dataset]) -> Ids:
    """Return the ids of all tokens that stand in tokenized rows, in rising order.

    Args:
        rows: with `input_ids`, of one sequence or several.
    """
    return np.flatnonzero(_count_known(rows))


def _count_known(rows: Sequence[Dataset]) -> Int[np.ndarray, " size"]:
    """Return how often each token id stands in rows, up to the largest there."""
    counts = np.zeros(0, dtype=np.int64)
    for ids in _read_ids(rows):
        found = np.bincount(ids, minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def _read_ids(rows: Sequence[Dataset]) -> Iterator[Ids]:
    for split in rows:
        for chunk in split.with_format("arrow").iter(batch_size=10_000):
            column = chunk["input_ids"].combine_chunks()
            while isinstance(column, (pa.ListArray, pa.LargeListArray)):
                column = column.flatten()
            yield column.to_numpy(zero_copy_only=False)


def pick_tokens(
    tokenizer: Mapping[str, Any], counts: Int[np.ndarray, " size"], size: int | Literal["auto"]
) -> Ids:
    """Return the ids that stay, in rising order.

    Args:
        tokenizer: content of a tokenizer.json.
        counts: how often each id is used.
        size: auto keeps all that are used; a number, so many, those used most before others.

    Raises:
        ConfigError: the number is too small for what must stay.
        TeacherError: the tokenizer is of a kind that cannot be trimmed.
    """
    needed = needed_within(tokenizer, size)
    used = np.flatnonzero(counts)
    if size == "auto":
        return np.asarray(sorted({*needed, *used.tolist()}))
    by_use = used[np.argsort(-counts[used], kind="stable")]
    rest = [token for token in by_use.tolist() if token not in needed]
    return np.asarray(sorted({*needed, *rest[: size - len(needed)]}))


def trim_model(model: PreTrainedModel, kept: Ids, config_ids: Mapping[str, int]) -> PreTrainedModel:
    """Return a model with the embeddings of the tokens that stay, and everything else as it was.

    Args:
        model: a loaded model, whose head does not speak of tokens.
        kept: ids, in rising order; the embedding of the first gets id 0.
        config_ids: what of the config names ids, as they are afterwards: pad_token_id, …
    """
    config = copy.deepcopy(model.config)
    config.vocab_size = len(kept)
    for name, number in config_ids.items():
        setattr(config, name, number)
    trimmed = new_like(model, config)
    state = model.state_dict()
    embeddings = model.get_input_embeddings().weight
    for name, tensor in state.items():
        if tensor.shape == embeddings.shape and tensor.data_ptr() == embeddings.data_ptr():
            state[name] = tensor[np.asarray(kept)].clone()
    trimmed.load_state_dict(state)
    return trimmed.eval()
