"""What the windows of a long context hold: which tokens are of the context, and which are the answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

NO_ANSWER = 0
"""The token that stands for it: the first, [CLS] or <s>, of every encoder."""

OUTSIDE = -1
"""Start and end of tokens that are not of the context."""


def cut_texts(texts: list[str], tokenizer: Any, most: int) -> list[str]:
    """Return texts without what is behind so many tokens, special ones not counted."""
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    return [
        text[: offsets[most - 1][1]] if len(offsets) > most else text
        for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)
    ]


def context_spans(encoded: Any, row: int) -> tuple[list[int], list[int]]:
    """Return the characters where each token of a window starts and ends in the context; -1 outside it.

    Args:
        encoded: pairs of question and context, as a fast tokenizer returns them with their offsets.
        row: which window.
    """
    spans, sequences = encoded["offset_mapping"][row], encoded.sequence_ids(row)
    spans = [
        span if sequence == 1 else (OUTSIDE, OUTSIDE)
        for span, sequence in zip(spans, sequences, strict=True)
    ]
    return [start for start, _ in spans], [end for _, end in spans]


def answer_tokens(starts: list[int], ends: list[int], answers: Mapping[str, Any]) -> list[int]:
    """Return the first and the last token of the first answer, or `NO_ANSWER` twice.

    Args:
        starts: of the window's tokens, as `context_spans` gives them.
        ends: of the same.
        answers: SQuAD's `text` and `answer_start`; an answer of which the window lacks a part is none in it.
    """
    inside = np.flatnonzero(np.asarray(starts) != OUTSIDE)
    if not answers["text"] or not len(inside):
        return [NO_ANSWER, NO_ANSWER]
    text, place = answers["text"][0], answers["answer_start"][0]
    start, end = place + len(text) - len(text.lstrip()), place + len(text.rstrip())
    firsts, lasts = np.asarray(starts)[inside], np.asarray(ends)[inside]
    first = np.searchsorted(lasts, start, side="right")  # the first that ends behind its start
    last = np.searchsorted(firsts, end, side="left") - 1  # the last that starts before its end
    if start < firsts[0] or end > lasts[-1] or first > last:
        return [NO_ANSWER, NO_ANSWER]
    return [int(inside[first]), int(inside[last])]
