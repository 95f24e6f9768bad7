"""Read a data set and check every row of it, before anything is trained."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint
from jaxtyping import Shaped

from distill_core.columns import find_columns, labelled_splits, read_texts
from distill_core.config import DataSource
from distill_core.data_files import SPLITS, load_splits
from distill_core.duplicates import drop_duplicates, note_leaks
from distill_core.errors import DataError
from distill_core.heads import Head
from distill_core.labels import drop_unlabelled, has_no_labels, label_column, named_labels
from distill_core.unlabelled import read_unlabelled

VALIDATION_SHARE = 0.1
MOST_VALIDATION_ROWS = 5_000
"""A tenth of a large train split would only make every epoch's validation slow."""


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

    Rows without a class are left out, and those that stand twice in train. A missing validation
    split is taken from it: a tenth, at most 5,000 rows, in the shares of the classes.

    Args:
        source: folder or hub id, and the columns to read.
        head: knows the labels.
        seed: decides which rows become validation.

    Raises:
        ConfigError: a column that the head needs has no name, or the teacher no such class.
        DataError: a file, column, text or label is missing or wrong, or a split is empty or of
            one class.
        SourceUnreachable: the hub does not answer.
    """
    raw = load_splits(source)
    present = {name: raw[name].column_names for name in SPLITS if name in raw}
    labelled, said = labelled_splits(present, source.columns, head)
    splits: dict[str, Dataset | None] = {}
    notes = [*said]
    for name in present:
        splits[name], more = _check_split(raw[name], name, source, head, name in labelled)
        notes += more
    train, note = drop_duplicates(splits["train"])
    splits["train"] = train
    notes += [note] if note else []
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
) -> tuple[Dataset | None, list[str]]:
    """Return the head's columns of each row, by key, and what there is to say; None without labels."""
    where = f"{source.source}: {name}"
    named = source.columns.model_dump()
    keys = [key for key in head.text_columns if named[key] is not None]
    label_key = head.label_column if labelled else None
    rows = find_columns(rows, {key: named[key] for key in filter(None, (*keys, label_key))}, where)
    if len(rows) == 0:
        raise DataError(f"{where}: has no rows")
    notes: list[str] = []
    if label_key:
        if name == "test" and has_no_labels(rows, named[label_key]):
            return None, ["test has no labels, so it is not used"]
        rows, notes = drop_unlabelled(rows, named[label_key], name)
    table = {key: read_texts(rows, key, named[key], where) for key in keys}
    if label_key:
        labels = named_labels(rows, named[label_key], head, source.label_names)
        table[label_key] = label_column(labels, head, f"{where}: column {named[label_key]}")
    # Named here, as datasets would read and copy all rows for a digest of them.
    checked = Dataset(pa.table(table), fingerprint=generate_random_fingerprint())
    spoken = {key: ", ".join(n) if isinstance(n, tuple) else n for key, n in named.items()}
    head.check_rows(checked, spoken, where)
    return checked, notes


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
