"""Table: target → where the file will run and how it is quantized for that place."""

from dataclasses import dataclass

from distill_core.errors import ConfigError


@dataclass(frozen=True)
class Scheme:
    """How the weights and activations of an ONNX file become 8-bit integers."""

    name: str
    per_channel: bool
    """One scale for each output channel of a weight, instead of one for the whole weight."""
    reduce_range: bool
    """7-bit weights: without VNNI, x86 adds two u8 x s8 products in 16 saturating bits, which
    8-bit weights can overflow (Intel 64 and IA-32 Architectures Software Developer's Manual,
    PMADDUBSW)."""
    constant_weights_only: bool
    """Leave the products of two activations (attention's own MatMuls) in fp32: quantizing
    them costs accuracy, and there is no weight whose bytes it would save."""


INT8 = Scheme("int8", True, False, True)
INT8_REDUCED = Scheme("int8-reduced-range", True, True, True)


OPSET = 18
"""The least that optimum recommends for these families. Every onnxruntime since 1.14, of
February 2023, reads it (onnxruntime, "Compatibility", table of ONNX opsets)."""


@dataclass(frozen=True)
class Target:
    """A place where the artifact will run."""

    name: str
    instruction_set: str
    runtime: str
    scheme: Scheme


TARGETS = {
    target.name: target
    for target in (
        Target("android-arm64", "armv8.2-a dot product", "onnxruntime-android", INT8),
        Target("ios-arm64", "armv8.4-a dot product", "onnxruntime-objc", INT8),
        Target("web-wasm", "wasm simd128", "onnxruntime-web", INT8_REDUCED),
        Target("linux-arm64", "armv8.2-a dot product", "onnxruntime", INT8),
        Target("linux-x86-64", "AVX2 or newer, VNNI or not", "onnxruntime", INT8_REDUCED),
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
