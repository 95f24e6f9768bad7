"""Rows that stand twice: in train, and in train and a split that is scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config import Columns, DataSource
from distill_core.dataset import Splits, read_dataset
from distill_core.duplicates import digest_rows, drop_duplicates, first_of_each, stand_in
from distill_core.heads import Head
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification

TEXTS = SequenceClassification(("no", "yes"))
WORDS = TokenClassification(("O", "B"))


def read(folder: Path, head: Head, columns: dict[str, str], **splits: dict[str, Any]) -> Splits:
    for name, table in splits.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return read_dataset(DataSource(source=str(folder), columns=Columns(**columns)), head, seed=0)


words = st.lists(st.text("ab", max_size=2), max_size=2)


@given(st.lists(st.tuples(st.text("ab", max_size=2), words, st.integers(0, 1)), min_size=1))
def test_rows_are_alike_where_all_their_values_are(rows: list[tuple[str, list[str], int]]) -> None:
    table = pa.table(
        {
            "text": pa.array([text for text, _, _ in rows]),
            "tokens": pa.array([words for _, words, _ in rows], pa.list_(pa.string())),
            "label": pa.array([label for _, _, label in rows]),
        }
    )
    digests = digest_rows(Dataset(table), table.column_names)
    alike = [[a == b for b in rows] for a in rows]
    assert (np.equal.outer(digests, digests) == np.array(alike)).all()
    assert first_of_each(digests).tolist() == [row not in rows[:n] for n, row in enumerate(rows)]


def test_the_first_of_each_is_found_among_more_digests_than_are_sorted_at_once() -> None:
    digests = np.random.default_rng(0).integers(0, 1_000_000, 2_500_000).astype(np.uint64)
    _, expected = np.unique(digests, return_index=True)
    assert np.flatnonzero(first_of_each(digests)).tolist() == np.sort(expected).tolist()


digest_lists = st.lists(st.integers(0, 5) | st.just(2**64 - 1))


@given(digest_lists, digest_lists)
def test_digests_are_found_among_others(some: list[int], others: list[int]) -> None:
    found = stand_in(np.array(some, np.uint64), np.array(others, np.uint64))
    assert found.tolist() == [digest in others for digest in some]


def test_the_order_of_columns_counts() -> None:
    rows = Dataset(pa.table({"text": ["a", "b"], "pair": ["b", "a"]}))
    first, second = digest_rows(rows, ["text", "pair"])
    assert first != second


def test_a_row_that_stands_twice_is_dropped_with_a_note(tmp_path: Path) -> None:
    train = {"text": ["x", "y", "x", "x", "z"], "label": [0, 1, 0, 1, 0]}
    splits = read(
        tmp_path, TEXTS, {}, train=train, validation={"text": ["v", "w"], "label": [0, 1]}
    )
    # "x" with the other label is another row: nobody knows which of them is wrong.
    assert splits.train[:] == {"text": ["x", "y", "x", "z"], "label": [0, 1, 1, 0]}
    assert splits.notes == (
        "train: 1 of 5 rows stand there twice, texts and label, and were dropped",
    )


def test_a_validation_split_is_taken_from_what_is_left(tmp_path: Path) -> None:
    train = {"text": ["x"] * 20 + list("abcdefghijklmnopqrst"), "label": [0] * 20 + [0, 1] * 10}
    splits = read(tmp_path, TEXTS, {}, train=train)
    texts = [*splits.train["text"][:], *splits.validation["text"][:]]
    assert sorted(texts) == sorted(set("x" + "abcdefghijklmnopqrst"))
    assert sorted(splits.validation["label"][:]) == [0, 1]


def test_texts_of_a_scored_split_that_stand_in_train_are_told(tmp_path: Path) -> None:
    rows = {"tokens": [["a", "b"], ["c"], ["d"]], "tags": [[0, 1], [0], [1]]}
    other = {"tokens": [["a", "b"], ["ab"]], "tags": [[1, 1], [0]]}
    splits = read(tmp_path, WORDS, {}, train=rows, validation=other, test=rows)
    assert splits.notes == (
        "validation: 1 of 2 rows have texts that stand in train too",
        "test: 3 of 3 rows have texts that stand in train too",
    )
    assert len(splits.test) == 3


def test_rows_that_all_differ_are_left_as_they_are() -> None:
    rows = Dataset(pa.table({"text": ["a", "b"], "label": [0, 0]}))
    assert drop_duplicates(rows) == (rows, None)
