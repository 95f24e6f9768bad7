"""The choice of precision and attention, by steps of known length and on real small models."""

from collections.abc import Callable, Mapping
from functools import partial
from time import sleep
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from distill_core.mode import (
    ROUNDS,
    Mode,
    Precision,
    PrecisionError,
    attention_of,
    autocast,
    choose_mode,
    modes,
    not_emulated,
    time_products,
    with_attention,
)

FP32, BF16, EAGER = Mode("fp32", "sdpa"), Mode("bf16", "sdpa"), Mode("bf16", "eager")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def lasting(ms: Mapping[Mode, float]) -> dict[Mode, Callable[[], None]]:
    """Return steps that take a known time."""
    return {mode: partial(sleep, duration / 1000) for mode, duration in ms.items()}


def test_the_mode_that_is_clearly_faster_is_chosen() -> None:
    choice = choose_mode(lasting({FP32: 30, BF16: 20, EAGER: 10}))
    assert choice.mode == EAGER
    assert choice.step_ms["fp32, sdpa attention"] >= 30
    assert 10 <= choice.step_ms["bf16, eager attention"] < choice.step_ms["bf16, sdpa attention"]


@pytest.mark.parametrize("bf16_ms", [99, 110])
def test_the_first_is_kept_near_a_tie_and_where_others_are_slower(bf16_ms: float) -> None:
    assert choose_mode(lasting({FP32: 100, BF16: bf16_ms, EAGER: 120})).mode == FP32


def _unfit() -> None:
    raise PrecisionError("bf16", RuntimeError("overflow"))


def test_a_mode_that_the_models_code_cannot_compute_in_is_left_out() -> None:
    steps = lasting({FP32: 1, EAGER: 1})
    assert choose_mode({**steps, BF16: _unfit}).step_ms.keys() == {m.name for m in (FP32, EAGER)}
    assert choose_mode({FP32: steps[FP32], BF16: _unfit}).mode == FP32
    with pytest.raises(PrecisionError, match=r"bf16: .*\(overflow\); accepted: auto or fp32$"):
        choose_mode({BF16: _unfit, EAGER: _unfit})


def test_the_first_step_of_each_mode_is_not_timed() -> None:
    # Steps of 200, 10, 10 and 10 ms: the median of the last three is 10.
    calls: list[Mode] = []

    def slow_at_first(mode: Mode) -> None:
        sleep(0.01 if mode in calls else 0.2)
        calls.append(mode)

    choice = choose_mode({mode: partial(slow_at_first, mode) for mode in (FP32, BF16)})
    assert max(choice.step_ms.values()) < 80
    assert calls == [FP32, BF16] * (ROUNDS + 1)


def test_a_precision_that_takes_more_than_twice_fp32s_time_for_a_product_is_not_tried() -> None:
    tried = [FP32, BF16, EAGER]
    assert not_emulated(tried, {"fp32": 0.001, "bf16": 0.1}) == [FP32]
    assert not_emulated(tried, {"fp32": 0.001, "bf16": 0.0019}) == tried
    assert not_emulated([BF16, EAGER], {"bf16": 0.1}) == [BF16, EAGER]  # what a user asked for


class WithoutBf16(TorchFunctionMode):
    """A processor that takes a twentieth of a second for each product of bf16."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.Tensor.matmul and args[0].dtype is torch.bfloat16:
            sleep(0.05)
        return function(*args, **kwargs or {})


def test_a_product_is_timed_in_each_precision() -> None:
    with WithoutBf16():
        times = time_products(["fp32", "bf16"], CPU)
    assert times["bf16"] >= 0.05
    assert 0 < times["fp32"] < 0.025


def test_plain_attention_is_tried_in_bf16_on_a_cpu_alone() -> None:
    assert modes("auto", "sdpa", CPU) == [FP32, BF16, EAGER]
    assert modes("bf16", "sdpa", CPU) == [BF16, EAGER]
    assert modes("auto", "sdpa", GPU) == [FP32, BF16, Mode("fp16", "sdpa")]
    assert modes("fp32", "sdpa", CPU) == [FP32]
    assert modes("auto", "eager", CPU) == [Mode("fp32", "eager"), EAGER]


@torch.inference_mode()
def test_a_copy_with_other_attention_answers_alike(fitted_teacher: PreTrainedModel) -> None:
    assert attention_of(fitted_teacher) == "sdpa"
    plain = with_attention(fitted_teacher, "eager")
    assert (attention_of(plain), attention_of(fitted_teacher)) == ("eager", "sdpa")
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    answers = [model(ids, torch.ones_like(ids)).logits for model in (fitted_teacher, plain)]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)
    with torch.no_grad():
        next(plain.parameters()).zero_()
    assert next(fitted_teacher.parameters()).abs().sum() > 0


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_product_is_computed_in_the_precision_of_its_context(
    precision: Precision, dtype: torch.dtype
) -> None:
    with autocast(precision, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is dtype
