"""Which layers are picked."""

from itertools import combinations, pairwise
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config import StudentShape
from distill_core.errors import ConfigError
from distill_core.layers import MOST_PICKS, RULES, list_picks, map_layers, pick_layers
from distill_core.loss_weights import LossWeights

depths = st.integers(2, 48)
rules = st.sampled_from(["alternate", "spread", "top", "bottom"])


def alike(depth: int) -> tuple[str, ...]:
    return ("layer",) * depth


@pytest.mark.parametrize(
    ("depth", "picked"),
    [(2, (0,)), (4, (0, 2)), (5, (0, 2)), (6, (0, 2, 4)), (12, (0, 2, 4, 6, 8, 10))],
)
def test_alternate_copies_one_layer_and_skips_one(depth: int, picked: tuple[int, ...]) -> None:
    assert pick_layers(alike(depth), StudentShape(layers="alternate")) == picked


@pytest.mark.parametrize(
    ("rule", "count", "picked"),
    [
        ("alternate", 4, (0, 3, 6, 9)),
        ("alternate", 8, (0, 1, 3, 4, 6, 7, 9, 10)),
        ("top", None, (6, 7, 8, 9, 10, 11)),
        ("top", 2, (10, 11)),
        ("bottom", None, (0, 1, 2, 3, 4, 5)),
        ("bottom", 2, (0, 1)),
        ("spread", None, (0, 2, 4, 7, 9, 11)),  # as Shleifer and Rush publish it, and the next
        ("spread", 3, (0, 6, 11)),
        ("spread", 1, (0,)),
    ],
)
def test_a_count_replaces_half_the_depth_of_twelve(
    rule: str, count: int | None, picked: tuple[int, ...]
) -> None:
    assert pick_layers(alike(12), StudentShape(layers=rule, count=count)) == picked


def test_half_of_one_layer_is_that_layer() -> None:
    assert pick_layers(alike(1), StudentShape()) == (0,)


def test_layers_by_number_are_taken_as_they_stand() -> None:
    assert pick_layers(alike(12), StudentShape(layers=(0, 1, 11))) == (0, 1, 11)


@given(depths, rules)
def test_every_rule_at_the_whole_depth_takes_every_layer(depth: int, rule: str) -> None:
    assert pick_layers(alike(depth), StudentShape(layers=rule, count=depth)) == tuple(range(depth))


@given(depths, rules, st.data())
def test_picked_layers_rise_from_within_the_teacher_and_are_as_many_as_asked(
    depth: int, rule: str, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, depth))
    picked = pick_layers(alike(depth), StudentShape(layers=rule, count=count))
    assert len(picked) == count
    assert list(picked) == sorted(set(picked))
    assert set(picked) <= set(range(depth))


@given(depths, st.data())
def test_alternate_starts_at_the_bottom_and_leaves_even_gaps(
    depth: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, depth))
    picked = pick_layers(alike(depth), StudentShape(layers="alternate", count=count))
    gaps = {later - earlier for earlier, later in zip(picked, (*picked[1:], depth), strict=True)}
    assert picked[0] == 0
    assert max(gaps) - min(gaps) <= 1


@given(depths, st.data())
def test_spread_holds_the_first_and_the_last_layer_and_leaves_even_gaps(
    depth: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2, depth))
    picked = pick_layers(alike(depth), StudentShape(layers="spread", count=count))
    gaps = {later - earlier for earlier, later in pairwise(picked)}
    assert (picked[0], picked[-1]) == (0, depth - 1)
    assert max(gaps) - min(gaps) <= 1


def test_all_picks_are_tried_where_there_are_few() -> None:
    picks = list_picks(alike(6), 3, seed=0)
    assert set(picks) == set(combinations(range(6), 3))
    rules = {rule: pick for pick, rule in picks.items() if rule}
    assert rules == {
        "alternate": (0, 2, 4),
        "spread": (0, 2, 5),
        "top": (3, 4, 5),
        "bottom": (0, 1, 2),
    }


def test_a_pick_that_several_rules_make_is_tried_once_and_names_them_all() -> None:
    assert list_picks(alike(3), 3, seed=0) == {(0, 1, 2): "alternate, spread, top, bottom"}


@given(depths, st.integers(0, 2**32 - 1), st.data())
def test_picks_to_try_are_those_of_the_rules_and_a_draw_that_the_seed_decides(
    depth: int, seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, depth))
    picks = list_picks(alike(depth), count, seed)
    assert picks == list_picks(alike(depth), count, seed)
    assert len(picks) == min(comb(depth, count), MOST_PICKS)
    for rule in RULES:
        assert rule in picks[pick_layers(alike(depth), StudentShape(layers=rule, count=count))]
    assert all(list(pick) == sorted(set(pick)) and pick[-1] < depth for pick in picks)


def test_more_layers_than_the_teacher_has_are_refused_with_what_is_accepted() -> None:
    with pytest.raises(ConfigError, match=r"student\.count: 7 layers .* has 6; accepted: 1 to 6"):
        pick_layers(alike(6), StudentShape(count=7))


def test_a_layer_that_the_teacher_has_not_is_refused_with_what_is_accepted() -> None:
    message = r"student\.layers: \[0, 6\] names layer 6, .* has 6; accepted: 0 to 5"
    with pytest.raises(ConfigError, match=message):
        pick_layers(alike(6), StudentShape(layers=(0, 6)))


def test_the_last_layers_of_which_every_token_is_computed_are_aligned_by_default() -> None:
    rule = LossWeights().hidden_layers
    assert map_layers(3, 6, rule) == ((3, 6),)
    assert map_layers(3, 6, rule, first_token_alone=True) == ((2, 4),)
    assert map_layers(3, 6, "last", first_token_alone=True) == ((3, 6),)


def test_uniform_aligns_layers_at_the_same_share_of_the_depth() -> None:
    assert map_layers(3, 6, "uniform") == ((1, 2), (2, 4), (3, 6))
    assert map_layers(4, 12, "uniform") == ((1, 3), (2, 6), (3, 9), (4, 12))  # TinyBERT's g(m) = 3m
    assert map_layers(4, 6, "uniform") == ((1, 2), (2, 3), (3, 4), (4, 6))


@given(depths, st.data())
def test_uniform_ends_with_both_last_layers_and_never_turns_back(
    depth: int, data: st.DataObject
) -> None:
    pairs = map_layers(data.draw(st.integers(1, depth)), depth, "uniform")
    theirs = [teacher for _, teacher in pairs]
    assert theirs == sorted(set(theirs))
    assert pairs[-1][1] == depth
    assert theirs[0] >= 1


def test_layers_to_align_are_taken_by_number() -> None:
    assert map_layers(2, 6, (1, 6)) == ((1, 1), (2, 6))


@pytest.mark.parametrize("rule", [(6,), (1, 2, 3), (1, 7)])
def test_alignments_that_do_not_fit_are_refused(rule: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"losses\.hidden_layers: .* accepted: 2 layers"):
        map_layers(2, 6, rule)
