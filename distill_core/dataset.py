"""Read a data set and check every row of it, before anything is trained."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, List, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from distill_core.columns import labelled_splits, missing_column
from distill_core.config import DataSource
from distill_core.errors import DataError, SourceUnreachable
from distill_core.files import files_digest
from distill_core.heads import Head
from distill_core.pipeline_file import looks_like_path

SPLITS = ("train", "validation", "test")
FORMATS = {
    "parquet": Dataset.from_parquet,
    "jsonl": Dataset.from_json,
    # A text may well be "NA" or "null", which pandas would read as nothing at all.
    "csv": partial(Dataset.from_csv, keep_default_na=False),
}
"""Not `load_dataset`, which reports each local file it reads to the hub's counters."""

VALIDATION_SHARE = 0.1
MOST_VALIDATION_ROWS = 5_000
"""A tenth of a large train split would only make every epoch's validation slow."""

_NO_SPACE = 28  # errno.ENOSPC, which datasets wraps in an error of its own


@dataclass(frozen=True)
class Splits:
    """Checked rows: the head's columns by key, labels as numbers."""

    train: Dataset
    validation: Dataset
    test: Dataset | None
    notes: tuple[str, ...] = ()
    """What was done that the user did not ask for by name."""

    @property
    def evaluation(self) -> str:
        """The split that scores are reported on: test, which nothing was chosen on, if there is one."""
        return "validation" if self.test is None else "test"

    def named(self) -> dict[str, Dataset]:
        """Return the splits that there are, by name."""
        splits = {"train": self.train, "validation": self.validation}
        return splits if self.test is None else {**splits, "test": self.test}


def data_fingerprint(source: DataSource) -> str:
    """Return the content of a data set as one digest: of its files, or its commit on the hub.

    Raises:
        DataError: the folder holds no train split, or the hub has no such data set.
        SourceUnreachable: the hub does not answer.
    """
    if is_folder(source):
        folder = Path(source.source)
        return files_digest(_split_files(folder).values(), folder)
    try:
        return str(HfApi().dataset_info(source.source).sha)
    except RepositoryNotFoundError:
        raise DataError(_not_found(source)) from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise SourceUnreachable(
            f"data.source: {source.source}: the hub did not answer, and no such folder is here: {error}"
        ) from None


def is_folder(source: DataSource) -> bool:
    """Tell a folder from a hub id."""
    return Path(source.source).exists() or looks_like_path(source.source)


def read_dataset(source: DataSource, head: Head, seed: int) -> Splits:
    """Read all splits, memory-mapped, and check every row.

    A missing validation split is taken from train: a tenth, at most 5,000 rows, in the shares of
    the classes.

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
    raw = _load(source)
    present = {name: raw[name].column_names for name in SPLITS if name in raw}
    labelled, said = labelled_splits(present, source.columns, head)
    splits = {
        name: _check_split(raw[name], name, source, head, name in labelled) for name in present
    }
    notes = [*said]
    if "test" in raw and splits["test"] is None:
        notes.append("test has no labels (all -1), so it is not used")
    if "validation" not in splits:
        held_out, note = _split_off_validation(splits["train"], seed)
        splits.update(held_out)
        notes.append(note)
    return Splits(splits["train"], splits["validation"], splits.get("test"), tuple(notes))


def _load(source: DataSource) -> DatasetDict:
    try:
        if is_folder(source):
            files = _split_files(Path(source.source))
            return DatasetDict({name: _load_file(path) for name, path in files.items()})
        # Asked first: datasets would try a hub that is down for half a minute, and say so six times.
        commit = data_fingerprint(source)
        loaded = load_dataset(source.source, source.config, revision=commit)
    except DatasetNotFoundError:
        raise DataError(_not_found(source)) from None
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        if getattr(cause, "errno", None) == _NO_SPACE:
            raise OSError(_NO_SPACE, os.strerror(_NO_SPACE), str(source.source)) from error
        raise DataError(f"data.source: {source.source}: cannot be read: {cause}") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise SourceUnreachable(
            f"data.source: {source.source}: the hub did not answer: {error}"
        ) from None
    except ValueError as error:  # an unknown configuration, among others
        raise DataError(f"data.source: {source.source}: {error}") from None
    if "train" not in loaded:
        raise DataError(
            f"data.source: {source.source} has the splits {', '.join(loaded)}, no train"
        )
    return loaded


def _not_found(source: DataSource) -> str:
    return (
        f"data.source: {source.source} is neither a folder here nor a data set on the hub; "
        "accepted: a folder with {train,validation,test}.{parquet,jsonl,csv}, or a hub id"
    )


def _split_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"data.source: {folder} is not a folder")
    files: dict[str, Path] = {}
    for name in SPLITS:
        found = [path for ending in FORMATS if (path := folder / f"{name}.{ending}").is_file()]
        if len(found) > 1:
            both = " and ".join(path.name for path in found)
            raise DataError(f"data.source: {folder} holds {both}; keep one file a split")
        if found:
            files[name] = found[0]
    if "train" not in files:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(
            f"data.source: {folder}: no train.parquet, train.jsonl or train.csv; the folder holds {there}"
        )
    return files


def _load_file(path: Path) -> Dataset:
    ending = path.suffix.removeprefix(".")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    pattern = glob.escape(str(path))  # datasets looks for what matches, even a single file
    try:
        return FORMATS[ending](pattern)
    except (DatasetGenerationError, ValueError) as error:
        cause = error.__cause__ or error
        if getattr(cause, "errno", None) == _NO_SPACE:
            raise
        raise DataError(f"{path}: has no rows, or is not {ending}: {cause}") from None


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
    labels = _named_labels(rows, named[label_key], head) if label_key else []
    if name == "test" and labels and all(label == -1 for label in labels):
        return None
    table = {}
    for key in keys:
        table[key] = rows.data.column(named[key])
        _check_texts(table[key], f"{where}: column {named[key]}", words=key == "tokens")
    if label_key:
        numbers = head.read_labels(labels, f"{where}: column {named[label_key]}")
        table[label_key] = pa.array(list(numbers))
    checked = Dataset(pa.table(table))
    if "tokens" in table:
        _check_lengths(checked, where, source)
    return checked


def _check_texts(texts: pa.ChunkedArray, where: str, words: bool) -> None:
    """Check that a column holds texts, or lists of words, and none is missing."""
    kind = texts.type
    if words and not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{where}: holds {kind}, not lists of words")
    inner = kind.value_type if words else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise DataError(f"{where}: holds {kind}, not {'lists of words' if words else 'text'}")
    if texts.null_count:
        first = next(row for row, text in enumerate(texts) if not text.is_valid)
        raise DataError(
            f"{where}: row {first} is empty, as are {texts.null_count} in all; drop or fill them"
        )


def _check_lengths(rows: Dataset, where: str, source: DataSource) -> None:
    for number, (words, tags) in enumerate(zip(rows["tokens"], rows["tags"], strict=True)):
        if len(words) != len(tags) or not words:
            columns = source.columns
            raise DataError(
                f"{where}: row {number} has {len(words)} words in {columns.tokens} and {len(tags)} in "
                f"{columns.tags}; accepted: as many, and at least one"
            )


def _named_labels(rows: Dataset, column: str, head: Head) -> list[Any]:
    """Return labels as they stand; a ClassLabel's numbers become names, since the teacher may number
    its classes in another order. Where either side has no names but numbers, the numbers hold."""
    feature = rows.features[column]
    values: list[Any] = rows.data.column(column).to_pylist()
    several = isinstance(feature, List)
    feature = feature.feature if several else feature
    if not isinstance(feature, ClassLabel) or _nameless(feature.names) or _nameless(head.labels):
        return values

    def name_of(value: int | None) -> Any:
        return value if value is None or value < 0 else feature.int2str(value)

    return [
        [name_of(one) for one in value or ()] if several else name_of(value) for value in values
    ]


def _nameless(names: Sequence[str]) -> bool:
    """Tell whether classes have no names but their numbers, or transformers' LABEL_0, LABEL_1, …"""
    return all(name.removeprefix("LABEL_").isdigit() for name in names)


def _split_off_validation(train: Dataset, seed: int) -> tuple[dict[str, Dataset], str]:
    from sklearn.model_selection import train_test_split

    classes = _classes(train)
    least = 1 if classes is None else len(set(classes))  # one row of each class
    size = min(max(int(len(train) * VALIDATION_SHARE), least), MOST_VALIDATION_ROWS)
    try:
        kept, held_out = train_test_split(
            range(len(train)), test_size=size, random_state=seed, stratify=classes
        )
    except ValueError as error:
        raise DataError(
            f"no validation split, and none can be taken from {len(train)} train rows: {error}"
        ) from None
    note = f"no validation split: {size} of {len(train)} train rows were held out with seed {seed}"
    return {
        "train": train.select(sorted(kept)),
        "validation": train.select(sorted(held_out)),
    }, note


def _classes(rows: Dataset) -> list[int] | None:
    """Return the class of each row, if it has one."""
    if "label" not in rows.column_names or not pa.types.is_integer(
        rows.data.schema.field("label").type
    ):
        return None
    classes: list[int] = rows.data.column("label").to_pylist()
    return classes
