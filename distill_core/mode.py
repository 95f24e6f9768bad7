"""The precision and the attention of a training, by timing them on the machine at hand."""

import copy
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from distill_core.errors import ConfigError
from distill_core.teacher import new_like

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

ROUNDS = 3
EMULATED = 2.0
"""A precision whose products take more than this many times fp32's is not tried: a processor without
instructions of its own for bf16 may need a hundred times fp32's time (AVX2 alone, PyTorch 2.13)."""
PRODUCT_SIDE = 512
"""Of the matrices of such a product: 2 ms in fp32 and 207 in emulated bf16 (two cores of Zen 3), so that what
a call costs beside counts little."""

LEAST_GAIN = 1.1
"""Another mode must be a tenth faster: near a tie, noise would choose, and the same seed would give
another student."""


class Mode(NamedTuple):
    """How a training computes."""

    precision: Precision
    attention: str
    """transformers' name of the implementation."""

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.precision}, {self.attention} attention"


@dataclass(frozen=True)
class ModeChoice:
    """The mode of a training, and the timings that chose it."""

    mode: Mode
    step_ms: dict[str, float] = field(default_factory=dict)
    """Median time of a training step in each mode, by name; empty where there was no choice."""


def modes(setting: Precision | Literal["auto"], attention: str, device: torch.device) -> list[Mode]:
    """Return the modes worth a try, the one with the least surprises first.

    What a processor claims is no guide: some that list avx512_bf16 train slower in bf16. Fused
    attention is no gain everywhere either: its backward pass in bf16 on an EPYC with avx512_bf16
    took 12.6 ms for 32 texts of 13 tokens where plain matrix products took 1.5, 72 ms against 20 at
    128 tokens, and was the faster one at 512. fp16 is tried on GPUs alone: without instructions of its
    own a matrix product and its gradient take 19 times bf16's time.

    Args:
        setting: a precision, or auto for all.
        attention: that the models were loaded with.
        device: of the training.
    """
    on_cpu = device.type == "cpu"
    every: Sequence[Precision] = ("fp32", "bf16") if on_cpu else ("fp32", "bf16", "fp16")
    precisions = every if setting == "auto" else (setting,)
    found = [Mode(precision, attention) for precision in precisions]
    if "bf16" in precisions and attention == "sdpa" and on_cpu:
        found.append(Mode("bf16", "eager"))
    return found


def not_emulated(tried: Sequence[Mode], product_s: Mapping[Precision, float]) -> list[Mode]:
    """Return the modes whose matrix products the machine has instructions for; the first stays.

    Args:
        tried: the modes worth a try.
        product_s: the time of a product in each precision, in seconds.
    """
    most = EMULATED * product_s[tried[0].precision]
    return [mode for mode in tried if product_s[mode.precision] <= most]


def time_products(
    precisions: Collection[Precision], device: torch.device
) -> dict[Precision, float]:
    """Return the time of a product of two small matrices in each precision, in seconds."""
    return {precision: _product_s(precision, device) for precision in precisions}


def _product_s(precision: Precision, device: torch.device) -> float:
    matrix = torch.ones(PRODUCT_SIDE, PRODUCT_SIDE, dtype=DTYPES[precision], device=device)
    durations = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # a GPU is waited for
        durations.append(time.perf_counter() - start)
    return min(durations)


class PrecisionError(ConfigError):
    """The code of a model does not compute in a precision, as DeBERTa's first does not in bf16."""

    def __init__(self, precision: str, reason: BaseException) -> None:
        """Say which and why."""
        super().__init__(
            f"training.precision: {precision}: the model's own code does not compute in it ({reason}); "
            "accepted: auto or fp32"
        )


def choose_mode(steps: Mapping[Mode, Callable[[], None]]) -> ModeChoice:
    """Return the fastest mode; of those near a tie, the first.

    Args:
        steps: of each mode, forward and backward pass of one batch, without an optimizer step.

    Raises:
        PrecisionError: by the step of every mode; one that raises it is left out.
    """
    steps = _able(steps)
    if len(steps) == 1:
        return ModeChoice(next(iter(steps)))
    times: dict[Mode, list[float]] = {mode: [] for mode in steps}
    for _ in range(ROUNDS):
        for mode, step in steps.items():
            start = time.perf_counter()
            step()
            times[mode].append(1000 * (time.perf_counter() - start))
    medians = {mode: statistics.median(durations) for mode, durations in times.items()}
    chosen = next(iter(medians))
    for mode, median in medians.items():
        if medians[chosen] > LEAST_GAIN * median:
            chosen = mode
    return ModeChoice(chosen, {mode.name: value for mode, value in medians.items()})


def _able(steps: Mapping[Mode, Callable[[], None]]) -> Mapping[Mode, Callable[[], None]]:
    """Take the first step in each mode, which allocates memory and compiles kernels; leave out the unfit."""
    able = {}
    for mode, step in steps.items():
        try:
            step()
        except PrecisionError as error:
            unfit = error
        else:
            able[mode] = step
    if not able:
        raise unfit
    return able


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which a forward pass computes in a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def attention_of(model: PreTrainedModel) -> str:
    """Return transformers' name of a model's implementation of attention."""
    return str(model.config._attn_implementation)


def with_attention(model: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Return a copy of a model with another implementation of attention; frozen weights stay frozen."""
    if attention == attention_of(model):
        return copy.deepcopy(model)
    config = copy.deepcopy(model.config)
    config._attn_implementation = attention
    other = new_like(model, config)
    other.load_state_dict(model.state_dict())
    for copied, parameter in zip(other.parameters(), model.parameters(), strict=True):
        copied.requires_grad_(parameter.requires_grad)
    return other.train(model.training)
