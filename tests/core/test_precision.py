"""The choice between fp32 and bf16, by steps of known length."""

from collections.abc import Callable
from time import sleep

import pytest
import torch

from distill_core.precision import ROUNDS, Precision, autocast, choose_precision


def step_of(fp32_ms: float, bf16_ms: float) -> Callable[[Precision], None]:
    """Return a step that takes a known time."""
    return lambda precision: sleep({"fp32": fp32_ms, "bf16": bf16_ms}[precision] / 1000)


def test_bf16_is_chosen_where_it_is_clearly_faster() -> None:
    choice = choose_precision("auto", step_of(fp32_ms=30, bf16_ms=10))
    assert choice.precision == "bf16"
    assert choice.step_ms["fp32"] >= 30
    assert 10 <= choice.step_ms["bf16"] < choice.step_ms["fp32"]


@pytest.mark.parametrize("bf16_ms", [96, 110])
def test_fp32_is_kept_near_a_tie_and_where_bf16_is_slower(bf16_ms: float) -> None:
    choice = choose_precision("auto", step_of(fp32_ms=100, bf16_ms=bf16_ms))
    assert choice.precision == "fp32"


def test_the_first_step_of_each_precision_is_not_timed() -> None:
    # Steps of 200, 200, 10 and 10 ms: the median of the last three is 10, that of all is 105.
    calls: list[Precision] = []

    def slow_at_first(precision: Precision) -> None:
        sleep(0.2 if calls.count(precision) < 2 else 0.01)
        calls.append(precision)

    choice = choose_precision("auto", slow_at_first)
    assert max(choice.step_ms.values()) < 80
    assert calls == ["fp32", "bf16"] * (ROUNDS + 1)


@pytest.mark.parametrize("setting", ["fp32", "bf16"])
def test_a_precision_that_the_user_chose_is_taken_without_a_step(setting: Precision) -> None:
    calls: list[Precision] = []
    choice = choose_precision(setting, calls.append)
    assert (choice.precision, choice.step_ms, calls) == (setting, {}, [])


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_product_is_computed_in_the_precision_of_its_context(
    precision: Precision, dtype: torch.dtype
) -> None:
    with autocast(precision, torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is dtype
