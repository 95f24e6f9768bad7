"""Texts that stand twice in a data set, or in two splits of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Bool, UInt64
from pandas import Series
from pandas.util import hash_array, hash_pandas_object

_ROWS_A_CALL = 100_000


def digest_rows(rows: Dataset, columns: Sequence[str]) -> UInt64[np.ndarray, " rows"]:
    """Return 64 bits of each row: two rows of the same values have the same ones.

    Of 10 million different rows, two share theirs with a probability of 3 in a million.

    Args:
        rows: read in pieces, as they lie on disk.
        columns: what to look at.
    """
    pieces = [
        _digest(rows.select(range(start, min(start + _ROWS_A_CALL, len(rows)))), columns)
        for start in range(0, len(rows), _ROWS_A_CALL)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint64)


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
    """Tell which rows are the first with their digest."""
    first = np.zeros(len(digests), bool)
    first[np.unique(digests, return_index=True)[1]] = True
    return first


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
    known = digest_rows(train, columns)
    notes = []
    for name, rows in others.items():
        leaked = int(np.isin(digest_rows(rows, columns), known).sum())
        if leaked:
            notes.append(f"{name}: {leaked} of {len(rows)} rows have texts that stand in train too")
    return notes
