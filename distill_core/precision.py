"""fp32 or bf16, by timing both on the machine at hand."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

ROUNDS = 3
LEAST_GAIN = 1.1
"""bf16 must be a tenth faster: near a tie, noise would choose, and the same seed would give
another student."""


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a run, and the timings that chose it."""

    precision: Precision
    step_ms: dict[str, float]
    """Median time of a training step in each precision; empty when the user chose."""


def choose_precision(
    setting: Literal["auto", "fp32", "bf16"], step: Callable[[Precision], None]
) -> PrecisionChoice:
    """Return the faster precision for training on this machine.

    What a processor claims is no guide: some that list avx512_bf16 train slower in bf16.

    Args:
        setting: a precision, or auto.
        step: forward and backward pass of one batch in a precision, without an optimizer step.
    """
    if setting != "auto":
        return PrecisionChoice(setting, {})
    times: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for round_number in range(ROUNDS + 1):
        for precision, durations in times.items():
            start = time.perf_counter()
            step(precision)
            if round_number > 0:  # the first one allocates memory and compiles kernels
                durations.append(1000 * (time.perf_counter() - start))
    medians = {precision: statistics.median(durations) for precision, durations in times.items()}
    faster: Precision = "bf16" if medians["fp32"] > LEAST_GAIN * medians["bf16"] else "fp32"
    return PrecisionChoice(faster, {str(name): value for name, value in medians.items()})


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which a forward pass computes in a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
