"""Ways of distilling that the tables of retention and of ablations compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.bench.corpora import ALL_KINDS, OTHER_TASKS, TWEETS, Corpus


@dataclass(frozen=True)
class Recipe:
    """What differs from the defaults of a pipeline file."""

    losses: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: Corpus | None = None
    """What is read too, on which only the teacher speaks."""
    telling: bool = False
    """Whether those of these texts alone are read in which the teacher finds something."""
    augment: int | Literal["auto"] = 0
    """Copies of each training text with some words replaced."""
    taught: bool = True
    """Whether there is a teacher."""
    copied: bool = True
    """Whether the student starts from its teacher's weights, not from random ones."""


DEFAULT, ALONE, BETWEEN = "default", "labels-alone", "unlabelled-between"
_LONGER = Recipe(
    losses={"soft": "mse", "distillation": 1.0, "hidden_layers": "uniform"},
    training={"learning_rate": 4e-4, "epochs": 8},
    unlabelled=OTHER_TASKS,
)
RECIPES = {
    DEFAULT: Recipe(augment="auto"),
    "no-augmentation": Recipe(),
    ALONE: Recipe(taught=False),
    BETWEEN: Recipe(unlabelled=OTHER_TASKS),
    "unlabelled-first": Recipe(training={"unlabelled": "first"}, unlabelled=OTHER_TASKS),
    "unlabelled-first, logits": Recipe(
        losses={"soft": "mse", "distillation": 1.0},
        training={"unlabelled": "first"},
        unlabelled=OTHER_TASKS,
    ),
    "unlabelled-between, 8 epochs": _LONGER,
    "tweets-between, 8 epochs": replace(_LONGER, unlabelled=TWEETS),
    "telling-between, 8 epochs": replace(_LONGER, unlabelled=ALL_KINDS, telling=True),
}
"""Table: setting → how a student of the retention table is made."""

ABLATIONS = {
    "the three losses": Recipe(),
    "without the task's loss": Recipe(losses={"task": 0.0}),
    "without the soft loss": Recipe(losses={"distillation": 0.0}),
    "without the cosine loss": Recipe(losses={"cosine": 0.0}),
    "labels alone": Recipe(taught=False),
    "cosine on the last layer": Recipe(losses={"hidden_layers": "last"}),
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
    "texts of other tasks between": Recipe(unlabelled=OTHER_TASKS),
    "texts of other tasks first": Recipe(training={"unlabelled": "first"}, unlabelled=OTHER_TASKS),
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
