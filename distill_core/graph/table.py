"""Table: head → what a file can make of its logits by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LastStep:
    """What a file makes of its logits."""

    operator: Literal["Softmax", "Sigmoid", "ArgMax", "Greater", "Span"]
    """Of ONNX: over the last axis, or of each number; Greater is than 0. Span is several, in `spans`."""
    reading: str
    """How an app reads what comes out, for the README of a bundle."""


_SEQUENCE = {
    "probabilities": LastStep("Softmax", "The label is the one with the largest probability."),
    "label": LastStep(
        "ArgMax",
        "The answer is the number of the label, from 0 in the order of `labels` in `manifest.json`.",
    ),
}
_SEVERAL = {
    "probabilities": LastStep("Sigmoid", "A text has every label whose probability is above ½."),
    "label": LastStep(
        "Greater",
        "The answer is 1 for each label that the text has and 0 for each other, in the order of `labels` in "
        "`manifest.json`.",
    ),
}
_TOKENS = {
    "probabilities": LastStep(
        "Softmax",
        "Each token has a probability for each tag; a word's tag is the likeliest of its first piece, and "
        "special tokens have none.",
    ),
    "label": LastStep(
        "ArgMax",
        "Each token has the number of its tag, from 0 in the order of `labels` in `manifest.json`; a word's "
        "tag is that of its first piece, and special tokens have none.",
    ),
}
_CHOICES = {
    "probabilities": LastStep("Softmax", "The model's choice is the likeliest."),
    "label": LastStep("ArgMax", "The answer is the number of the model's choice, from 0."),
}

_QUESTIONS = {
    "span": LastStep(
        "Span",
        "Hand question and context to the tokenizer, in this order. The output is four numbers: the first "
        "and the last token of the best answer, counted from 0, its score, and the score of no answer. Cut "
        "the answer out of the context by the offsets of these two tokens; if its score is not above that of "
        "no answer, the context has none. Read a longer context in windows that overlap by a third of the "
        "tokens (truncate the second text alone, with that stride): the answer with the best score of all "
        "windows counts, unless the score of no answer is as large in each of them. A question may take a "
        "third of the tokens.",
    )
}

LAST_STEPS: Mapping[str, Mapping[str, LastStep]] = {
    "sequence-classification": _SEQUENCE,
    "multi-label-classification": _SEVERAL,
    "token-classification": _TOKENS,
    "multiple-choice": _CHOICES,
    "question-answering": _QUESTIONS,
}
"""Other heads answer with logits alone: scores and vectors are what they are."""

ANSWERS = ("probabilities", "label", "span")
"""Names of the outputs that are not logits any more."""

OF_WHOLE_TEXTS = frozenset({"span"})
"""Those with no place for each token, whatever the head."""

BY_TOKEN = frozenset(
    {
        "token-classification",
        "question-answering",
        "masked-language-modelling",
        "sentence-embeddings",
    }
)
"""Heads whose outputs have a place for each token, padding included."""

SEVERAL_SEQUENCES = frozenset({"multiple-choice"})
"""Heads of which one text makes as many sequences as it has choices."""


def accepted_answers(head: str) -> tuple[str, ...]:
    """Return what the file of a head can be asked to answer."""
    return ("logits", *LAST_STEPS.get(head, ()))
