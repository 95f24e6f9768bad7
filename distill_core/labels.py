"""Labels as they stand in a data set: by number or name, or missing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List
from datasets.fingerprint import generate_random_fingerprint

from distill_core.errors import ConfigError
from distill_core.heads import Head

_LABELS_A_PIECE = 100_000


def has_no_labels(rows: Dataset, column: str) -> bool:
    """Tell whether a split has no label at all: -1, an empty text or nothing in every row."""
    labels = rows.data.column(column)
    missing = pc.is_null(labels)
    if pa.types.is_integer(labels.type) or pa.types.is_floating(labels.type):
        missing = pc.or_kleene(missing, pc.equal(labels, -1))
    elif pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        missing = pc.or_kleene(missing, pc.equal(labels, ""))
    return bool(pc.all(missing).as_py())


def drop_unlabelled(rows: Dataset, column: str, split: str) -> tuple[Dataset, list[str]]:
    """Leave out rows whose class is -1, which is how data sets of the hub say that they have none.

    Args:
        rows: of one split.
        column: of their labels; -1 means nothing of the kind where it does not hold a ClassLabel.
        split: its name, for the note.
    """
    labels = rows.data.column(column)
    if not isinstance(rows.features[column], ClassLabel):
        return rows, []
    labelled = pc.fill_null(pc.not_equal(labels, -1), True)
    kept = pc.sum(labelled).as_py()
    if kept in (0, len(rows)):
        return rows, []
    left = Dataset(
        rows.data.filter(labelled), info=rows.info, fingerprint=generate_random_fingerprint()
    )
    return left, [
        f"{split}: {len(rows) - kept} of {len(rows)} rows have no label (-1), and were left out"
    ]


def named_labels(
    rows: Dataset, column: str, head: Head, renamed: Mapping[str, str]
) -> Collection[Any]:
    """Return labels as they stand, read piece by piece; a ClassLabel's numbers become names.

    The teacher may number its classes in another order. Where either side has no names but numbers, the
    numbers hold.

    Args:
        rows: of one split.
        column: of their labels.
        head: knows the teacher's classes.
        renamed: name in the data set → the teacher's name.

    Raises:
        ConfigError: the teacher has no such class.
    """
    for name, theirs in renamed.items():
        if theirs not in head.labels:
            raise ConfigError(
                f"data.label_names.{name}: {theirs!r} is no class of the teacher; accepted: "
                f"{', '.join(head.labels) or f'none, as {head.name} has no classes'}"
            )
    feature = rows.features[column]
    several = isinstance(feature, List)
    feature = feature.feature if several else feature
    named = isinstance(feature, ClassLabel) and not _nameless(feature.names)
    by_name = renamed or not _nameless(head.labels)
    names = feature.names if named and by_name else None
    return _NamedLabels(rows.data.column(column), several, names, renamed)


def label_column(labels: Collection[Any], head: Head, where: str) -> pa.Array | pa.ChunkedArray:
    """Check labels, and return them as a column.

    Those of one number a row are held in memory. Others lie in a file that is mapped into memory and has
    no name any more.

    Args:
        labels: as `named_labels` returns them.
        head: knows what they should be.
        where: file and column, for the message.

    Raises:
        DataError: a label is not what the head needs.
    """
    numbers = head.read_labels(labels, where)
    if head.label_type is None:
        return pa.array(numbers)
    schema = pa.schema({"labels": head.label_type})
    rest = iter(numbers)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = str(Path(folder) / "labels.arrow")
        with pa.ipc.new_stream(path, schema) as writer:
            while piece := list(islice(rest, _LABELS_A_PIECE)):
                writer.write(pa.record_batch([pa.array(piece, head.label_type)], schema))
        return pa.ipc.open_stream(pa.memory_map(path)).read_all()["labels"]


@dataclass(frozen=True)
class _NamedLabels(Collection[Any]):
    column: pa.ChunkedArray
    several: bool
    """Whether each row has a list of them."""
    names: Sequence[str] | None
    """Of the numbers, if they are to be read as names."""
    renamed: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.column)

    def __contains__(self, label: object) -> bool:
        return any(label == other for other in self)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _LABELS_A_PIECE):
            for value in self.column.slice(start, _LABELS_A_PIECE).to_pylist():
                yield (
                    [self._name(one) for one in value or ()] if self.several else self._name(value)
                )

    def _name(self, value: Any) -> Any:
        if self.names is not None and value is not None and value >= 0:
            value = self.names[value]
        return self.renamed.get(value, value) if isinstance(value, str) else value


def _nameless(names: Sequence[str]) -> bool:
    """Tell whether classes have no names but their numbers, or transformers' LABEL_0, LABEL_1, …"""
    return all(name.removeprefix("LABEL_").isdigit() for name in names)
