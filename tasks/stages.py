"""What the stages keep under which name in their folders."""

import json
from typing import TYPE_CHECKING, Any

from distill_core.heads import HEADS, Head
from tasks.caching import Stage

if TYPE_CHECKING:  # takes a second
    from datasets import Dataset

MODEL = "model"
"""A transformers folder."""
ROWS = "rows"
"""The tokenized data set."""
STEPS = "steps.jsonl"
LOGITS = "logits.npz"
STILL_READ = "still-read.npz"
"""Which of their units a trimmed vocabulary reads, if it does not read all: by the names of the logits."""
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


def training_rows_of(data: Stage) -> list["Dataset"]:
    """Open the tokenized rows that a student learns from, with labels or without."""
    from distill_core.batches import open_tokenized
    from distill_core.vocabulary import training_rows

    return training_rows(open_tokenized(data.folder / ROWS))
