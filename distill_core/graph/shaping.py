"""Shape a file as an app asks for it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from distill_core.graph.answers import answer_with
from distill_core.graph.inputs import fix_length, take_int32
from distill_core.graph.shape import GraphShape
from distill_core.graph.spans import SpanRule, answer_with_span
from distill_core.graph.table import LAST_STEPS


def shape_file(
    source: Path, shape: GraphShape, head: str, destination: Path, rule: SpanRule | None = None
) -> None:
    """Write a file as it is asked for: another type of inputs, fixed lengths, a last step.

    Args:
        source: a file with inputs of 64 bits, of any length, that answers with logits.
        shape: what is asked for, and possible with the head.
        head: name of the head.
        destination: what is written; the very same bytes where nothing is asked for.
        rule: of spans, where those are what is asked for.
    """
    if shape.plain:
        shutil.copyfile(source, destination)
        return
    model = onnx.load(source)
    if shape.inputs == "int32":
        take_int32(model)
    if shape.length is not None:
        fix_length(model, shape.length)
    if rule:
        answer_with_span(model, rule, shape.answer)
    elif shape.answer != "logits":
        answer_with(model, LAST_STEPS[head][shape.answer], shape.answer)
    onnx.save(model, destination)


def pad_row(
    row: Mapping[str, Any], length: int | None, padding: Mapping[str, int]
) -> dict[str, Any]:
    """Return the inputs of a text, filled up to a fixed length if there is one.

    Args:
        row: token ids and masks by input name.
        length: in tokens; None leaves the inputs as they are.
        padding: what fills each input; others are not returned.
    """
    missing = 0 if length is None else length - len(row["input_ids"])
    return {
        name: [*row[name], *[filler] * missing] if missing else row[name]
        for name, filler in padding.items()
        if name in row
    }
