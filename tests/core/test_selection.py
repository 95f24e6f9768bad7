"""The file that a target gets: the smallest within the gate that nobody waits longer for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.gate import Gate
from distill_core.selection import SLOWER, Candidate, choose

INT8 = Candidate("int8", "a", "11", 0.001, 0.01, 0.002, 20_000_000, 1.0, 50.0, 100.0)
INT4 = Candidate("int8-of-4-bits", "b", "22", 0.004, 0.03, 0.009, 10_000_000, 1.05, 60.0, 100.0)


def test_the_smaller_file_within_the_gate_is_chosen() -> None:
    choice = choose([INT8, INT4], Gate(), "web-wasm")
    assert choice.chosen == INT4
    assert choice.verdicts == ("2.00 times as large as int8-of-4-bits", "chosen")


def test_a_file_that_loses_too_much_is_not_chosen() -> None:
    choice = choose([INT8, replace(INT4, drop=0.02)], Gate(quantization_drop=0.01), "web-wasm")
    assert choice.chosen == INT8
    assert choice.verdicts[1].startswith("web-wasm: quantization_drop: 0.02")


def test_a_file_that_changes_too_many_answers_is_not_chosen_though_it_is_as_right() -> None:
    choice = choose([INT8, INT4], Gate(quantization_flips=0.02), "web-wasm")
    assert choice.chosen == INT8
    assert choice.verdicts[1].startswith("web-wasm: quantization_flips: 0.03")


def test_a_file_that_is_slower_is_not_chosen_for_being_smaller() -> None:
    slow = replace(INT4, p50_ms=1.2)
    choice = choose([INT8, slow], Gate(), "web-wasm")
    assert choice.chosen == INT8
    assert choice.verdicts[1] == "takes 1.20 times as long as int8"


def test_what_is_for_the_web_is_held_against_each_other_in_wasm() -> None:
    # Natively the smaller one is too slow, in wasm it is not; and the other way round.
    large, small = replace(INT8, wasm_p50_ms=6.0), replace(INT4, p50_ms=1.2, wasm_p50_ms=6.1)
    assert choose([large, small], Gate(), "web-wasm").chosen == small
    small = replace(INT4, wasm_p50_ms=7.5)
    choice = choose([large, small], Gate(), "web-wasm")
    assert choice.chosen == large
    assert choice.verdicts[1] == "takes 1.25 times as long as int8 in wasm"


def test_of_equal_files_the_one_with_fewer_flips_is_chosen() -> None:
    worse = replace(INT8, scheme="other", sha256="33", flips=0.02)
    choice = choose([worse, INT8], Gate(), "web-wasm")
    assert choice.chosen == INT8
    assert choice.verdicts == ("flips 2.00% of the answers, int8 1.00%", "chosen")


def test_of_one_file_made_twice_the_first_is_taken_whatever_the_clock_says() -> None:
    twin = replace(INT8, scheme="int8-of-4-bits", key="b", p50_ms=0.2)
    choice = choose([INT8, twin], Gate(), "web-wasm")
    assert choice.chosen is INT8
    assert choice.verdicts == ("chosen", "the same file as int8")


@pytest.mark.parametrize("limits", [{"max_mb": {"web-wasm": 15}}, {"max_mb": {"ios-arm64": 15}}])
def test_limits_are_those_of_the_target(limits: dict[str, dict[str, float]]) -> None:
    slow = replace(INT4, p50_ms=9.0)
    limited = "web-wasm" in limits["max_mb"]
    assert choose([INT8, slow], Gate(**limits), "web-wasm").chosen == (slow if limited else INT8)


def test_where_nothing_is_within_the_gate_the_one_that_loses_least_is_shown() -> None:
    bad, worse = replace(INT8, drop=0.02), replace(INT4, drop=0.05)
    choice = choose([worse, bad], Gate(), "web-wasm")
    assert choice.chosen == bad
    assert all("quantization_drop" in verdict for verdict in choice.verdicts)


def test_of_files_that_are_small_enough_the_nearest_to_the_student_is_chosen() -> None:
    limited = Gate(max_mb={"web-wasm": 20})
    choice = choose([INT8, INT4], limited, "web-wasm")
    assert choice.chosen == INT8
    assert choice.verdicts == ("chosen", "farther from the student: 0.009, int8 0.002")
    assert choose([INT8, INT4], limited, "ios-arm64").chosen == INT4


def test_a_farther_file_is_not_refused_for_its_size_where_that_is_small_enough() -> None:
    far = replace(INT8, distance=0.02)
    choice = choose([far, INT4], Gate(max_mb={"web-wasm": 20}), "web-wasm")
    assert choice.chosen == INT4
    assert choice.verdicts[0] == "farther from the student: 0.02, int8-of-4-bits 0.009"


def test_of_those_that_are_as_near_the_smaller_one_is_chosen() -> None:
    alike = replace(INT4, distance=INT8.distance)
    choice = choose([INT8, alike], Gate(max_mb={"web-wasm": 20}), "web-wasm")
    assert choice.chosen == alike
    assert choice.verdicts == ("2.00 times as large as int8-of-4-bits", "chosen")


_candidates = st.lists(
    st.builds(
        Candidate,
        st.sampled_from(["a", "b", "c"]),
        st.just(""),
        st.uuids().map(str),
        st.floats(-0.01, 0.02),
        st.floats(0, 0.1),
        st.floats(0, 0.1),
        st.integers(1_000, 100_000_000),
        st.floats(0.1, 10),
        st.floats(1, 100),
        st.floats(10, 1000),
    ),
    min_size=1,
    max_size=5,
)


@given(_candidates)
def test_no_file_within_the_gate_is_smaller_and_as_fast(candidates: list[Candidate]) -> None:
    gate = Gate(quantization_drop=0.01)
    choice = choose(candidates, gate, "web-wasm")
    within = [entry for entry in candidates if entry.drop <= 0.01]
    if not within:
        assert choice.chosen.drop == min(entry.drop for entry in candidates)
        return
    assert choice.chosen in within
    fastest = min(entry.p50_ms for entry in within)
    assert choice.chosen.p50_ms <= SLOWER * fastest
    fast = [entry for entry in within if entry.p50_ms <= SLOWER * fastest]
    assert choice.chosen.bytes == min(entry.bytes for entry in fast)


@given(_candidates)
def test_with_a_size_limit_no_file_within_the_gate_is_nearer_and_as_fast(
    candidates: list[Candidate],
) -> None:
    gate = Gate(quantization_drop=0.01, max_mb={"web-wasm": 50})
    chosen = choose(candidates, gate, "web-wasm").chosen
    within = [entry for entry in candidates if entry.drop <= 0.01 and entry.bytes <= 50e6]
    if within:
        fastest = min(entry.p50_ms for entry in within)
        fast = [entry for entry in within if entry.p50_ms <= SLOWER * fastest]
        assert chosen in fast
        assert chosen.distance == min(entry.distance for entry in fast)
