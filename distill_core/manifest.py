"""A bundle's manifest: what is in it, and how it must behave."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill_core.errors import BundleError
from distill_core.files import read_json
from distill_core.heads import HEADS, Head
from distill_core.pooling import Pooling

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
