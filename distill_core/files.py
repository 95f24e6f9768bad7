"""Digests of content, and folders that are whole or not there at all."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distill_core.errors import OutputError


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, the same whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def files_digest(paths: Iterable[Path], root: Path) -> str:
    """Return one SHA-256 over the names (relative to `root`) and contents of several files."""
    return value_digest({str(path.relative_to(root)): file_digest(path) for path in paths})


def write_json(path: Path, value: Any) -> None:
    """Write a JSON-able value so that a reader finds the old file or the whole new one."""
    with new_file(path) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a draft beside `path`; it takes the name `path` only if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft folder beside `path`; it takes the name `path` only if the block ends well.

    A folder that already stands at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        draft.chmod(0o755)
        yield draft
        replace_folder(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_folder(draft: Path, path: Path) -> None:
    """Give `draft` the name `path`; what stood there goes once the new folder is in place."""
    if not path.exists():
        draft.rename(path)
        return
    old = draft.with_name(f"{draft.name}.old")
    path.rename(old)
    draft.rename(path)
    shutil.rmtree(old)


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Keep a folder for this process alone, and clear away what a killed one left unfinished.

    Raises:
        OutputError: another process has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"{folder}: another run writes there; wait for it, or use --output"
        ) from None
    except OSError as error:
        if is_disk_full(error):
            raise
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    with lock:
        lock.release()  # once: entering took it a second time
        for draft in list(folder.rglob(".*.partial*")):  # also what replace_folder calls .old
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)
        yield


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, says that the disk is full.

    Not all of them are an OSError: safetensors, Arrow and sqlite have their own.
    """
    while error is not None:
        text = str(error).lower()
        if getattr(error, "errno", None) == errno.ENOSPC or any(
            sign in text for sign in _DISK_FULL
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


_DISK_FULL = ("no space left on device", "os error 28", "disk is full")


def copy_tree(source: Path, destination: Path) -> None:
    """Copy a folder into `destination`, which may exist, without following it anywhere else."""
    shutil.copytree(source, destination, dirs_exist_ok=True)


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
