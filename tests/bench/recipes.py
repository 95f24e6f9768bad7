"""Ways of distilling that the tables of retention and of ablations compare."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.bench.teachers import SHARED

UNLABELLED_ROWS = 40_000
_SOURCES = {"sst2": "sentence", "clinc150": "text", "stsb": "sentence1", "wikitext2": "text"}
"""Table: public task → a column of its texts."""
_LEAST_WORDS = 6
"""Of a sentence of WikiText-2, whose rows are paragraphs, and headings."""


@dataclass(frozen=True)
class Recipe:
    """What differs from the defaults of a pipeline file."""

    losses: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: bool = False
    """Texts of other tasks are read too, on which only the teacher speaks."""
    augment: int | Literal["auto"] = 0
    """Copies of each training text with some words replaced."""
    taught: bool = True
    """Whether there is a teacher."""
    copied: bool = True
    """Whether the student starts from its teacher's weights, not from random ones."""


DEFAULT, ALONE, BETWEEN = "default", "labels-alone", "unlabelled-between"
RECIPES = {
    DEFAULT: Recipe(augment="auto"),
    "no-augmentation": Recipe(),
    ALONE: Recipe(taught=False),
    BETWEEN: Recipe(unlabelled=True),
    "unlabelled-first": Recipe(training={"unlabelled": "first"}, unlabelled=True),
    "unlabelled-first, logits": Recipe(
        losses={"soft": "mse", "distillation": 1.0},
        training={"unlabelled": "first"},
        unlabelled=True,
    ),
    "unlabelled-between, 8 epochs": Recipe(
        losses={"soft": "mse", "distillation": 1.0, "hidden_layers": "uniform"},
        training={"learning_rate": 4e-4, "epochs": 8},
        unlabelled=True,
    ),
}
"""Table: setting → how a student of the retention table is made."""

ABLATIONS = {
    "the three losses": Recipe(),
    "without the task's loss": Recipe(losses={"task": 0.0}),
    "without the soft loss": Recipe(losses={"distillation": 0.0}),
    "without the cosine loss": Recipe(losses={"cosine": 0.0}),
    "labels alone": Recipe(taught=False),
    "cosine on every mapped layer": Recipe(losses={"hidden_layers": "uniform"}),
    "temperature 1": Recipe(losses={"temperature": 1.0}),
    "temperature 4": Recipe(losses={"temperature": 4.0}),
    "temperature 8": Recipe(losses={"temperature": 8.0}),
    "logits in place of soft targets": Recipe(losses={"soft": "mse"}),
    "layers spread": Recipe(student={"layers": "spread"}),
    "top layers": Recipe(student={"layers": "top"}),
    "bottom layers": Recipe(student={"layers": "bottom"}),
    "random weights": Recipe(copied=False),
    "two augmented copies between": Recipe(augment=2),
    "two augmented copies first": Recipe(augment=2, training={"unlabelled": "first"}),
    "texts of other tasks between": Recipe(unlabelled=True),
    "texts of other tasks first": Recipe(training={"unlabelled": "first"}, unlabelled=True),
    "half the learning rate": Recipe(training={"learning_rate": 1e-4}),
    "twice the learning rate": Recipe(training={"learning_rate": 4e-4}),
}
"""Table: setting → the default without augmentation, but for one thing."""

SIZES = {
    "6 x 384, half the neurons": Recipe(student={"count": 6, "intermediate_size": 768}),
    "4 x 384": Recipe(student={"layers": "spread", "count": 4}),
    "3 x 384": Recipe(),
    "2 x 384": Recipe(student={"layers": "spread", "count": 2}),
    "4 x 312": Recipe(
        student={"layers": "spread", "count": 4, "hidden_size": 312, "intermediate_size": 1200}
    ),
    "6 x 192": Recipe(
        student={"count": 6, "hidden_size": 192, "heads": 6, "intermediate_size": 768}
    ),
    "3 x 192": Recipe(student={"hidden_size": 192, "heads": 6, "intermediate_size": 768}),
    "2 x 192": Recipe(
        student={
            "layers": "spread",
            "count": 2,
            "hidden_size": 192,
            "heads": 6,
            "intermediate_size": 768,
        }
    ),
}
"""Table: depth and width → the default without augmentation, but for these."""

ABLATED_TASK = "clinc150"
ABLATED_EPOCHS = 3


def write_unlabelled(path: Path, task: str) -> None:
    """Write texts of other tasks' training rows, one a line, always the same ones."""
    import numpy as np

    texts = [text for name in _SOURCES if name != task for text in _texts(name)]
    order = np.random.default_rng(0).permutation(len(texts))[:UNLABELLED_ROWS]
    path.write_text("\n".join(texts[number] for number in order), encoding="utf-8")


def _texts(task: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    column = _SOURCES[task]
    for text in pq.read_table(SHARED / "data" / task / "train.parquet")[column].to_pylist():
        words = " ".join(text.split())
        if task != "wikitext2":
            yield words
            continue
        yield from (part for part in words.split(" . ") if len(part.split()) >= _LEAST_WORDS)
