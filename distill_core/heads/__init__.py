"""Heads: what a model was fine-tuned for. Each file in this folder is one; a new head is a new file."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from distill_core.errors import ConfigError, TeacherError
from distill_core.heads.head import Head
from distill_core.heads.scores import Labels
from distill_core.heads.text_head import TextHead

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

HEADS: dict[str, type[Head]] = {
    head.name: head
    for head in (*TextHead.__subclasses__(), *Head.__subclasses__())
    if head is not TextHead
}

_DECODERS = ("HeadModel", "HeadsModel")
"""Ends of names like GPT2LMHeadModel, which are no bare encoders."""

__all__ = ["HEADS", "Head", "Labels", "TextHead", "find_head"]


def find_head(config: Mapping[str, Any], task: str, where: str) -> Head:
    """Return the head of a model from its `config.json`.

    Args:
        config: the parsed config.json.
        task: a name in `HEADS`, or auto.
        where: the folder, for the message.

    Raises:
        ConfigError: no such task.
        TeacherError: no head that is supported, or another one than the pipeline file names.
    """
    if task != "auto" and task not in HEADS:
        raise ConfigError(f"task: {task!r}; accepted: auto, {', '.join(HEADS)}")
    architecture = (config.get("architectures") or ["none"])[0]
    heads = [
        head
        for head in HEADS.values()
        if architecture.endswith(head.architecture_suffix) and not architecture.endswith(_DECODERS)
    ]
    if not heads:
        suffixes = ", ".join(dict.fromkeys(f"…{h.architecture_suffix}" for h in HEADS.values()))
        raise TeacherError(
            f"{where}/config.json: architectures: {architecture} has no head that can be distilled; "
            f"accepted: {suffixes}"
        )
    problem = config.get("problem_type")
    labels = _label_names(config, where) if heads[0].has_classes else ()
    fitting = [head for head in heads if head.fits(problem, len(labels))]
    if not fitting:
        names = ", ".join(head.name for head in heads)
        raise TeacherError(
            f"{where}/config.json: problem_type {problem} with {len(labels)} label(s) fits no head; "
            f"accepted of {architecture}: {names}"
        )
    if task not in ("auto", fitting[0].name):
        raise TeacherError(
            f"{where}: the teacher's head is {fitting[0].name}, not {task}: set task: auto"
        )
    return fitting[0](labels if fitting[0].has_classes else ())


def _label_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names: Mapping[str, str] = config.get("id2label") or {}
    # transformers writes no id2label when it would be the default one, of two labels.
    count = len(names) or config.get("num_labels") or 2
    numbers = [str(number) for number in range(count)]
    if names and set(names) != set(numbers):
        raise TeacherError(
            f"{where}/config.json: id2label numbers its labels {', '.join(names)}; accepted: 0 to "
            f"{count - 1}, in the order of the logits"
        )
    return tuple(names.get(number, f"LABEL_{number}") for number in numbers)
