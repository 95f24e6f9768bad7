"""What the stages keep under which name in their folders."""

import json
from typing import Any

from distill_core.heads import HEADS, Head
from tasks.caching import Stage

MODEL = "model"
"""A transformers folder."""
ROWS = "rows"
"""The tokenized data set."""
STEPS = "steps.jsonl"
LOGITS = "logits.npz"
ONNX = "model.onnx"
BUNDLE = "bundle"
PLAIN = "plain"
"""The same with files as they were made, where those of the bundle are shaped; not published."""
REPORT = "report.json"
REPORT_PAGE = "report.html"


def read_steps(student: Stage) -> list[dict[str, Any]]:
    """Read the training steps of a distilled student."""
    lines = (student.folder / STEPS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def head_of(teacher: Stage) -> Head:
    """Return the head of a fetched teacher."""
    facts = teacher.facts
    return HEADS[facts["task"]](tuple(facts["labels"]), facts["pooling"])
