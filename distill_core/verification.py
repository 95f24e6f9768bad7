"""Check a bundle against its manifest: hashes, signature of the graph, golden examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Shaped
from tokenizers import Tokenizer

from distill_core.errors import BundleError
from distill_core.files import file_digest
from distill_core.manifest import MANIFEST, SIGNATURE, Golden, Manifest, read_manifest
from distill_core.runtime import golden_row
from distill_core.session import open_session


@dataclass(frozen=True)
class Verification:
    """What a verification found."""

    manifest: Manifest
    problems: tuple[str, ...]
    largest_difference: float
    """Of any golden logit."""
    verified_on: str
    """Instruction set, runtime and its version."""

    @property
    def passed(self) -> bool:
        """Whether the bundle is what its manifest says."""
        return not self.problems


def verify(bundle: Path) -> Verification:
    """Re-check every hash, load the model, and replay the golden examples.

    Raises:
        BundleError: there is no manifest, or one that cannot be read.
    """
    manifest = read_manifest(bundle)
    problems = _check_files(bundle, manifest)
    differences = [0.0]
    if not problems:
        problems += _check_tokenizer(bundle, manifest)
        found, differences = _replay(bundle, manifest)
        problems += found
    return Verification(manifest, tuple(problems), max(differences), verified_on())


def verified_on() -> str:
    """Name what this process verifies on: instruction set, runtime and version."""
    import platform

    return f"{platform.system().lower()}-{platform.machine()} onnxruntime {onnxruntime.__version__}"


def _check_files(bundle: Path, manifest: Manifest) -> list[str]:
    problems = []
    for entry in manifest.files:
        path = bundle / entry.path
        if not path.is_file():
            problems.append(f"{entry.path}: is missing")
        elif path.stat().st_size != entry.bytes:
            problems.append(
                f"{entry.path}: {path.stat().st_size} bytes, the manifest says {entry.bytes}"
            )
        elif file_digest(path) != entry.sha256:
            problems.append(f"{entry.path}: its content is not what was published (sha256 differs)")
    known = {entry.path for entry in manifest.files} | {MANIFEST, SIGNATURE}
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    return problems + [f"{name}: is not in the manifest" for name in sorted(there - known)]


def open_tokenizer(bundle: Path, max_length: int) -> Tokenizer:
    """Open a tokenizer.json as an app does: it cuts what is too long, and pads nothing."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def _check_tokenizer(bundle: Path, manifest: Manifest) -> list[str]:
    tokenizer = open_tokenizer(bundle, manifest.max_length)
    problems = []
    for number, golden in enumerate(manifest.golden):
        ids, offsets = encode(tokenizer, golden.text, golden.choices or (golden.pair,))
        what = "token ids" if ids != _golden_ids(golden) else "offsets"
        if what == "token ids" or (golden.offsets and offsets != golden.offsets):
            problems.append(
                f"golden example {number}: the tokenizer makes other {what} of {golden.text[:40]!r}"
            )
    return problems


def encode(
    tokenizer: Tokenizer, text: str, seconds: Sequence[str | None]
) -> tuple[list[list[int]], tuple[tuple[tuple[int, int], ...], ...]]:
    """Return token ids and offsets of a text beside each of several others, or of none.

    Args:
        tokenizer: that cuts what is too long, and pads nothing.
        text: the first one.
        seconds: the others; None is none.
    """
    found = [tokenizer.encode(text, second) for second in seconds]
    return [entry.ids for entry in found], tuple(tuple(entry.offsets) for entry in found)


def _golden_ids(golden: Golden) -> list[list[int]]:
    """Return the token ids of each sequence, without padding."""
    ids, mask = (np.atleast_2d(golden.inputs[name]) for name in ("input_ids", "attention_mask"))
    return [row[counted].tolist() for row, counted in zip(ids, mask == 1, strict=True)]


def _replay(bundle: Path, manifest: Manifest) -> tuple[list[str], list[float]]:
    problems: list[str] = []
    differences = [0.0]
    try:
        expected = [np.asarray(golden.logits) for golden in manifest.golden]
        problems, found = _compare(manifest, _answers(bundle, manifest.model, manifest), expected)
        differences += found
        if manifest.ort_model:
            # onnxruntime has no exact products for files of its own format.
            plain, ort = (
                _answers(bundle, file, manifest, exact=False)
                for file in (manifest.model, manifest.ort_model)
            )
            others, found = _compare(manifest, ort, plain)
            problems += [f"{manifest.ort_model}: {problem}" for problem in others]
            differences += found
    except BundleError as error:
        problems.append(str(error))
    return problems, differences


def _answers(
    bundle: Path, file: str, manifest: Manifest, exact: bool = True
) -> list[Shaped[np.ndarray, "..."]]:
    session = open_session(bundle / file, exact=exact)
    return [golden_row(session, manifest.head, golden.inputs) for golden in manifest.golden]


def _compare(
    manifest: Manifest,
    found: Sequence[Shaped[np.ndarray, "..."]],
    expected: Sequence[Shaped[np.ndarray, "..."]],
) -> tuple[list[str], list[float]]:
    differences = list(map(difference_from, manifest.golden, found, expected))
    problems = [
        f"golden example {number}: a logit differs by {difference:.3g}, "
        f"the tolerance is {manifest.logit_tolerance:.3g}: {golden.text[:40]!r}"
        for number, (golden, difference) in enumerate(
            zip(manifest.golden, differences, strict=True)
        )
        if not difference <= manifest.logit_tolerance  # NaN fails too
    ]
    return problems, differences


def difference_from(
    golden: Golden,
    numbers: Shaped[np.ndarray, "..."],
    expected: Shaped[np.ndarray, "..."] | None = None,
) -> float:
    """Return the largest difference of the numbers of a golden example, but for those that are unsure.

    Args:
        golden: the example.
        numbers: that a file answers.
        expected: that they are to be near to; None are the example's own.
    """
    near = np.asarray(golden.logits) if expected is None else expected
    difference = np.abs(numbers.ravel() - near.ravel())
    difference[list(golden.unsure)] = 0.0
    return float(difference.max())


def as_facts(verification: Verification) -> Mapping[str, Any]:
    """Return a verification as JSON-able values."""
    return {
        "passed": verification.passed,
        "target": verification.manifest.target,
        "problems": list(verification.problems),
        "golden_examples": len(verification.manifest.golden),
        "largest_difference": verification.largest_difference,
        "logit_tolerance": verification.manifest.logit_tolerance,
        "verified_on": [verification.verified_on],
    }
