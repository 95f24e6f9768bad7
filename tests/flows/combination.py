"""A teacher and what is asked for beside it: written out, or drawn at random."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_core.axes import AXES
from distill_core.schemes import SCHEMES
from distill_core.targets import TARGETS
from tests.core.family_models import SMALL
from tests.core.small_tokenizers import OTHER_TOKENIZERS
from tests.deploy.bundles import TASKS

UNLABELLED = "unlabelled.jsonl"
LARGE_WORDS = {"hidden_size": 64, "vocab_size": 8_192}


@dataclass(frozen=True)
class Combination:
    """A teacher, and what is asked for beside what every run here has."""

    task: str
    family: str
    asked: dict[str, Any]
    schemes: tuple[str, ...] = ("int8",)
    like: str = "linux-x86-64"
    sizes: dict[str, Any] = field(default_factory=dict)
    """Of the teacher, if not the usual ones."""
    tokenizer: str = "WordPiece"
    """That, or a key of `OTHER_TOKENIZERS`."""
    cut: bool = False
    """Whether a smaller vocabulary leaves words of its texts unread."""


@dataclass(frozen=True)
class _Option:
    """A key of the pipeline file that may be drawn, one time in three."""

    key: str
    values: Sequence[Any]
    fits: Callable[[str, str], bool] = lambda task, family: True
    """Whether it can be asked for, by task and family."""


def _can_be_narrow(task: str, family: str) -> bool:
    return family in AXES


def _has_plain_text(task: str, family: str) -> bool:
    return task not in ("multiple-choice", "masked-language-modelling")


def _has_one_class(task: str, family: str) -> bool:
    return task in ("sequence-classification", "token-classification")


_RAMPS = (0.5, {"from": 1.0, "to": 0.0}, {"from": 0.0, "to": 2.0})
_OPTIONS = (
    _Option("student.layers", ("spread", "top", "bottom", "search", [0, 3])),
    _Option("student.count", (1, 2, 3)),
    _Option("student.intermediate_size", (24, 40), _can_be_narrow),
    _Option("student.vocabulary", ("auto", 60, 200)),
    _Option("student.packed_words", ("before", "after")),
    _Option("data.unlabelled", (UNLABELLED,), _has_plain_text),
    _Option("data.augment", (1,), _has_plain_text),
    _Option("training.unlabelled", ("first",)),
    _Option("training.rows_at_once", (1, 3, 7)),
    _Option("training.patience", (1,)),
    _Option("training.precision", ("auto",)),
    _Option("training.keep_outputs_gb", (0.0,)),
    _Option("training.max_steps", (1, 5)),
    *(
        _Option(f"losses.{name}", _RAMPS)
        for name in ("hidden", "embeddings", "attention", "relation")
    ),
    _Option("losses.soft", ("mse",)),
    _Option("losses.hidden_layers", ("last", "uniform")),
    _Option("losses.class_weights", ("balanced",), _has_one_class),
    _Option("losses.focal_gamma", (2.0,), _has_one_class),
    _Option("graph.inputs", ("int32",)),
    _Option("graph.length", (16, 24)),
    _Option("graph.answer", ("probabilities", "label"), _has_one_class),
    _Option("graph.answer", ("span",), lambda task, family: task == "question-answering"),
    _Option("graph.ort_format", (True,)),
    _Option("gate.max_mb", ({"kiosk": 0.2}, {"kiosk": 2.0})),
)


def draw(seed: int) -> Combination:
    """Return a combination; most can be made, and `check` says of the others why not."""
    draws = random.Random(seed)
    task, family = draws.choice(sorted(TASKS)), draws.choice(sorted(SMALL))
    asked: dict[str, Any] = {"baseline": draws.random() < 0.2}
    for option in _OPTIONS:
        if draws.random() < 1 / 3 and option.fits(task, family):
            section, key = option.key.split(".")
            asked.setdefault(section, {})[key] = draws.choice(option.values)
    sizes = LARGE_WORDS if asked.get("student", {}).get("packed_words") else {}
    schemes = tuple(draws.sample(sorted(SCHEMES), 2))
    like = draws.choice(sorted(TARGETS))
    fills_with_1 = SMALL[family].options.get("pad_token_id") == 1  # as those tokenizers do
    kinds = ("WordPiece", *OTHER_TOKENIZERS) if fills_with_1 else ("WordPiece",)
    return Combination(task, family, asked, schemes, like, sizes, draws.choice(kinds))
