"""Open data files and data sets of the hub, memory-mapped."""

import glob
import os
import re
from collections.abc import Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from pyarrow.dataset import ParquetFragmentScanOptions

from distill_core.config import DataSource
from distill_core.errors import DataError, SourceUnreachable
from distill_core.files import files_digest
from distill_core.pipeline_file import looks_like_path

SPLITS = ("train", "validation", "test")
_ALSO_CALLED = {"validation": ("valid", "val", "dev", "validation_matched")}
"""What other people call a split; the last is MNLI's, whose other one is of other sources than train."""
FORMATS = {
    # pyarrow would otherwise read the whole file ahead.
    "parquet": partial(
        Dataset.from_parquet,
        fragment_scan_options=ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True
        ),
    ),
    "jsonl": Dataset.from_json,
    # A text may well be "NA" or "null", which pandas would read as nothing at all.
    "csv": partial(Dataset.from_csv, keep_default_na=False),
    "txt": Dataset.from_text,
}
"""Not `load_dataset`, which reports each local file it reads to the hub's counters."""

_NO_SPACE = 28  # errno.ENOSPC, which datasets wraps in an error of its own


def data_fingerprint(source: DataSource) -> str:
    """Return the content of a data set as one digest: of its files, or its commit on the hub.

    Raises:
        DataError: the folder holds no train split, or the hub has no such data set.
        SourceUnreachable: the hub does not answer.
    """
    if is_folder(source):
        folder = Path(source.source)
        return files_digest(chain.from_iterable(split_files(folder).values()), folder)
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


def load_splits(source: DataSource) -> DatasetDict:
    """Open the splits of a folder or of a hub data set; train is among them.

    Raises:
        DataError: there is no such data set, or a file of it cannot be read.
        SourceUnreachable: the hub does not answer.
    """
    try:
        if is_folder(source):
            files = split_files(Path(source.source))
            return DatasetDict({name: _load_files(paths) for name, paths in files.items()})
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
    called = {name: [n for n in _names(name) if n in loaded] for name in SPLITS}
    return DatasetDict({name: loaded[names[0]] for name, names in called.items() if names})


def _names(split: str) -> tuple[str, ...]:
    return (split, *_ALSO_CALLED.get(split, ()))


def _not_found(source: DataSource) -> str:
    return (
        f"data.source: {source.source} is neither a folder here nor a data set on the hub; "
        "accepted: a folder with {train,validation,test}.{parquet,jsonl,csv}, or a hub id"
    )


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Find the files of each split in a folder: one, or all that the hub would make of it.

    Raises:
        DataError: no folder, no train split, a split in two formats, or one without some of its files.
    """
    if not folder.is_dir():
        raise DataError(f"data.source: {folder} is not a folder")
    there = sorted(folder.iterdir())
    files: dict[str, list[Path]] = {}
    for name in SPLITS:
        called = list(product(_names(name), FORMATS))
        found = [[path] for n, ending in called if (path := folder / f"{n}.{ending}").is_file()]
        found += filter(None, (_shards(there, n, ending) for n, ending in called))
        if len(found) > 1:
            both = " and ".join(paths[0].name for paths in found)
            raise DataError(f"data.source: {folder} holds {both}; keep one file a split")
        if found:
            files[name] = found[0]
    if "train" not in files:
        holds = ", ".join(path.name for path in there) or "nothing"
        raise DataError(
            f"data.source: {folder}: no train.parquet, train.jsonl or train.csv; the folder holds {holds}"
        )
    return files


def _shards(there: Sequence[Path], split: str, ending: str) -> list[Path]:
    """Return the files train-00000-of-00002.parquet and its like, as the hub names parts of a split."""
    named = re.compile(rf"{split}-\d+-of-(\d+)\.{ending}")
    counts = {path: int(m[1]) for path in there if (m := named.fullmatch(path.name))}
    shards = list(counts)
    if shards and set(counts.values()) != {len(shards)}:
        raise DataError(
            f"data.source: {shards[0].parent}: {', '.join(path.name for path in shards[:4])}"
            f"{' …' if len(shards) > 4 else ''}: {len(shards)} files are there; accepted: as many as each "
            "name says"
        )
    return shards


def _load_files(paths: Sequence[Path]) -> Dataset:
    parts = [load_file(path) for path in paths]
    try:
        return concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    except ValueError as error:
        raise DataError(f"{paths[0]} and what follows it: columns are unlike: {error}") from None


def load_file(path: Path) -> Dataset:
    """Open a file in the format that its name ends with.

    Raises:
        DataError: it is empty, or of another format.
    """
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
