"""Texts that stand twice in a data set, or in two splits of it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Bool, UInt64
from pandas import Series
from pandas.util import hash_array, hash_pandas_object

_ROWS_A_CALL = 10_000
_DIGESTS_A_SORT = 1_000_000


def digest_rows(rows: Dataset, columns: Sequence[str]) -> UInt64[np.ndarray, " rows"]:
    """Return 64 bits of each row: two rows of the same values have the same ones.

    Of 10 million different rows, two share theirs with a probability of 3 in a million.

    Args:
        rows: read in pieces, as they lie on disk.
        columns: what to look at.
    """
    digests = np.empty(len(rows), np.uint64)
    for start, piece in zip(range(0, len(rows), _ROWS_A_CALL), _pieces(rows, columns), strict=True):
        digests[start : start + len(piece)] = piece
    return digests


def _pieces(rows: Dataset, columns: Sequence[str]) -> Iterator[UInt64[np.ndarray, " piece"]]:
    for start in range(0, len(rows), _ROWS_A_CALL):
        yield _digest(rows.select(range(start, min(start + _ROWS_A_CALL, len(rows)))), columns)


def _digest(rows: Dataset, columns: Sequence[str]) -> UInt64[np.ndarray, " rows"]:
    digest = np.zeros(len(rows), np.uint64)
    for name in columns:
        column = rows.with_format("arrow")[name][:]
        if pa.types.is_large_string(column.type):  # a csv's, and no other text than a parquet's
            column = column.cast(pa.string())
        if not (pa.types.is_string(column.type) or pa.types.is_primitive(column.type)):
            column = pa.array([repr(value) for value in column.to_pylist()])
        values = hash_pandas_object(Series(column.to_pandas()), index=False).to_numpy()
        digest = hash_array(digest ^ values)  # hashed again, so that the order of columns counts
    return digest


def first_of_each(digests: UInt64[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Tell which rows are the first with their digest.

    Sorted are those with like remainders at a time, since a sort takes five times what it sorts.
    """
    first = np.zeros(len(digests), bool)
    parts = len(digests) // _DIGESTS_A_SORT + 1
    for part in range(parts):
        rows = np.flatnonzero(digests % parts == part)
        first[rows[np.unique(digests[rows], return_index=True)[1]]] = True
    return first


def stand_in(
    digests: UInt64[np.ndarray, " rows"], others: UInt64[np.ndarray, " others"]
) -> Bool[np.ndarray, " rows"]:
    """Tell which rows have a digest that is among others, which are few: np.isin would sort all."""
    if len(others) == 0:
        return np.zeros(len(digests), bool)
    known = np.unique(others)
    places = np.minimum(np.searchsorted(known, digests), len(known) - 1)
    return np.asarray(known[places] == digests)


def drop_duplicates(rows: Dataset) -> tuple[Dataset, str | None]:
    """Return the rows that stand for the first time, label and all, and a note if others went."""
    first = first_of_each(digest_rows(rows, rows.column_names))
    dropped = int((~first).sum())
    if not dropped:
        return rows, None
    note = (
        f"train: {dropped} of {len(rows)} rows stand there twice, texts and label, and were dropped"
    )
    return rows.select(np.flatnonzero(first)), note


def note_leaks(train: Dataset, others: Mapping[str, Dataset], columns: Sequence[str]) -> list[str]:
    """Say of which splits some texts stand in train too: scores on them are too good to be true.

    Args:
        train: what is learnt from.
        others: splits that are scored, by name.
        columns: of the texts.
    """
    scored = {name: digest_rows(rows, columns) for name, rows in others.items()}
    every = np.concatenate(list(scored.values()))
    learnt = [piece[stand_in(piece, every)] for piece in _pieces(train, columns)]
    notes = []
    for name, digests in scored.items():
        leaked = int(stand_in(digests, np.concatenate(learnt)).sum())
        if leaked:
            notes.append(
                f"{name}: {leaked} of {len(digests)} rows have texts that stand in train too"
            )
    return notes
