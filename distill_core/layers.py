"""Which of the teacher's layers the student starts from."""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import comb

from distill_core.config import StudentShape
from distill_core.errors import ConfigError

RULES: dict[str, Callable[[int, int], Sequence[int]]] = {
    "alternate": lambda n, k: [i * n // k for i in range(k)],
    "spread": lambda n, k: [round(i * (n - 1) / max(k - 1, 1)) for i in range(k)],
    "top": lambda n, k: range(n - k, n),
    "bottom": lambda n, k: range(k),
}
"""Table: rule → the layers that it takes, k of n."""

MOST_PICKS = 20
"""That are tried: of 6 layers all the halves there are, of 12 a draw among 924."""
_MOST_DRAWS = 1_000


def pick_layers(kinds: Sequence[str], shape: StudentShape) -> tuple[int, ...]:
    """Return the teacher's layers to copy, in order, numbered from 0.

    alternate takes layer ⌊i·n/k⌋ for the i-th of k: at half the depth one is copied and one
    skipped (Sanh et al. 2019, section 2, "Student initialization"), at the whole depth all are.
    spread takes round(i·(n − 1) / (k − 1)), evenly from the first to the last: the maximally spaced
    layers of Shleifer and Rush 2020 (arXiv:2010.13002, "Shrink and Fine-Tune"), 0, 6 and 11 for 3 of
    12, and the first where there is but one. top and bottom take the last and the first k, which Sun et
    al. 2019 (arXiv:1908.09355) found worse on average. Where a layer's place decides what it is, the
    nearest layer of the kind that its place in the student asks for is taken.

    Args:
        kinds: the kind of each layer of the teacher, n of them; all equal in most families.
        shape: the rule, and the number of layers to keep, k. search is no rule: it has `list_picks`.

    Raises:
        ConfigError: a layer that the teacher does not have, or one of another kind than its place.
    """
    if isinstance(shape.layers, tuple):
        _check_explicit(kinds, shape.layers)
        return shape.layers
    return _by_rule(kinds, shape.layers, count_layers(kinds, shape))


def count_layers(kinds: Sequence[str], shape: StudentShape) -> int:
    """Return the number of layers to keep: half of the teacher's, rounded down, and one at least, by default.

    Raises:
        ConfigError: more layers than the teacher has.
    """
    if isinstance(shape.layers, tuple):
        return len(shape.layers)
    layers = len(kinds)
    count = shape.count or max(layers // 2, 1)
    if count > layers:
        raise ConfigError(
            f"student.count: {count} layers asked, and the teacher has {layers}; accepted: 1 to {layers}"
        )
    return count


def list_picks(kinds: Sequence[str], count: int, seed: int) -> dict[tuple[int, ...], str]:
    """Return picks to choose from, each with the names of the rules that make it: none, for most.

    All that there are, where these are few; else those of the rules, and others drawn at random.

    Args:
        kinds: of the teacher's layers.
        count: how many layers to keep.
        seed: decides the draws.
    """
    picks: dict[tuple[int, ...], str] = {}
    for rule in RULES:
        pick = _by_rule(kinds, rule, count)
        picks[pick] = ", ".join(filter(None, (picks.get(pick), rule)))
    numbers, draws = range(len(kinds)), random.Random(seed)
    if comb(len(kinds), count) <= MOST_PICKS:
        others: Iterable[Sequence[int]] = combinations(numbers, count)
    else:
        others = (sorted(draws.sample(numbers, count)) for _ in range(_MOST_DRAWS))
    for other in others:
        if len(picks) < MOST_PICKS:
            picks.setdefault(_of_their_kind(kinds, other), "")
    return picks


def _by_rule(kinds: Sequence[str], rule: str, count: int) -> tuple[int, ...]:
    return _of_their_kind(kinds, RULES[rule](len(kinds), count))


def map_layers(
    student_layers: int,
    teacher_layers: int,
    rule: str | tuple[int, ...],
    first_token_alone: bool = False,
) -> tuple[tuple[int, int], ...]:
    """Return which hidden states are aligned: layers of student and teacher, numbered from 1.

    uniform aligns layer m of M with the teacher's g(m) = m · N / M of N, rounded (Jiao et al. 2020,
    "TinyBERT", arXiv:1909.10351, section 4.1, the uniform strategy). At half the depth, where every
    second layer was copied, that is the layer in front of which the next one was copied. auto aligns
    the last layer of which every token is computed.

    Args:
        student_layers: M.
        teacher_layers: N.
        rule: auto, last, uniform, or the teacher's layer of each of the student's.
        first_token_alone: whether the last layer computes the first token alone; then it is not the only one.

    Raises:
        ConfigError: not one layer for each of the student's, or one that the teacher does not have.
    """
    uniform = tuple(
        (m, round(m * teacher_layers / student_layers)) for m in range(1, student_layers + 1)
    )
    if rule in ("auto", "last"):
        return (uniform[-2 if rule == "auto" and first_token_alone else -1],)
    if rule == "uniform":
        return uniform
    if len(rule) != student_layers or max(map(int, rule)) > teacher_layers:
        raise ConfigError(
            f"losses.hidden_layers: {list(rule)}; accepted: {student_layers} layers, one for each of the "
            f"student's, from 1 to the teacher's {teacher_layers}"
        )
    return tuple(enumerate(map(int, rule), start=1))


def _check_explicit(kinds: Sequence[str], picked: Sequence[int]) -> None:
    if picked[-1] >= len(kinds):
        raise ConfigError(
            f"student.layers: {list(picked)} names layer {picked[-1]}, and the teacher has "
            f"{len(kinds)}; accepted: 0 to {len(kinds) - 1}"
        )
    for place, layer in enumerate(picked):
        if kinds[layer] != kinds[place]:
            accepted = [number for number, kind in enumerate(kinds) if kind == kinds[place]]
            raise ConfigError(
                f"student.layers: {list(picked)} puts layer {layer}, a {kinds[layer]} one, where this "
                f"family has a {kinds[place]} one; accepted there: {', '.join(map(str, accepted))}"
            )


def _of_their_kind(kinds: Sequence[str], ideal: Sequence[int]) -> tuple[int, ...]:
    """Return, for each place, the layer of its kind that is nearest to the ideal one, in rising order."""
    picked: list[int] = []
    for place, layer in enumerate(ideal):
        # Far enough down that a layer of its kind is left for each place behind.
        last = _last_start(kinds, place, len(ideal))
        first = picked[-1] + 1 if picked else 0
        alike = [n for n in range(first, last + 1) if kinds[n] == kinds[place]]
        picked.append(min(alike, key=lambda number: abs(number - layer)))
    return tuple(picked)


def _last_start(kinds: Sequence[str], place: int, count: int) -> int:
    """Return the last layer that may stand at a place, if the places behind it are to be filled too."""
    number = len(kinds)
    for behind in reversed(range(place, count)):
        number = max(n for n in range(number) if kinds[n] == kinds[behind])
    return number
