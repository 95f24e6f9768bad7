"""The training rows that are read to quantize."""

import pytest
from datasets import Dataset

from distill_core.quantization.calibration import calibration_rows, set_apart, spread_rows


def _rows(count: int, length: int) -> Dataset:
    return Dataset.from_dict({"number": list(range(count)), "length": [length] * count})


@pytest.mark.parametrize(
    ("rows", "length", "read"),
    [
        (67_349, 13, 2_521),  # 32,768 tokens
        (67_349, 2, 4_096),
        (10_000, 384, 256),
        (100, 13, 100),
    ],
    ids=["short texts", "single words", "long texts", "few rows"],
)
def test_rows_are_as_many_as_enough_tokens_take(rows: int, length: int, read: int) -> None:
    assert len(calibration_rows(_rows(rows, length))) == read


def test_rows_lie_at_even_steps_from_the_first_to_the_last() -> None:
    numbers = spread_rows(_rows(10_001, 8), 5)["number"][:]
    assert numbers == [0, 2_500, 5_000, 7_500, 10_000]


def test_rows_to_judge_by_are_none_of_those_to_round_by() -> None:
    rows = [{"number": number} for number in range(40)]
    read, judged = set_apart(rows)
    assert [row["number"] for row in judged] == [0, 16, 32]
    assert [row for row in rows if row not in judged] == read


def test_a_single_row_serves_for_both() -> None:
    assert set_apart([{"number": 1}]) == ([{"number": 1}], [{"number": 1}])
