"""Check a bundle against its manifest: hashes, signature of the graph, golden examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from distill_core.errors import BundleError
from distill_core.files import file_digest, read_json
from distill_core.heads import HEADS, Head
from distill_core.pooling import Pooling
from distill_core.runtime import golden_row
from distill_core.session import open_session

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FileEntry(_Part):
    """One file of the bundle."""

    path: str
    """Relative to the bundle."""
    bytes: int
    sha256: str


class TensorEntry(_Part):
    """An input or output of the ONNX file."""

    name: str
    shape: tuple[int | str, ...]
    """Names stand for lengths that vary."""
    dtype: str


class Filled(_Part):
    """What a fixed length costs the file that the target loads."""

    length: int
    """Tokens of every text, filled up or cut."""
    texts: int
    """How many were asked with and without it."""
    cut: int
    answered_otherwise: int


class Golden(_Part):
    """A text and what the bundle must make of it."""

    text: str
    pair: str | None = None
    """The second text, where two are judged together."""
    choices: tuple[str, ...] | None = None
    """The second texts, where one of several is chosen."""
    inputs: dict[str, tuple[int, ...] | tuple[tuple[int, ...], ...]]
    """Token ids and masks, by input name; of each choice, padded to the longest, where there are several;
    padded to the length of the file's inputs, where that is fixed."""
    offsets: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Of each sequence, where each of its tokens begins and ends in the text that it is of, in Unicode code
    points; (0, 0) of special ones."""
    logits: tuple[float, ...]
    """What the file answers with, which may be probabilities or numbers of labels (`answer` of the manifest):
    row by row where it answers each token, without those of padding."""
    unsure: tuple[int, ...] = ()
    """Places among these numbers that another processor may well answer otherwise: labels, or tokens of a
    span, whose logits are too close, and all of a text whose logits move far when sums are rounded
    otherwise."""
    label: str
    """What the logits say: the class, the classes, the score, the tag of each token, the answer (empty if
    there is none), or the number of the choice."""


class Manifest(_Part):
    """What is in a bundle and how it must behave."""

    schema_version: Literal[1] = 1
    name: str
    target: str
    runtime: str
    instruction_set: str
    oldest_runtime: str = ""
    """Oldest version of the runtime that is promised to load it."""
    provider: str | None = None
    """Execution provider that is to run it; none is the CPU."""
    verifiers: tuple[str, ...] = ()
    """Where `distill-deploy verify --everywhere` asks it, beside the machine itself."""
    task: str
    scheme: str
    model: str
    """The file that the target loads, relative to the bundle."""
    ort_model: str | None = None
    """The same in onnxruntime's own format, for its reduced builds."""
    opset: int
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    answer: Literal["logits", "probabilities", "label", "span"] = "logits"
    """What the file answers with."""
    padding: dict[str, int] = Field(default_factory=dict)
    """What fills each input up to the length of its shape, where that is fixed."""
    filled: Filled | None = None
    """What that costs."""
    labels: tuple[str, ...]
    pooling: Pooling | None = None
    """How the vectors of a text's tokens become one, where a task needs that."""
    max_length: int
    """Tokens, the special ones included; longer texts are cut."""
    teacher_fingerprint: str
    metrics: dict[str, float]
    """Of the quantized file on rows that were never trained on."""
    retention: float
    agreement: float
    files: tuple[FileEntry, ...]
    golden: tuple[Golden, ...]
    logit_tolerance: float
    """Largest difference from a golden number that is not unsure: other processors round otherwise."""
    versions: dict[str, str]

    @property
    def head(self) -> Head:
        """What reads the file's answers."""
        return HEADS[self.task](self.labels, self.pooling)

    @property
    def plain(self) -> bool:
        """Whether the file reads 64 bits and texts of any length, and answers with logits."""
        narrow = any(entry.dtype == "int32" for entry in self.inputs)
        return self.answer == "logits" and not self.padding and not narrow


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


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        BundleError: there is none, or it is not one that this version reads.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{bundle}: no {MANIFEST}, so this is no bundle; accepted: OUTPUT/bundles/TARGET"
        )
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"{path}: {where}: {first['msg']}; published by another version?"
        ) from None
    except ValueError as error:
        raise BundleError(f"{path}: is not JSON: {error}") from None


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
