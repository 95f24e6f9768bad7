"""What a person reads about a task in Prefect: its inputs and its facts as tables."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact

from tasks.caching import Stage

_LONGEST_VALUE = 300


def publish_facts(pipeline: str, stage: Stage, part: str = "") -> None:
    """Publish inputs and facts of a stage as a Prefect artifact.

    Args:
        pipeline: its name.
        stage: a finished stage.
        part: tells apart the artifacts of mapped tasks.
    """
    words = [pipeline, stage.name, part]
    create_markdown_artifact(
        key=re.sub(r"[^a-z0-9]+", "-", "-".join(filter(None, words)).lower()).strip("-"),
        markdown=describe_stage(stage),
        description=f"{stage.name} {part}".strip(),
    )


def describe_stage(stage: Stage) -> str:
    """Return a stage as Markdown."""
    made = "was there already" if stage.cached else "made now"
    lines = [
        f"# {stage.name}",
        "",
        f"{made}, {stage.seconds} s to make, key `{stage.key[:16]}`",
        "",
    ]
    for title, values in (("Result", stage.facts), ("Inputs", stage.inputs)):
        scalars = {name: value for name, value in flatten(values) if not _is_table(value)}
        lines += [
            f"## {title}",
            "",
            *markdown_table([{"name": n, "value": v} for n, v in scalars.items()]),
        ]
        for name, value in values.items():
            if _is_table(value):
                lines += [f"### {name}", "", *markdown_table(value)]
    return "\n".join(lines)


def flatten(
    values: Mapping[str, Any], separator: str = ".", prefix: str = ""
) -> list[tuple[str, Any]]:
    """Return nested mappings as one list of names, joined by a separator, and values."""
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += flatten(value, separator, f"{prefix}{name}{separator}")
        else:
            flat.append((prefix + name, value))
    return flat


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows of like keys as the lines of a Markdown table."""
    if not rows:
        return ["none", ""]
    names = list(rows[0])
    lines = [_line(names), _line(["---"] * len(names))]
    return [*lines, *(_line([row.get(name, "") for name in names]) for row in rows), ""]


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
    return text.replace("|", "\\|").replace("\n", " ")


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )
