"""Copies of rows with words replaced, by the tokens that come out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from transformers import PreTrainedTokenizerFast

from distill_core.augmentation import augment

WORDS = ["cat", "dog", "car", "bus", "red", "blue"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "un", "##seen", "zebra", "."]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def wordpiece() -> PreTrainedTokenizerFast:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    model = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=model, mask_token="[MASK]", **SPECIAL)


def ids_of(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in ("[CLS]", *pieces, "[SEP]")]


def rows_of(*rows: list[int]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": rows,
            "attention_mask": [[1] * len(row) for row in rows],
            "label": [0] * len(rows),
            "length": [len(row) for row in rows],
        }
    )


def embeddings_in_pairs() -> torch.Tensor:
    """Each word's nearest is its neighbour in WORDS: cat and dog, car and bus, red and blue."""
    vectors = torch.zeros(len(PIECES), 8)
    for number, word in enumerate(WORDS):
        vectors[PIECES.index(word), number // 2] = 1 + number % 2
    vectors[PIECES.index("."), 7] = 1
    return vectors


def augmented(rows: Dataset, folder: Path, **settings: Any) -> Dataset:
    settings = {"copies": 2, "seed": 0, "embeddings": embeddings_in_pairs(), **settings}
    return augment(rows, str(folder / "augmented.arrow"), tokenizer=wordpiece(), **settings)


def test_copies_have_as_many_tokens_and_no_labels(tmp_path: Path) -> None:
    rows = rows_of(ids_of("cat", "un", "##seen", "."), ids_of("red", "car"))
    more = augmented(rows, tmp_path, copies=3)
    assert more.column_names == ["input_ids", "attention_mask", "length"]
    assert more["length"][:] == [6, 4] * 3
    assert more["attention_mask"][:] == [[1] * 6, [1] * 4] * 3


def test_words_give_way_to_near_words_of_the_rows_and_nothing_else_changes(tmp_path: Path) -> None:
    rows = rows_of(ids_of("cat", "un", "##seen", "dog", "."), ids_of("dog", "cat"))
    vectors = embeddings_in_pairs()
    vectors[PIECES.index("zebra")] = vectors[PIECES.index("cat")]  # in no row
    more = augmented(rows, tmp_path, copies=60, embeddings=vectors)
    # Every other word of the rows is among a word's fifteen nearest, there being so few; un is no word.
    words = {PIECES.index(word) for word in ("cat", "dog", ".")}
    longer = np.array(more["input_ids"][::2])
    assert set(longer[:, 1]) == words
    untouched = [0, 2, 3, 6]
    assert (longer[:, untouched] == np.array(rows[0]["input_ids"])[untouched]).all()


def test_the_nearest_word_replaces_four_words_in_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_core.augmentation.ALTERNATIVES", 1)
    row = ids_of(*WORDS)
    more = augmented(rows_of(row), tmp_path, copies=2000)
    pairs = dict(zip(WORDS, ["dog", "cat", "bus", "car", "blue", "red"], strict=True))
    others = np.array(ids_of(*(pairs[word] for word in WORDS)))
    found = np.array(more["input_ids"])
    replaced = found != np.array(row)
    assert (found[replaced] == np.broadcast_to(others, found.shape)[replaced]).all()
    assert not replaced[:, [0, -1]].any()
    assert replaced[:, 1:-1].mean() == pytest.approx(0.4, abs=0.02)


def test_the_same_seed_gives_the_same_rows_and_copies_differ(tmp_path: Path) -> None:
    rows = rows_of(*[ids_of(*WORDS)] * 5)
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    seeds = (7, 7, 8)
    first, again, other = (
        augmented(rows, folder, seed=seed)["input_ids"][:]
        for folder, seed in zip(folders, seeds, strict=True)
    )
    assert first == again != other
    assert len({tuple(row) for row in first}) > 5


@given(st.lists(st.sampled_from(PIECES[5:]), max_size=9))
def test_any_row_can_be_copied(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    row = ids_of(*pieces)
    more = augmented(rows_of(row), tmp_path_factory.mktemp("rows"))
    assert {len(ids) for ids in more["input_ids"][:]} == {len(row)}
    assert all(set(ids) <= set(row) for ids in more["input_ids"][:])


def test_byte_level_pieces_that_go_on_with_a_word_stay(tmp_path: Path) -> None:
    pieces = ["<s>", "</s>", "Ġred", "Ġcar", "Ġun", "seen", "."]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = Tokenizer(BPE(vocabulary, []))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, cls_token="<s>", sep_token="</s>", pad_token="<s>"
    )
    row = [0, 2, 4, 5, 3, 6, 1]
    more = augment(rows_of(row), str(tmp_path / "a.arrow"), torch.eye(7), tokenizer, 40, 0)
    found = np.array(more["input_ids"])
    assert (found[:, [0, 2, 3, 6]] == np.array(row)[[0, 2, 3, 6]]).all()
    assert len(set(found[:, 1])) > 1
    assert len(set(found[:, 4])) > 1
