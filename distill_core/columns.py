"""Which columns of a data set a head reads, and the texts in them."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

from distill_core.config import Columns
from distill_core.errors import ConfigError, DataError
from distill_core.heads import Head

_HOLDS = {"tokens": "lists of words", "choices": "lists of texts"}
"""Table: column → what it holds, if not text."""


def labelled_splits(
    present: Mapping[str, Sequence[str]], columns: Columns, head: Head
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the splits whose labels are read, and what there is to say of that.

    Where a head can do without labels, a column by its default name is read if every split that is
    scored has it; one that the pipeline file names must be there; null reads none. Rows to train on
    need none beside a validation split.

    Args:
        present: the columns of each split.
        columns: of the pipeline file.
        head: knows what it needs.

    Raises:
        ConfigError: a column that the head needs has no name.
    """
    if head.needs_pair and columns.pair is None:
        raise ConfigError(
            f"data.columns.pair: {head.name} is scored on pairs of texts; accepted: the name of the column "
            "with the second text"
        )
    if head.label_column is None:
        return frozenset(), ()
    column: str | None = getattr(columns, head.label_column)
    if head.without_labels is None:
        if column is None:
            raise ConfigError(
                f"data.columns.{head.label_column}: null, and {head.name} needs labels; accepted: the name "
                "of their column"
            )
        return frozenset(present), ()
    return _optional(present, column, head)


def _optional(
    present: Mapping[str, Sequence[str]], column: str | None, head: Head
) -> tuple[frozenset[str], tuple[str, ...]]:
    if column is None:
        return frozenset(), ()
    scored = set(present) - {"train"} if "validation" in present else set(present)
    by_default = column == Columns().label
    if by_default and not all(column in present[name] for name in scored):
        return frozenset(), (f"no column {column!r}: {head.without_labels}",)
    labelled = scored | {name for name, names in present.items() if column in names}
    note = f"the labels are in column {column!r}; data.columns.label: null does without them"
    return frozenset(labelled), (note,) if by_default else ()


def find_columns(rows: Dataset, columns: Mapping[str, str | Sequence[str]], where: str) -> Dataset:
    """Return rows in which all columns are there by their names, those within another one included.

    Args:
        rows: of one split.
        columns: key of the pipeline file → its column, or several.
        where: the split, for the message.

    Raises:
        DataError: a column is not there.
    """
    named = {name: key for key, names in columns.items() for name in _several(names)}
    if not named.keys() <= set(rows.column_names):
        rows = rows.flatten()
    for name, key in named.items():
        if name not in rows.column_names:
            raise DataError(_missing_column(where, key, name, rows.column_names))
    return rows


def read_texts(rows: Dataset, key: str, names: str | Sequence[str], where: str) -> pa.ChunkedArray:
    """Return the texts of each row, or its lists of texts, and check that none is missing.

    Args:
        rows: of one split.
        key: of the pipeline file, such as "text", which tells what the column holds.
        names: of the column, or of those that make one of lists together.
        where: the split, for the message.

    Raises:
        DataError: the column holds something else, or nothing in some row.
    """
    if isinstance(names, str):
        column = rows.data.column(names)
        _check_texts(column, f"{where}: column {names}", _HOLDS.get(key, "text"))
        return column
    for name in names:
        _check_texts(rows.data.column(name), f"{where}: column {name}", "text")
    together = rows.data.select(list(names)).to_batches()
    return pa.chunked_array([_side_by_side(batch) for batch in together])


def _several(names: str | Sequence[str]) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names


def _check_texts(texts: pa.ChunkedArray, where: str, wanted: str) -> None:
    """Check that a column holds texts, or lists of them, and none is missing."""
    kind, several = texts.type, wanted != "text"
    if several and not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{where}: holds {kind}, not {wanted}")
    inner = kind.value_type if several else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise DataError(f"{where}: holds {kind}, not {wanted}")
    if texts.null_count:
        first = next(row for row, text in enumerate(texts) if not text.is_valid)
        raise DataError(
            f"{where}: row {first} is empty, as are {texts.null_count} in all; drop or fill them"
        )


def _side_by_side(columns: pa.RecordBatch) -> pa.ListArray:
    """Return what stands in the columns of each row as one list."""
    rows, count = columns.num_rows, columns.num_columns
    row_by_row = np.arange(rows * count).reshape(count, rows).T.ravel()
    values = pa.concat_arrays(columns.columns).take(pa.array(row_by_row))
    return pa.ListArray.from_arrays(
        pa.array(np.arange(0, rows * count + 1, count), pa.int32()), values
    )


def _missing_column(where: str, key: str, column: str, present: Sequence[str]) -> str:
    """Say that a column is not there, and which of those that are might be meant."""
    near = difflib.get_close_matches(column, present, n=1, cutoff=0.4)
    hint = (
        f"set data.columns.{key}: {near[0]}" if near else f"set data.columns.{key} to one of them"
    )
    return f"{where}: no column {column!r}; there are {', '.join(present)}: {hint}"
