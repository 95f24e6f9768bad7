"""Table: verifier → where it answers rows, and how this machine finds it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distill_core.verifiers import tools
from distill_core.verifiers.tools import Place


@dataclass(frozen=True)
class Verifier:
    """A place where a file's answers can be had. Nothing is ever timed where it is emulated."""

    name: str
    instruction_set: str
    runtime: str
    find: Callable[[Path], Place | None]
    """From what `make verifiers` fills to how it is reached, or None."""
    loads_bundle: bool = False
    """Whether it loads the folder, tokenizer included, and not the file alone."""


NATIVE = "native"
"""The verifier that every machine has; others are held against it."""

VERIFIERS = {
    verifier.name: verifier
    for verifier in (
        Verifier(
            NATIVE,
            "this machine's",
            "onnxruntime",
            lambda folder: tools.this_machine(),
        ),
        Verifier("x86-64-vnni", "AVX512-VNNI or AVX-VNNI", "onnxruntime", tools.vnni),
        Verifier("x86-64-no-vnni", "AVX2", "onnxruntime", tools.x86_without_vnni),
        # QEMU's -cpu max is left out: int8 products were wrong there unless sve=off, kernel or emulator.
        Verifier(
            "arm64-dotprod",
            "armv8.2-a dot product",
            "onnxruntime",
            partial(tools.arm64, cpu="cortex-a76", dot_product=True),
        ),
        Verifier(
            "arm64-no-dotprod",
            "armv8-a",
            "onnxruntime",
            partial(tools.arm64, cpu="cortex-a53", dot_product=False),
        ),
        Verifier(
            "oldest-arm64",
            "armv8.2-a dot product",
            "onnxruntime",
            partial(tools.arm64, cpu="cortex-a76", dot_product=True, packages="oldest"),
        ),
        Verifier("oldest-onnxruntime", "this machine's", "onnxruntime", tools.oldest_onnxruntime),
        Verifier(
            "node-wasm",
            "wasm simd128",
            "onnxruntime-web",
            partial(tools.node, package="onnxruntime-web"),
        ),
        Verifier(
            "oldest-node-wasm",
            "wasm simd128",
            "onnxruntime-web",
            partial(tools.node, package="onnxruntime-web-1.17"),
        ),
        Verifier(
            "chromium-wasm",
            "wasm simd128",
            "onnxruntime-web",
            partial(tools.chromium, library="onnxruntime-web", package="onnxruntime-web"),
        ),
        Verifier(
            "chromium-transformers.js",
            "wasm simd128",
            "transformers.js",
            partial(tools.chromium, library="transformers.js", package="@huggingface/transformers"),
            loads_bundle=True,
        ),
    )
}
