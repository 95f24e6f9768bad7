"""Which columns of a data set a head reads."""

import difflib
from collections.abc import Mapping, Sequence

from distill_core.config import Columns
from distill_core.errors import ConfigError
from distill_core.heads import Head


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


def missing_column(where: str, key: str, column: str, present: Sequence[str]) -> str:
    """Say that a column is not there, and which of those that are might be meant."""
    near = difflib.get_close_matches(column, present, n=1, cutoff=0.4)
    hint = (
        f"set data.columns.{key}: {near[0]}" if near else f"set data.columns.{key} to one of them"
    )
    return f"{where}: no column {column!r}; there are {', '.join(present)}: {hint}"
