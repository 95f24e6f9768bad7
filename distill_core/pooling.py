"""How sentence-transformers says, beside an encoder, what becomes of its tokens' vectors."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from distill_core.errors import TeacherError

Pooling = Literal["mean", "cls"]
"""The mean of the vectors of all tokens but padding, or the vector of the first."""

FILES = ("modules.json", "1_Pooling/config.json")

_MODULES = ("Transformer", "Pooling", "Normalize")
_UNKNOWN = "is not what sentence-transformers saves; fetch it again"
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


def read_pooling(folder: Path) -> Pooling | None:
    """Return how a folder of sentence-transformers pools; None where it is no such folder.

    Raises:
        TeacherError: vectors are made in a way that is not supported, or the files cannot be read.
    """
    listing = folder / FILES[0]
    if not listing.exists():
        return None
    kinds = [_kind(module, listing) for module in _read(listing, list)]
    if "Pooling" not in kinds:
        return None
    for kind in kinds:
        if kind not in _MODULES:
            raise TeacherError(
                f"{listing}: vectors pass through {kind}, which the student would lose; accepted: "
                f"{', '.join(_MODULES)}"
            )
    return _pooling_of(folder / FILES[1])


def copy_pooling(source: Path, destination: Path) -> None:
    """Copy the files from one model folder to another, if they are there."""
    for name in FILES:
        if (source / name).is_file():
            (destination / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, destination / name)


def _pooling_of(path: Path) -> Pooling:
    settings = _read(path, dict)
    chosen = [name for name, value in settings.items() if name.startswith("pooling_mode") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise TeacherError(
            f"{path}: pools by {' and '.join(chosen) or 'nothing'}; accepted: one of "
            f"{', '.join(_POOLINGS)}"
        )
    return _POOLINGS[chosen[0]]


def _kind(module: Any, listing: Path) -> str:
    if not isinstance(module, dict) or not isinstance(module.get("type"), str):
        raise TeacherError(f"{listing}: {_UNKNOWN}")
    return str(module["type"]).rpartition(".")[2]


def _read(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, kind):
        raise TeacherError(f"{path}: {_UNKNOWN}")
    return value
