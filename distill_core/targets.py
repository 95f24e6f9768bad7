"""Table: target → where the file will run, and the schemes that are tried for that place."""

from collections.abc import Iterable
from dataclasses import dataclass

from distill_core.errors import ConfigError
from distill_core.schemes import (
    INT4,
    INT4_REDUCED,
    INT8,
    INT8_FUSED_REDUCED,
    INT8_REDUCED,
    Scheme,
)

OPSET = 18
"""The least that optimum recommends for these families. Every onnxruntime since 1.14, of
February 2023, reads it (onnxruntime, "Compatibility", table of ONNX opsets)."""

_FULL_RANGE = (INT8, INT4)
_SEVEN_BITS = (INT8_REDUCED, INT4_REDUCED)
_WASM = (*_SEVEN_BITS, INT8_FUSED_REDUCED)
"""Fused operators are 1.2 to 1.8 times as fast in Chromium, and 10% slower on x86."""


@dataclass(frozen=True)
class Target:
    """A place where the artifact will run."""

    name: str
    instruction_set: str
    runtime: str
    schemes: tuple[Scheme, ...]
    """What is measured; the best of them within the gate is shipped."""


TARGETS = {
    target.name: target
    for target in (
        Target("android-arm64", "armv8.2-a dot product", "onnxruntime-android", _FULL_RANGE),
        Target("android-arm64-legacy", "armv8-a", "onnxruntime-android", _FULL_RANGE),
        Target("ios-arm64", "armv8.4-a dot product", "onnxruntime-objc", _FULL_RANGE),
        Target("web-wasm", "wasm simd128", "onnxruntime-web", _WASM),
        Target("linux-arm64", "armv8.2-a dot product", "onnxruntime", _FULL_RANGE),
        Target("linux-x86-64", "AVX2 or newer, VNNI or not", "onnxruntime", _SEVEN_BITS),
        Target("linux-x86-64-vnni", "AVX512-VNNI or AVX-VNNI", "onnxruntime", _FULL_RANGE),
    )
}


def find_target(name: str) -> Target:
    """Return the row of a target.

    Raises:
        ConfigError: there is no such target; the message lists those there are.
    """
    if name not in TARGETS:
        raise ConfigError(f"targets: there is no target {name!r}; accepted: {', '.join(TARGETS)}")
    return TARGETS[name]


def schemes_of(targets: Iterable[str]) -> list[Scheme]:
    """Return each scheme that one of several targets tries, once.

    Raises:
        ConfigError: there is no such target.
    """
    return list(dict.fromkeys(scheme for name in targets for scheme in find_target(name).schemes))
