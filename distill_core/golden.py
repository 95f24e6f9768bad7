"""Golden examples: texts, and what a file makes of them on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float

from distill_core.graph.answers import too_close
from distill_core.graph.shape import GraphShape
from distill_core.graph.shaping import pad_row, shape_file
from distill_core.graph.table import LAST_STEPS, LastStep
from distill_core.heads import Head
from distill_core.heads.question_answering import best_span
from distill_core.manifest import Golden
from distill_core.runtime import answer_row, golden_row
from distill_core.sensitivity import hold_steady, measure_movement
from distill_core.session import MODEL_INPUTS, open_session
from distill_core.verification import encode, open_tokenizer

Texts = tuple[str, ...]
"""What a model reads at once: a text, two, or one and its choices."""


@dataclass(frozen=True)
class Shipped:
    """A file as an app loads it."""

    file: Path
    made_from: Path
    """The file before it was shaped."""
    shape: GraphShape
    head: Head
    max_length: int
    tokenizer: Any
    """The student's, a PreTrainedTokenizerFast."""

    @property
    def padding(self) -> dict[str, int]:
        """What fills each input that a file may have, up to a fixed length."""
        return {
            name: (self.tokenizer.pad_token_id or 0) if name == "input_ids" else 0
            for name in MODEL_INPUTS
        }


def golden_examples(
    shipped: Shipped, texts: Sequence[Texts], bundle: Path
) -> tuple[tuple[Golden, ...], float]:
    """Return what a file answers, and how much its logits may differ elsewhere.

    The numbers of a text that moves too far when sums are rounded otherwise are all unsure.

    Args:
        shipped: the file.
        texts: to be asked.
        bundle: where its tokenizer.json is.
    """
    plain, head = open_tokenizer(bundle, shipped.max_length), shipped.head
    rows = [head.read_texts(text, shipped.tokenizer, shipped.max_length) for text in texts]
    with TemporaryDirectory() as scratch:
        before = Path(scratch, "before.onnx")  # the last step, where there is one
        shape = shipped.shape.model_copy(update={"answer": "logits"})
        shape_file(shipped.made_from, shape, head.name, before)
        inputs = [pad_row(row, shipped.shape.length, shipped.padding) for row in rows]
        tolerance, steady = hold_steady(measure_movement(before, head, inputs), head.tolerance)
        sessions = open_session(before), open_session(shipped.file)
        made = [
            _example(shipped, sessions, text, (row, filled), tolerance, plain)
            for text, row, filled in zip(texts, rows, inputs, strict=True)
        ]
    unsteady = (~steady).tolist()
    return tuple(map(_leave_open, made, unsteady)), tolerance


def _example(
    shipped: Shipped,
    sessions: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession],
    texts: Texts,
    read: tuple[Mapping[str, Any], dict[str, Any]],
    tolerance: float,
    plain: Any,
) -> Golden:
    """Return an example of texts that were read as a row, and as inputs filled up to the file's length."""
    before, after = sessions
    row, inputs = read
    head, several = shipped.head, "choices" in shipped.head.text_columns
    step = LAST_STEPS.get(head.name, {}).get(shipped.shape.answer)
    text, *others = texts
    logits = answer_row(before, head, inputs)
    _, offsets = encode(plain, text, others or [None])
    return Golden(
        text=text,
        pair=None if several or not others else others[0],
        choices=tuple(others) if several else None,
        inputs=inputs,
        offsets=offsets,
        logits=tuple(map(float, golden_row(after, head, inputs).ravel())),
        unsure=_unsure(step, tolerance, logits, row),
        label=head.answer(logits, row),
    )


def _leave_open(golden: Golden, unsteady: bool) -> Golden:
    """Leave all numbers of an example open, if it is unsteady."""
    every = tuple(range(len(golden.logits)))
    return golden.model_copy(update={"unsure": every}) if unsteady else golden


def _unsure(
    step: LastStep | None,
    tolerance: float,
    logits: Float[np.ndarray, "..."],
    row: Mapping[str, Any],
) -> tuple[int, ...]:
    """Return the places of an answer that another processor may well answer otherwise."""
    if step is None:
        return ()
    if step.operator == "Span":  # its first two numbers are tokens
        context = np.asarray(row["starts"]) >= 0
        return (0, 1) if may_be_another(logits[context], tolerance) else ()
    return too_close(step, logits, tolerance)


def may_be_another(logits: Float[np.ndarray, "tokens 2"], tolerance: float) -> bool:
    """Tell whether another span may be the best one where each logit moves by a tolerance.

    Another one starts or ends elsewhere. A score is the sum of two logits, and both scores may move.

    Args:
        logits: of start and end of each token of the context.
        tolerance: of a logit.
    """
    if not len(logits):
        return False
    first, last, score = best_span(logits)
    elsewhere = []
    for place in ((first, 0), (last, 1)):
        without = logits.copy()
        without[place] = -np.inf
        elsewhere.append(best_span(without)[2])
    return score - max(elsewhere) <= 4 * tolerance
