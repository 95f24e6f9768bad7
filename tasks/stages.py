"""What the stages keep under which name in their folders."""

import json
from typing import TYPE_CHECKING, Any

from distill_core.heads import HEADS, Head
from tasks.caching import Stage

if TYPE_CHECKING:  # imports datasets
    from distill_core.vocabulary import Ids

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


def used_tokens_of(data: Stage) -> "Ids":
    """Return the ids of the tokens that the training rows make use of."""
    from distill_core.batches import open_tokenized
    from distill_core.vocabulary import training_rows, used_tokens

    return used_tokens(training_rows(open_tokenized(data.folder / ROWS)))


def seen_tokens_of(data: Stage) -> "Ids":
    """Return the ids of all tokens that stand in the training rows."""
    from distill_core.batches import open_tokenized
    from distill_core.vocabulary import seen_tokens, training_rows

    return seen_tokens(training_rows(open_tokenized(data.folder / ROWS)))
