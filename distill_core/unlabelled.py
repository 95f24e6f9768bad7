"""More text of any kind, which nobody has labelled: the teacher alone says what is right on it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Bool, UInt64

from distill_core.config import DataSource
from distill_core.data_files import FORMATS, data_fingerprint, load_file, load_splits
from distill_core.duplicates import digest_rows, first_of_each, stand_in
from distill_core.errors import DataError, SourceUnreachable
from distill_core.files import file_digest
from distill_core.heads import Head

FEW_ROWS = 30_000
"""Under which rows are read often enough to be learnt by heart. With dropout, CLINC150 (15,000 rows) came to
0.931 on validation and WNUT-17 (3,303) to F1 0.503; without, to 0.928 and 0.498. SST-2 (67,000) was learnt
better without: KL from the teacher 0.045, with it 0.053."""

AUTOMATIC_COPIES = 2
"""Students of CLINC150's teacher kept 0.996 of its accuracy on test with them, 0.985 without, and 0.992 with
three more epochs in their place; one seed. Of all 67,000 rows of SST-2 a copy changed nothing."""

_TEXTS_A_CALL = 10_000

T = TypeVar("T")


def count_copies(augment: int | Literal["auto"], head: Head, rows: int) -> int:
    """Return how many copies of each training text are made, with some words replaced.

    Args:
        augment: of the pipeline file.
        head: may not read plain text.
        rows: of train.
    """
    if augment == "auto":
        return AUTOMATIC_COPIES if head.reads_plain_text and rows < FEW_ROWS else 0
    return augment


def note_copies(augment: int | Literal["auto"], copies: int) -> list[str]:
    """Say that there are copies, if nobody asked for them by number."""
    if augment != "auto" or not copies:
        return []
    return [
        f"train: {copies} {'copies' if copies > 1 else 'copy'} of each text, with some words "
        "replaced, on which only the teacher speaks; data.augment: 0 makes none"
    ]


def unlabelled_fingerprint(source: DataSource) -> str | None:
    """Return the content of the unlabelled text as one digest, or None where there is none.

    Raises:
        DataError: there is no such file or data set.
        SourceUnreachable: the hub does not answer.
    """
    if source.unlabelled is None:
        return None
    path = Path(source.unlabelled)
    if path.is_file():
        return file_digest(path)
    return _elsewhere(lambda: data_fingerprint(DataSource(source=str(path))))


def read_unlabelled(
    source: DataSource, scored: Iterable[Dataset], text_columns: Sequence[str]
) -> tuple[Dataset | None, list[str]]:
    """Return one column, `text`, and notes on what was left out of it.

    Texts that are empty, stand twice, or stand in a split that is scored, if as words, are left out.

    Args:
        source: names a file of FORMATS, a folder with a train file, or a hub data set, if anything.
        scored: splits that nothing may be learnt of.
        text_columns: of these splits.

    Raises:
        DataError: there is no such file, or no column of texts in it.
        SourceUnreachable: the hub does not answer.
    """
    if source.unlabelled is None:
        return None, []
    rows = _texts(_open(source), source)
    digests = digest_rows(rows, ["text"])
    kept = _filled(rows)
    kept[kept] = first_of_each(digests[kept])
    for split in scored:
        for column in text_columns:
            kept &= ~_scored(rows, digests, split.select_columns(column))
    if not kept.any():
        raise DataError(f"data.unlabelled: {source.unlabelled}: no text is left of {len(rows)}")
    if kept.all():
        return rows, []
    note = (
        f"unlabelled: {int((~kept).sum())} of {len(rows)} texts are empty, stand there twice or are "
        "scored, and were left out"
    )
    return rows.select(np.flatnonzero(kept)), [note]


def _scored(
    rows: Dataset, digests: UInt64[np.ndarray, " rows"], scored: Dataset
) -> Bool[np.ndarray, " rows"]:
    """Tell which texts stand in a column that is scored; of words, whatever space is between them."""
    column = scored.with_format("arrow")[scored.column_names[0]][:]
    if not pa.types.is_list(column.type):
        return stand_in(digests, digest_rows(scored, scored.column_names))
    words = _digest_texts(pc.binary_join(column, ""))
    pieces = (
        rows.select(range(start, min(start + _TEXTS_A_CALL, len(rows))))
        for start in range(0, len(rows), _TEXTS_A_CALL)
    )
    texts = (piece.with_format("arrow")["text"][:] for piece in pieces)
    packed = (pc.replace_substring_regex(piece, r"\s", "") for piece in texts)
    return np.concatenate([stand_in(_digest_texts(piece), words) for piece in packed])


def _digest_texts(texts: pa.ChunkedArray) -> UInt64[np.ndarray, " texts"]:
    return digest_rows(Dataset(pa.table({"text": texts})), ["text"])


def _elsewhere(load: Callable[[], T]) -> T:
    """Open a folder or a hub data set; what is said of it names the key that the user wrote."""
    try:
        return load()
    except (DataError, SourceUnreachable) as error:
        raise type(error)(str(error).replace("data.source", "data.unlabelled", 1)) from None


def _open(source: DataSource) -> Dataset:
    path = Path(str(source.unlabelled))
    if not path.is_file():
        return _elsewhere(lambda: load_splits(DataSource(source=str(path)))["train"])
    if path.suffix.removeprefix(".") not in FORMATS:
        raise DataError(
            f"data.unlabelled: {path} ends with {path.suffix!r}; accepted: .{', .'.join(FORMATS)}"
        )
    return load_file(path)


def _texts(rows: Dataset, source: DataSource) -> Dataset:
    """Return the column that holds the texts, as `text`."""
    texts = [
        field.name
        for field in rows.data.schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    named = source.columns.text
    if named not in texts and len(texts) != 1:
        raise DataError(
            f"data.unlabelled: {source.unlabelled} has the columns of text {', '.join(texts) or 'none'}; "
            f"accepted: {named}, as in data.columns.text, or a single one"
        )
    column = named if named in texts else texts[0]
    return rows.select_columns(column).rename_columns({column: "text"})


def _filled(rows: Dataset) -> Bool[np.ndarray, " rows"]:
    pieces = [
        [bool(text) and not text.isspace() for text in batch["text"]]
        for batch in rows.iter(batch_size=10_000)
    ]
    return np.concatenate([np.asarray(piece, dtype=bool) for piece in pieces])
