"""Ask a place for a file's answers, in a process of its own."""

import json
import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float

from distill_core.errors import VerificationError
from distill_core.session import MODEL_INPUTS
from distill_core.verifiers.table import Verifier
from distill_core.verifiers.tools import Place

SECONDS = 120
"""After so many no further row is asked for: emulated, a row of a large model takes seconds."""
_LOADING_SECONDS = 480
"""Beyond these a place is given up: a file is unpacked there before the first row is answered."""

Outputs = Mapping[str, Float[np.ndarray, "1 ..."]]
"""Of one row, by the names of the file's outputs."""


@dataclass(frozen=True)
class Question:
    """A row to be answered."""

    row: Mapping[str, Any]
    """As `Head.read_texts` gives it: token ids and masks under the names of the inputs, and more."""
    texts: tuple[str, ...]
    """What they were made of: a text, two, or one and its choices."""

    @property
    def sequences(self) -> list[dict[str, Any]]:
        """Each pair of texts that is read at once, and its token ids without padding."""
        first, *rest = self.texts
        seconds: list[str | None] = [*rest] or [None]
        masks = np.atleast_2d(self.row["attention_mask"])
        ids = np.atleast_2d(self.row["input_ids"])
        return [
            {"text": first, "second": second, "ids": line[mask == 1].tolist()}
            for second, line, mask in zip(seconds, ids, masks, strict=True)
        ]


@dataclass(frozen=True)
class Asked:
    """What a place is to load."""

    file: Path
    """An ONNX file."""
    dtype: str = "int64"
    """Of its inputs."""
    bundle: Path | None = None
    """The folder that it is of, for a verifier that loads that; then it is its model_quantized.onnx."""
    max_length: int = 0
    """Tokens at which the bundle's texts are cut."""


@dataclass(frozen=True)
class Answers:
    """What a place said."""

    runtime: str
    """With its version."""
    outputs: Sequence[Outputs]
    """Of the rows in their order; of the first ones, where the time was over."""
    other_token_ids: int | None
    """Rows of which the place's own tokenizer makes other token ids; None where it has none."""


def ask(
    verifier: Verifier,
    place: Place,
    asked: Asked,
    questions: Sequence[Question],
    seconds: int = SECONDS,
) -> Answers:
    """Return what a file answers in a place, row by row, as an app would ask.

    Args:
        verifier: the row of the table.
        place: where this machine found it.
        asked: the file.
        questions: the rows.
        seconds: after which no further row is asked for.

    Raises:
        VerificationError: the place cannot load the file, cannot answer a row, or was stopped.
    """
    job = {
        "model": str(asked.file.absolute()),
        "rows": [
            {name: question.row[name] for name in MODEL_INPUTS if name in question.row}
            for question in questions
        ],
        "seconds": seconds,
        "bundle": str(asked.bundle.absolute()) if asked.bundle else None,
        "sequences": [question.sequences for question in questions],
        "max_length": asked.max_length,
        "dtype": asked.dtype,
    }
    with TemporaryDirectory(prefix="distill-deploy-answers-") as folder:
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        problem = _run(place, folder, seconds + _LOADING_SECONDS)
        if problem:
            raise VerificationError(
                f"{verifier.name} ({place.through}): {asked.file} is not answered there: {problem}"
            )
        return _read(Path(folder))


def _run(place: Place, folder: str, limit_s: int) -> str | None:
    """Run the command of a place; return what went wrong."""
    process = subprocess.Popen(
        [*place.before, folder, *place.after],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **place.environment, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # so that a browser's own processes end with it
    )
    try:
        _, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"no end after {limit_s} s"
    finally:
        _end(process)
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"its process was ended by {signal.Signals(-process.returncode).name}"
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {process.returncode}"


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.communicate()


def _read(folder: Path) -> Answers:
    found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    numbers = np.fromfile(folder / "answers.f32", dtype="<f4")
    outputs, start = [], 0
    for shapes in found["rows"]:
        row = {}
        for name, shape in shapes.items():
            size = math.prod(shape)
            row[name] = numbers[start : start + size].reshape(shape)
            start += size
        outputs.append(row)
    other = found.get("other_token_ids")
    return Answers(found["runtime"], outputs, None if other is None else sum(other))
