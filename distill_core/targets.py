"""Table: target → where the file will run, and the schemes that are tried for that place."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from distill_core.errors import ConfigError
from distill_core.schemes import (
    FP16,
    INT3,
    INT3_REDUCED,
    INT4,
    INT4_REDUCED,
    INT8,
    INT8_REDUCED,
    INT8_STATIC,
    INT8_WORDS,
    INT8_WORDS_REDUCED,
    RUNTIMES,
    SCHEMES,
    Scheme,
)

OPSET = 18
"""The least that optimum recommends for these families. Every onnxruntime since 1.14, of
February 2023, reads it (onnxruntime, "Compatibility", table of ONNX opsets)."""

PROVIDERS = ("NNAPI", "CoreML", "XNNPACK", "QNN")
"""Execution providers whose operators are known: rows of `providers.PROVIDERS`."""

_FULL_RANGE = (INT8, INT8_WORDS, INT4, INT3)
_SEVEN_BITS = (INT8_REDUCED, INT8_WORDS_REDUCED, INT4_REDUCED, INT3_REDUCED)
_CALIBRATED = (INT8_STATIC,)

_ARM64 = ("arm64-dotprod", "oldest-arm64")
_EVERY_ARM64 = ("arm64-dotprod", "arm64-no-dotprod", "oldest-arm64")
_WASM = ("node-wasm", "oldest-node-wasm", "chromium-wasm", "chromium-transformers.js")
_VNNI = ("x86-64-vnni", "oldest-onnxruntime")
_X86 = ("x86-64-vnni", "x86-64-no-vnni", "oldest-onnxruntime")


@dataclass(frozen=True)
class Target:
    """A place where the artifact will run."""

    name: str
    instruction_set: str
    runtime: str
    schemes: tuple[Scheme, ...]
    """What is measured; the best of them within the gate is shipped."""
    verifiers: tuple[str, ...] = ()
    """Rows of `distill_core.verifiers` whose answers are those of this place: what is shipped is asked
    on each of them that the machine has."""
    oldest_runtime: str = "1.17.3"
    """Version of the runtime that is promised to load the file, and older than which none is tried: on x86,
    arm64 and wasm, `oldest-*` among the verifiers."""
    provider: str | None = None
    """Execution provider of onnxruntime that runs the file; null is its CPU. What it takes of a file is
    told by its tables of operators; its speed is not measured, and the CPU of the run's machine stands in."""

    @property
    def in_wasm(self) -> bool:
        """Whether WebAssembly runs its files, so that any machine with node can time them."""
        return self.runtime == "onnxruntime-web"


TARGETS = {
    target.name: target
    for target in (
        Target(
            "android-arm64", "armv8.2-a dot product", "onnxruntime-android", _FULL_RANGE, _ARM64
        ),
        Target("android-arm64-legacy", "armv8-a", "onnxruntime-android", _FULL_RANGE, _EVERY_ARM64),
        Target("ios-arm64", "armv8.4-a dot product", "onnxruntime-objc", _FULL_RANGE, _ARM64),
        Target("web-wasm", "wasm simd128", "onnxruntime-web", _SEVEN_BITS, _WASM),
        Target("linux-arm64", "armv8.2-a dot product", "onnxruntime", _FULL_RANGE, _EVERY_ARM64),
        Target("linux-x86-64", "AVX2 or newer, VNNI or not", "onnxruntime", _SEVEN_BITS, _X86),
        Target("linux-x86-64-vnni", "AVX512-VNNI or AVX-VNNI", "onnxruntime", _FULL_RANGE, _VNNI),
        Target(
            "android-nnapi",
            "armv8.2-a, and what NNAPI finds",
            "onnxruntime-android",
            _CALIBRATED,
            _ARM64,
            provider="NNAPI",
        ),
        Target(
            "android-xnnpack",
            "armv8.2-a dot product",
            "onnxruntime-android",
            _CALIBRATED,
            _ARM64,
            provider="XNNPACK",
        ),
        Target(
            "android-qnn",
            "Qualcomm Hexagon",
            "onnxruntime-android",
            _CALIBRATED,
            _ARM64,
            provider="QNN",
        ),
        Target(
            "ios-coreml",
            "Apple Neural Engine, GPU or CPU",
            "onnxruntime-objc",
            (FP16,),
            _ARM64,
            provider="CoreML",
        ),
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


def derive_target(like: str, name: str, **fields: Any) -> Target:
    """Return a row of a user's own: one that there is, with other values in some of its fields.

    Args:
        like: name of the row that it starts from.
        name: its own.
        fields: of `Target`; schemes by name.

    Raises:
        ConfigError: a name that is unknown, or is another row's, or schemes that the runtime cannot load.
    """
    start = find_target(like)
    if name in TARGETS:
        raise ConfigError(f"name: {name!r} is a target already; give the row a name of its own")
    if "schemes" in fields:
        fields["schemes"] = tuple(_find_scheme(scheme) for scheme in fields["schemes"])
    target = replace(start, name=name, **fields)
    if target.runtime not in RUNTIMES:
        raise ConfigError(
            f"runtime: there is no runtime {target.runtime!r}; accepted: {', '.join(RUNTIMES)}"
        )
    if target.provider not in (None, *PROVIDERS):
        raise ConfigError(
            f"provider: there is no provider {target.provider!r}; accepted: {', '.join(PROVIDERS)}"
        )
    _check_verifiers(target.verifiers)
    for scheme in target.schemes:
        if target.runtime not in scheme.runtimes:
            loaded = [known.name for known in SCHEMES.values() if target.runtime in known.runtimes]
            raise ConfigError(
                f"schemes: {target.runtime} cannot load {scheme.name}; accepted: {', '.join(loaded)}"
            )
    return target


def _check_verifiers(names: Iterable[str]) -> None:
    known = dict.fromkeys(name for row in TARGETS.values() for name in row.verifiers)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"verifiers: there is no verifier {name!r}; accepted: {', '.join(known)}"
            )


def _find_scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise ConfigError(f"schemes: there is no scheme {name!r}; accepted: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def schemes_of(targets: Iterable[Target]) -> list[Scheme]:
    """Return each scheme that one of several targets tries, once."""
    return list(dict.fromkeys(scheme for target in targets for scheme in target.schemes))
