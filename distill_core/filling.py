"""What a fixed length costs: texts that are filled up or cut are answered otherwise."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distill_core.golden import Shipped, Texts
from distill_core.graph.shape import GraphShape
from distill_core.graph.shaping import pad_row, shape_file
from distill_core.runtime import answer_row
from distill_core.session import open_session

ROWS = 256
"""Scored rows that are asked twice; of so many, a share of one in a hundred has a standard error of 0.6."""


def measure_filling(shipped: Shipped, longest: int, texts: Sequence[Texts]) -> dict[str, Any]:
    """Hold a file of a fixed length against the same for any length, one text at a time.

    Activations are quantized by the largest of them, and those of padding count too.

    Args:
        shipped: the file, of a shape with a length.
        longest: tokens of a text where the length is not fixed.
        texts: that were never trained on.

    Returns:
        length, texts, how many of them were cut, and how many are answered otherwise.
    """
    length, head = shipped.shape.length, shipped.head
    cut = others = 0
    with TemporaryDirectory() as scratch:
        fixed = Path(scratch, "fixed.onnx")
        shape_file(shipped.made_from, GraphShape(length=length), head.name, fixed)
        before, after = open_session(shipped.made_from), open_session(fixed)
        for text in texts:
            whole = head.read_texts(text, shipped.tokenizer, longest)
            row = head.read_texts(text, shipped.tokenizer, shipped.max_length)
            cut += len(row["input_ids"]) < len(whole["input_ids"])
            expected = answer_row(before, head, whole)
            found = answer_row(after, head, pad_row(row, length, shipped.padding))
            others += not head.same_answer(expected, found, whole, row)
    return {"length": length, "texts": len(texts), "cut": cut, "answered_otherwise": others}
