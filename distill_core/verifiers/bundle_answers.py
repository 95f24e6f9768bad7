"""Hold what a bundle's file answers in other places against the fp32 student and this machine."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from distill_core.golden import Texts
from distill_core.heads import Head
from distill_core.manifest import Golden, Manifest, read_manifest
from distill_core.runtime import golden_numbers
from distill_core.teacher import load_tokenizer
from distill_core.verification import difference_from
from distill_core.verifiers.answers import Answers, Asked, Question, ask
from distill_core.verifiers.table import NATIVE, VERIFIERS, Verifier
from distill_core.verifiers.tools import FOLDER, Place

ROWS = 64
"""Emulated, so many of a small student take some 20 s. A file that saturates, or that a runtime reads
otherwise, shows in fewer; what flips in one row of a hundred needs `make bench`'s agreement table."""


def find_verifiers(
    names: Iterable[str], folder: Path = FOLDER
) -> tuple[dict[str, Place], list[str]]:
    """Return where the machine has the verifiers of these names, and the names of those it lacks.

    Args:
        names: rows of `VERIFIERS`.
        folder: what `make verifiers` fills.
    """
    found = {name: VERIFIERS[name].find(folder) for name in dict.fromkeys(names)}
    places = {name: place for name, place in found.items() if place is not None}
    return places, [name for name in found if name not in places]


def verify_answers(
    bundle: Path, places: Mapping[str, Place], texts: Sequence[Texts]
) -> list[dict[str, Any]]:
    """Ask for a bundle's answers in each place; count those that differ from fp32 and from this machine.

    Args:
        bundle: the folder.
        places: by verifier, as `find_verifiers` gives them.
        texts: of the rows that are asked.

    Returns:
        For each place, this machine first: verifier, instruction_set, runtime, through, rows; flips (rows
        that it answers otherwise than the fp32 file does natively), flips_from_native and largest_difference
        from what the same file answers natively, in numbers of `Head.golden`; other_token_ids.

    Raises:
        VerificationError: a place cannot answer; it is named.
    """
    manifest = read_manifest(bundle)
    head = manifest.head
    questions = _questions(bundle, manifest, head, texts)
    native = VERIFIERS[NATIVE]
    here, _ = find_verifiers([NATIVE])
    fp32 = ask(native, here[NATIVE], Asked(bundle / "onnx" / "model.onnx"), questions)
    reference = ask(native, here[NATIVE], Asked(bundle / manifest.model), questions)
    others = {name: place for name, place in places.items() if name != NATIVE}
    answered = {NATIVE: reference, **_ask_all(bundle, manifest, others, questions)}
    return [
        {
            "verifier": name,
            "instruction_set": VERIFIERS[name].instruction_set,
            "through": {**here, **places}[name].through,
            **_compare(head, questions, answers, fp32, reference),
        }
        for name, answers in answered.items()
    ]


def _questions(
    bundle: Path, manifest: Manifest, head: Head, texts: Sequence[Texts]
) -> list[Question]:
    tokenizer = load_tokenizer(bundle)
    return [Question(head.read_texts(t, tokenizer, manifest.max_length), t) for t in texts]


def _ask_all(
    bundle: Path,
    manifest: Manifest,
    places: Mapping[str, Place],
    questions: Sequence[Question],
) -> dict[str, Answers]:
    """Return the answers of each place; as many are asked at once as there are cores."""

    def asked(name: str) -> Answers:
        return _ask(bundle, manifest, VERIFIERS[name], places[name], questions)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(places, pool.map(asked, places), strict=True))


def _ask(
    bundle: Path,
    manifest: Manifest,
    verifier: Verifier,
    place: Place,
    questions: Sequence[Question],
) -> Answers:
    asked = Asked(
        bundle / manifest.model,
        manifest.inputs[0].dtype,
        bundle if verifier.loads_bundle else None,
        manifest.max_length,
    )
    return ask(verifier, place, asked, questions)


def _compare(
    head: Head, questions: Sequence[Question], answers: Answers, fp32: Answers, reference: Answers
) -> dict[str, Any]:
    rows = [question.row for question in questions]
    ours, exact, native = (
        [_logits(head, row, outputs) for row, outputs in zip(rows, given.outputs, strict=False)]
        for given in (answers, fp32, reference)
    )
    differences = [
        float(np.abs(head.golden(a) - head.golden(b)).max())
        for a, b in zip(ours, native, strict=False)
    ]
    return {
        "runtime": answers.runtime,
        "rows": min(len(ours), len(exact)),
        "flips": _flips(head, rows, ours, exact),
        "flips_from_native": _flips(head, rows, ours, native),
        "largest_difference": max(differences),
        "other_token_ids": answers.other_token_ids,
    }


def _logits(
    head: Head, row: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Float[np.ndarray, "..."]:
    return np.asarray(head.read_output(outputs, np.asarray([row["attention_mask"]]))[0])


def _flips(
    head: Head,
    rows: Sequence[Mapping[str, Any]],
    some: Sequence[Float[np.ndarray, "..."]],
    others: Sequence[Float[np.ndarray, "..."]],
) -> int:
    # Of different lengths where the time was over.
    answered = zip(some, others, rows, rows, strict=False)
    return sum(not head.same_answer(*entry) for entry in answered)


def describe(facts: Mapping[str, Any]) -> str:
    """Return what one place said as a line of `verified_on`."""
    flips = facts["flips"]
    said = f"{facts['rows']} rows, {flips} flip{'' if flips == 1 else 's'}"
    if facts["other_token_ids"]:
        said += f", {facts['other_token_ids']} with other token ids"
    return f"{facts['verifier']} ({facts['through']}) {facts['runtime']}: {said}"


def golden_problems(bundle: Path, places: Mapping[str, Place]) -> tuple[list[str], list[str]]:
    """Replay the golden examples in each place; return a line about each, and what is beyond the tolerance.

    Args:
        bundle: of any shape.
        places: by verifier, as `find_verifiers` gives them.

    Raises:
        VerificationError: a place cannot answer; it is named.
    """
    manifest = read_manifest(bundle)
    questions = [Question(golden.inputs, _texts(golden)) for golden in manifest.golden]
    lines, problems = [], []
    for name, answers in _ask_all(bundle, manifest, places, questions).items():
        differences = _golden_differences(manifest, answers)
        where = f"{name} ({places[name].through}) {answers.runtime}"
        what = f"{len(differences)} golden examples, largest difference {max(differences):.2g}"
        if answers.other_token_ids:
            what += f", {answers.other_token_ids} with other token ids"
        lines.append(f"{where}: {what}")
        far = sum(not difference <= manifest.logit_tolerance for difference in differences)
        if far:
            problems.append(
                f"{where}: {far} of {len(differences)} golden examples are answered otherwise (largest "
                f"difference {max(differences):.2g}, the tolerance is {manifest.logit_tolerance:.2g})"
            )
    return lines, problems


def _texts(golden: Golden) -> Texts:
    return (golden.text, *(golden.choices or ([] if golden.pair is None else [golden.pair])))


def _golden_differences(manifest: Manifest, answers: Answers) -> list[float]:
    head = manifest.head
    return [
        difference_from(golden, golden_numbers(outputs, head, golden.inputs))
        for golden, outputs in zip(manifest.golden, answers.outputs, strict=False)
    ]
