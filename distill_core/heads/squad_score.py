"""Exact match and F1 of an answer, as SQuAD's own scorer counts them."""

import re
from collections import Counter
from collections.abc import Sequence
from string import punctuation


def normalise(text: str) -> str:
    """Return an answer in lower case, without punctuation, articles and surplus blanks."""
    bare = "".join(letter for letter in text.lower() if letter not in punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def score_answer(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Return exact match (0 or 1) and F1 of an answer: with that of the right ones that fits best.

    F1 = 2·PR / (P + R) of the bags of words, without punctuation, articles and case (Rajpurkar et al.
    2016, "SQuAD", arXiv:1606.05250, section 6.1). Where nothing is right, both are 1 for no answer and
    0 for any (the scorer of Rajpurkar et al. 2018, arXiv:1806.03822).
    """
    said = normalise(answer)
    meant = [text for text in map(normalise, right) if text] or [""]
    return max(float(said == text) for text in meant), max(_overlap(said, text) for text in meant)


def _overlap(said: str, meant: str) -> float:
    ours, theirs = Counter(said.split()), Counter(meant.split())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
