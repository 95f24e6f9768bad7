"""What the main job's files answer in each place: against the fp32 student, and against each other."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from distill_core.batches import open_tokenized
from distill_core.benchmark import pick_rows
from distill_core.manifest import read_manifest
from distill_core.teacher import load_tokenizer
from distill_core.verifiers import FOLDER, VERIFIERS, Asked, Question, ask, find_verifiers
from tests.bench.harness import latest_stage
from tests.bench.jobs import SST2, run_job

ROWS = 200
PLACES = (
    "native",
    "x86-64-no-vnni",
    "arm64-dotprod",
    "arm64-no-dotprod",
    "node-wasm",
    "chromium-wasm",
)
TARGETS = ("linux-x86-64", "android-arm64", "web-wasm")
"""Whose files are asked; two of one scheme are one file."""


def measure_agreement(target: str) -> Mapping[str, Any]:
    """Ask the file that the main job ships for a target in every place, on rows of SST-2.

    Args:
        target: one of `TARGETS`.

    Raises:
        RuntimeError: the main job published no bundles, or this machine lacks a place.
    """
    run_job(SST2)
    run = SST2.output()
    bundle = run / "bundles" / target
    if not bundle.is_dir():
        raise RuntimeError(f"{bundle}: is missing; run `python -m tests.bench main-job` first")
    places, missing = find_verifiers(PLACES)
    if missing:
        raise RuntimeError(f"{', '.join(missing)}: not under {FOLDER}; run `make verifiers` first")
    rows = open_tokenized(latest_stage(run / "stages", "data") / "rows")["validation"]
    texts = [row["text"] for row in rows.select(pick_rows(rows["length"][:], ROWS))]
    return compare_places(bundle, places, texts)


def compare_places(
    bundle: Path, places: Mapping[str, Any], texts: Sequence[str]
) -> Mapping[str, Any]:
    """Return flips and differences of each place, and the agreement of each two of them.

    Args:
        bundle: of a text classifier.
        places: by verifier.
        texts: what is asked.
    """
    manifest = read_manifest(bundle)
    tokenizer = load_tokenizer(bundle)
    questions = [
        Question(dict(tokenizer(text, truncation=True, max_length=manifest.max_length)), (text,))
        for text in texts
    ]
    native = VERIFIERS["native"].find(FOLDER)
    fp32 = _logits("native", native, bundle / "onnx" / "model.onnx", questions)
    file = bundle / manifest.model
    logits = {name: _logits(name, place, file, questions) for name, place in places.items()}
    answers = {name: array.argmax(axis=-1) for name, array in logits.items()}
    return {
        "scheme": manifest.scheme,
        "rows": len(texts),
        "flips": {
            name: int((array != fp32.argmax(axis=-1)).sum()) for name, array in answers.items()
        },
        "agreement": {
            f"{one} | {other}": float((answers[one] == answers[other]).mean())
            for one, other in combinations(answers, 2)
        },
        "largest_difference": {
            name: float(abs(array - logits["native"]).max()) for name, array in logits.items()
        },
    }


def _logits(name: str, place: Any, file: Path, questions: Sequence[Question]) -> Any:
    answers = ask(VERIFIERS[name], place, Asked(file), questions, seconds=1_800)
    return np.concatenate([outputs["logits"] for outputs in answers.outputs])
