"""Read a data set and check every row of it, before anything is trained."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, List
from datasets.fingerprint import generate_random_fingerprint
from jaxtyping import Shaped

from distill_core.columns import labelled_splits, missing_column
from distill_core.config import DataSource
from distill_core.data_files import SPLITS, load_splits
from distill_core.duplicates import drop_duplicates, note_leaks
from distill_core.errors import DataError
from distill_core.heads import Head
from distill_core.unlabelled import read_unlabelled

VALIDATION_SHARE = 0.1
MOST_VALIDATION_ROWS = 5_000
"""A tenth of a large train split would only make every epoch's validation slow."""

_LABELS_A_PIECE = 100_000


_HOLDS = {"tokens": "lists of words", "choices": "lists of texts"}
"""Table: column → what it holds, if not text."""


@dataclass(frozen=True)
class Splits:
    """Checked rows: the head's columns by key, labels as numbers."""

    train: Dataset
    validation: Dataset
    test: Dataset | None
    unlabelled: Dataset | None = None
    """More texts, on which only the teacher speaks."""
    notes: tuple[str, ...] = ()
    """What was done that the user did not ask for by name."""

    @property
    def evaluation(self) -> str:
        """The split that scores are reported on: test, which nothing was chosen on, if there is one."""
        return "validation" if self.test is None else "test"

    def named(self) -> dict[str, Dataset]:
        """Return the splits that there are, by name."""
        splits = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "unlabelled": self.unlabelled,
        }
        return {name: rows for name, rows in splits.items() if rows is not None}


def read_dataset(source: DataSource, head: Head, seed: int) -> Splits:
    """Read all splits, memory-mapped, and check every row.

    Rows that stand twice in train are dropped. A missing validation split is taken from it: a
    tenth, at most 5,000 rows, in the shares of the classes.

    Args:
        source: folder or hub id, and the columns to read.
        head: knows the labels.
        seed: decides which rows become validation.

    Raises:
        ConfigError: a column that the head needs has no name.
        DataError: a file, column, text or label is missing or wrong, or a split is empty or of
            one class.
        SourceUnreachable: the hub does not answer.
    """
    raw = load_splits(source)
    present = {name: raw[name].column_names for name in SPLITS if name in raw}
    labelled, said = labelled_splits(present, source.columns, head)
    splits = {
        name: _check_split(raw[name], name, source, head, name in labelled) for name in present
    }
    train, note = drop_duplicates(splits["train"])
    splits["train"], notes = train, [*said, *([note] if note else [])]
    if "test" in raw and splits["test"] is None:
        notes.append("test has no labels (all -1), so it is not used")
    if "validation" not in splits:
        held_out, note = _split_off_validation(splits["train"], seed)
        splits.update(held_out)
        notes.append(note)
    scored = {name: rows for name, rows in splits.items() if name != "train" and rows is not None}
    texts = [key for key in head.text_columns if key in train.column_names]
    notes += note_leaks(splits["train"], scored, texts)
    unlabelled, more_notes = read_unlabelled(source, scored.values(), texts)
    return Splits(
        splits["train"],
        splits["validation"],
        splits.get("test"),
        unlabelled,
        (*notes, *more_notes),
    )


def _check_split(
    rows: Dataset, name: str, source: DataSource, head: Head, labelled: bool
) -> Dataset | None:
    """Return the head's columns of each row, by key, or None for a test split without labels."""
    where = f"{source.source}: {name}"
    named = source.columns.model_dump()
    keys = [key for key in head.text_columns if named[key] is not None]
    label_key = head.label_column if labelled else None
    for key in filter(None, (*keys, label_key)):
        if named[key] not in rows.column_names:
            raise DataError(missing_column(where, key, named[key], rows.column_names))
    if len(rows) == 0:
        raise DataError(f"{where}: has no rows")
    labels = _NamedLabels(rows, named[label_key], head) if label_key else ()
    if name == "test" and labels and all(label == -1 for label in labels):
        return None
    table = {}
    for key in keys:
        table[key] = rows.data.column(named[key])
        _check_texts(table[key], f"{where}: column {named[key]}", _HOLDS.get(key, "text"))
    if label_key:
        numbers = head.read_labels(labels, f"{where}: column {named[label_key]}")
        table[label_key] = pa.array(numbers) if head.label_type is None else _mapped(numbers, head)
    # Named here, as datasets would read and copy all rows for a digest of them.
    checked = Dataset(pa.table(table), fingerprint=generate_random_fingerprint())
    head.check_rows(checked, named, where)
    return checked


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


def _mapped(labels: Iterable[Any], head: Head) -> pa.ChunkedArray:
    """Return labels as a column of a file that is mapped into memory, and has no name any more."""
    schema = pa.schema({"labels": head.label_type})
    rest = iter(labels)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = str(Path(folder) / "labels.arrow")
        with pa.ipc.new_stream(path, schema) as writer:
            while piece := list(islice(rest, _LABELS_A_PIECE)):
                writer.write(pa.record_batch([pa.array(piece, head.label_type)], schema))
        return pa.ipc.open_stream(pa.memory_map(path)).read_all()["labels"]


class _NamedLabels(Collection[Any]):
    """Labels as they stand, read piece by piece; a ClassLabel's numbers become names, since the
    teacher may number its classes in another order. Where either side has no names but numbers,
    the numbers hold."""

    def __init__(self, rows: Dataset, column: str, head: Head) -> None:
        self._column = rows.data.column(column)
        feature = rows.features[column]
        self._several = isinstance(feature, List)
        feature = feature.feature if self._several else feature
        named = isinstance(feature, ClassLabel) and not _nameless(feature.names)
        self._names = feature.names if named and not _nameless(head.labels) else None

    def __len__(self) -> int:
        return len(self._column)

    def __contains__(self, label: object) -> bool:
        return any(label == other for other in self)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _LABELS_A_PIECE):
            for value in self._column.slice(start, _LABELS_A_PIECE).to_pylist():
                yield (
                    [self._name(one) for one in value or ()] if self._several else self._name(value)
                )

    def _name(self, value: Any) -> Any:
        return value if self._names is None or value is None or value < 0 else self._names[value]


def _nameless(names: Sequence[str]) -> bool:
    """Tell whether classes have no names but their numbers, or transformers' LABEL_0, LABEL_1, …"""
    return all(name.removeprefix("LABEL_").isdigit() for name in names)


def _split_off_validation(train: Dataset, seed: int) -> tuple[dict[str, Dataset], str]:
    from sklearn.model_selection import train_test_split

    classes = _classes(train)
    least = 1 if classes is None else len(np.unique(classes))  # one row of each class
    size = min(max(int(len(train) * VALIDATION_SHARE), least), MOST_VALIDATION_ROWS)
    try:
        kept, held_out = train_test_split(
            np.arange(len(train)), test_size=size, random_state=seed, stratify=classes
        )
    except ValueError as error:
        raise DataError(
            f"no validation split, and none can be taken from {len(train)} train rows: {error}"
        ) from None
    note = f"no validation split: {size} of {len(train)} train rows were held out with seed {seed}"
    return {
        "train": train.select(np.sort(kept)),
        "validation": train.select(np.sort(held_out)),
    }, note


def _classes(rows: Dataset) -> Shaped[np.ndarray, " rows"] | None:
    """Return the class of each row, if it has one."""
    if "label" not in rows.column_names or not pa.types.is_integer(
        rows.data.schema.field("label").type
    ):
        return None
    # Not of `data`, which has rows that were dropped, too.
    return np.asarray(rows.with_format("numpy")["label"][:])
