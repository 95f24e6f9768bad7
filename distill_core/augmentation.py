"""More text of a task's own kind: its rows, with some words replaced by words alike."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerFast

from distill_core.session import MODEL_INPUTS

REPLACED_SHARE = 0.4
ALTERNATIVES = 15
"""Both as TinyBERT has them (Jiao et al. 2020, arXiv:1909.10351, algorithm 1: p_t and K)."""

_CONTINUES = "##"
_STARTS = ("Ġ", "▁")
"""How WordPiece marks pieces that go on with a word; how byte-level BPE and Unigram mark those that
start one."""

_ROWS_A_CALL = 1_000
_WORDS_A_PRODUCT = 1_024


def augment(
    train: Dataset,
    cache_file: str,
    embeddings: Float[Tensor, "vocabulary width"],
    tokenizer: PreTrainedTokenizerFast,
    copies: int,
    seed: int,
) -> Dataset:
    """Return copies of rows with some words replaced, without labels: the teacher says what they mean now.

    TinyBERT asks a masked language model, and word vectors where a word has several pieces. A fine-tuned
    teacher has no such model left but has word vectors, so it is always these: each of four in ten words
    gives way to one of the fifteen nearest words of the training rows. Words of several pieces stay.

    Args:
        train: tokenized rows, one sequence each.
        cache_file: where the Arrow file goes.
        embeddings: the teacher's word embeddings.
        tokenizer: the teacher's.
        copies: of each row.
        seed: decides what is replaced, and by what.
    """
    names = [name for name in (*MODEL_INPUTS, "length") if name in train.column_names]
    inputs = train.select_columns(names)
    starts = _starting(tokenizer)
    alternatives = _alternatives(_words(inputs, starts, tokenizer), embeddings)
    replace = partial(_replace_words, starts=starts, alternatives=alternatives)

    def copy(rows: Mapping[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        copied = {name: values * copies for name, values in rows.items()}
        copied["input_ids"] = [
            replace(np.asarray(ids), np.random.default_rng((seed, number, number_of_copy)))
            for number_of_copy in range(copies)
            for number, ids in zip(numbers, rows["input_ids"], strict=True)
        ]
        return copied

    return inputs.map(
        copy,
        with_indices=True,
        batched=True,
        batch_size=_ROWS_A_CALL,
        features=inputs.features,
        cache_file_name=cache_file,
        new_fingerprint="augmented",  # else `copy` is taken apart and hashed, for a cache that nobody reads
    )


def _starting(tokenizer: PreTrainedTokenizerFast) -> Bool[np.ndarray, " pieces"]:
    """Tell of each piece whether a word starts with it; special tokens and punctuation are words too."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if any(piece.startswith(_STARTS) for piece in pieces):
        starts = [piece.startswith(_STARTS) or not piece[:1].isalnum() for piece in pieces]
    else:
        starts = [not piece.startswith(_CONTINUES) for piece in pieces]
    found = np.array(starts)
    found[tokenizer.all_special_ids] = True
    return found


def _words(
    rows: Dataset, starts: Bool[np.ndarray, " pieces"], tokenizer: PreTrainedTokenizerFast
) -> Int[np.ndarray, " words"]:
    """Return the pieces that stand in the rows as whole words."""
    seen = np.zeros(len(starts), bool)
    for batch in rows.select_columns(["input_ids"]).iter(_ROWS_A_CALL):
        ids = np.concatenate(batch["input_ids"])
        seen[ids[_whole(ids, starts)]] = True
    seen[tokenizer.all_special_ids] = False
    return np.flatnonzero(seen)


def _whole(
    ids: Int[np.ndarray, " tokens"], starts: Bool[np.ndarray, " pieces"]
) -> Bool[np.ndarray, " tokens"]:
    """Tell which tokens are a word of their own: they start one, and so does the next."""
    whole: Bool[np.ndarray, " tokens"] = starts[ids] & np.append(starts[ids[1:]], True)
    return whole


def _alternatives(
    words: Int[np.ndarray, " words"], embeddings: Float[Tensor, "vocabulary width"]
) -> Int[np.ndarray, "vocabulary alternatives"]:
    """Return the nearest words of each, by the cosine of their embeddings; of all else, itself alone."""
    count = min(ALTERNATIVES, len(words) - 1)
    table = np.repeat(np.arange(len(embeddings), dtype=np.int32)[:, None], max(count, 1), 1)
    if count < 1:
        return table
    vectors = normalize(embeddings.detach().float()[torch.from_numpy(words)], dim=1)
    for start in range(0, len(words), _WORDS_A_PRODUCT):
        part = words[start : start + _WORDS_A_PRODUCT]
        cosines = vectors[start : start + len(part)] @ vectors.T
        cosines[torch.arange(len(part)), torch.arange(start, start + len(part))] = -torch.inf
        table[part] = words[cosines.topk(count, dim=1).indices.numpy()]
    return table


def _replace_words(
    ids: Int[np.ndarray, " tokens"],
    draws: np.random.Generator,
    starts: Bool[np.ndarray, " pieces"],
    alternatives: Int[np.ndarray, "vocabulary alternatives"],
) -> list[int]:
    replaced = _whole(ids, starts) & (draws.random(len(ids)) < REPLACED_SHARE)
    others = alternatives[ids, draws.integers(alternatives.shape[1], size=len(ids))]
    replaced_ids: list[int] = np.where(replaced, others, ids).tolist()
    return replaced_ids
