"""Tokens and batches."""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from distill_core.batches import (
    LengthBuckets,
    collate,
    evaluation_batches,
    open_tokenized,
    row_lengths,
    tokenize,
    training_batch,
)
from distill_core.dataset import Splits
from distill_core.heads import Head
from distill_core.teacher import load_tokenizer


def padding_share(lengths: list[int], batches: Iterable[list[int]]) -> float:
    """Return the share of tokens that are padding when each batch is as long as its longest row."""
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return 1 - sum(lengths) / padded


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_tokenized_rows_are_what_the_tokenizer_says_of_each_text(
    family: str, splits: Splits, head: Head, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(family))
    tokenize(splits, head, tokenizer, max_length=6, folder=tmp_path / "rows")
    tokenized = open_tokenized(tmp_path / "rows")
    assert set(tokenized) == {"train", "validation"}
    for row, original in zip(tokenized["train"], splits.train, strict=True):
        encoded = tokenizer(original["text"], truncation=True, max_length=6)
        assert row == {**original, **encoded, "length": len(encoded.input_ids)}
        assert row["length"] <= 6


def test_tokenizing_leaves_nothing_beside_its_folder(
    splits: Splits, head: Head, tiny_bert: Path, tmp_path: Path
) -> None:
    tokenize(splits, head, load_tokenizer(tiny_bert), max_length=32, folder=tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_batch_is_padded_to_its_longest_row() -> None:
    short = {"input_ids": [2, 3], "attention_mask": [1, 1], "label": 1, "text": "", "length": 2}
    long = {"input_ids": [2, 8, 3], "attention_mask": [1, 1, 1], "label": 0, "text": "x"}
    batch = collate([short, long], pad_token_id=7)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[2, 3, 7], [2, 8, 3]],
        "attention_mask": [[1, 1, 0], [1, 1, 1]],
        "labels": [1, 0],
    }


def test_a_batch_is_what_the_tokenizer_itself_would_pad(rows: DatasetDict, tiny_bert: Path) -> None:
    some = [rows["train"][number] for number in range(9)]
    batch = collate(some, pad_token_id=0)
    texts = [row["text"] for row in some]
    expected = load_tokenizer(tiny_bert)(texts, padding=True, return_tensors="pt")
    assert set(batch) == {*expected, "labels"}
    assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())


lengths_of_rows = st.lists(st.integers(1, 64), min_size=1, max_size=300)


@given(lengths_of_rows, st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_every_row_is_in_one_batch_of_an_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = list(LengthBuckets(np.array(lengths), batch_size, seed).of_epoch(epoch))
    assert Counter(row for batch in batches for row in batch) == Counter(range(len(lengths)))
    assert len(batches) == len(LengthBuckets(np.array(lengths), batch_size, seed))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_seed_and_epoch_decide_the_order() -> None:
    lengths = np.array(random.Random(0).choices(range(5, 60), k=500))

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(LengthBuckets(lengths, 16, seed).of_epoch(epoch))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)


def test_the_order_does_not_hang_on_the_state_of_torch() -> None:
    lengths = random.Random(0).choices(range(5, 60), k=100)
    buckets = LengthBuckets(np.array(lengths), 16, seed=0)
    before = list(buckets.of_epoch(0))
    torch.rand(3)
    assert list(buckets.of_epoch(0)) == before


def test_buckets_pad_far_less_than_random_batches() -> None:
    draws = random.Random(0)
    lengths = draws.choices(range(5, 60), k=3200)
    shuffled = draws.sample(range(3200), k=3200)
    at_random = [shuffled[start : start + 32] for start in range(0, 3200, 32)]
    # 32 uniform draws from 5 to 59 reach 57 or so, and their mean is 32: 44% padding.
    assert padding_share(lengths, at_random) > 0.4
    assert padding_share(lengths, LengthBuckets(np.array(lengths), 32, seed=0).of_epoch(0)) < 0.05


def test_short_and_long_batches_alternate_in_an_epoch() -> None:
    lengths = sorted(random.Random(0).choices(range(5, 60), k=3200))
    batches = LengthBuckets(np.array(lengths), 32, 0).of_epoch(0)
    longest = [max(lengths[row] for row in batch) for batch in batches]
    rises = sum(later > earlier for earlier, later in pairwise(longest))
    assert 30 < rises < 70  # of 99; sorted ones would only rise or only fall


def test_a_training_epoch_holds_every_row_and_the_next_one_another_order(rows: DatasetDict) -> None:
    train = rows["train"]
    buckets = LengthBuckets(row_lengths(train), batch_size=16, seed=0)
    epochs = [
        [training_batch(train, numbers, pad_token_id=0) for numbers in buckets.of_epoch(n)]
        for n in (0, 1)
    ]
    seen = [[row for batch in epoch for row in batch["rows"].tolist()] for epoch in epochs]
    assert len(epochs[0]) == 8
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(120))
    assert seen[0] != seen[1]
    ids = epochs[0][0]["input_ids"][0].tolist()
    assert ids[: len(train[seen[0][0]]["input_ids"])] == train[seen[0][0]]["input_ids"]


def test_evaluation_goes_from_short_to_long_and_knows_its_rows(rows: DatasetDict) -> None:
    batches = list(evaluation_batches(rows["validation"], batch_size=8, pad_token_id=0))
    widths = [batch["input_ids"].shape[1] for _, batch in batches]
    assert widths == sorted(widths)
    assert sorted(row for numbers, _ in batches for row in numbers) == list(range(30))
    for numbers, batch in batches:
        labels = [rows["validation"][number]["label"] for number in numbers]
        assert batch["labels"].tolist() == labels
