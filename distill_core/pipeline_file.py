"""Read a pipeline file, apply what the command line sets, and say clearly what is wrong with it."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distill_core.config import Pipeline
from distill_core.errors import ConfigError


def read_pipeline(path: Path, settings: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file; relative paths in it are relative to the file.

    Args:
        path: a YAML file.
        settings: `key.path=value` lines that replace what the file says; values are YAML.

    Raises:
        ConfigError: every mistake found, with file, key, value and what is accepted.
    """
    document = _read_yaml(path)
    for setting in settings:
        _apply(document, setting)
    try:
        pipeline = Pipeline.model_validate(document)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, document)}" for problem in error.errors())
        raise ConfigError(f"{path}: the pipeline file is wrong\n{problems}") from None
    return _resolve_paths(pipeline, path.parent)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; a pipeline file is YAML") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: a pipeline file is a mapping with at least name, teacher and data"
        )
    return document


def _apply(document: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {setting}: write key.path=value, as in training.epochs=1")
    *sections, last = key.split(".")
    section = document
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {setting}: {name!r} is a value, not a section")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not YAML: {error}") from None


def _explain(problem: ErrorDetails, document: dict[str, Any]) -> str:
    keys = _user_keys(problem, document)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(keys)
    if problem["type"] == "missing":
        return f"{'.'.join(keys)}: is missing and has no default"
    message = problem["msg"].removeprefix("Value error, ")
    # Of sections that do not fit together, the message names them.
    return f"{'.'.join(keys)}: {message} (got {problem['input']!r})" if keys else message


def _user_keys(problem: ErrorDetails, document: Any) -> list[str]:
    """Return where the problem is, without the branches of unions that pydantic adds."""
    keys = []
    for place, part in enumerate(problem["loc"], start=1):
        inside = isinstance(document, dict) and part in document
        if inside or (isinstance(document, list) and isinstance(part, int)):
            document = document[part]
        elif problem["type"] != "missing" or place < len(problem["loc"]):
            continue
        keys.append(str(part))
    return keys


def _unknown_key(keys: list[str]) -> str:
    fields = _section_model(keys[:-1]).model_fields
    known = [field.alias or name for name, field in fields.items()]
    near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{'.'.join(keys)}: unknown key; {hint}accepted: {', '.join(known)}"


def _section_model(keys: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Pipeline
    for key in keys:
        if not key.isdigit():  # the place of a row in a list
            model = next(_models_in(model.model_fields[key].annotation))
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _resolve_paths(pipeline: Pipeline, base: Path) -> Pipeline:
    """Make sources that are folders absolute, so that the flow may run from anywhere."""
    teacher = {"source": _resolve(pipeline.teacher.source, base)}
    unlabelled = pipeline.data.unlabelled
    data = {
        "source": _resolve(pipeline.data.source, base),
        "unlabelled": unlabelled and _resolve(unlabelled, base),
    }
    key = pipeline.bundle.signing_key
    # A file here, whatever it is called: never a name on the hub.
    bundle = {"signing_key": key and str((base / os.path.expanduser(key)).resolve())}  # noqa: PTH111
    return pipeline.model_copy(
        update={
            "bundle": pipeline.bundle.model_copy(update=bundle),
            "teacher": pipeline.teacher.model_copy(update=teacher),
            "data": pipeline.data.model_copy(update=data),
        }
    )


def _resolve(source: str, base: Path) -> str:
    # os.path's leaves ~nobody as it is, to be reported as a folder that is not there.
    folder = base / os.path.expanduser(source)  # noqa: PTH111
    return str(folder.resolve()) if folder.exists() or looks_like_path(source) else source


def looks_like_path(source: str) -> bool:
    """Tell a path from a hub id, which is `name` or `owner/name` and starts with neither . / nor ~."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1
