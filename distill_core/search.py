"""Choose the student's layers by trying picks: a few steps of training for all, more for the best."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Shaped
from torch import Tensor
from transformers import PreTrainedModel

from distill_core.batches import draw_rows, evaluation_batches, model_inputs
from distill_core.evaluation import BATCH_SIZE
from distill_core.heads import Head
from distill_core.job import Job, StepRecord
from distill_core.layers import MOST_PICKS, list_picks
from distill_core.student import build_student
from distill_core.teacher import ModelDescription
from distill_core.training import distill

SCORED_ROWS = 256


@dataclass(frozen=True)
class Answers:
    """What a model says of rows, the shortest first."""

    positions: tuple[Float[Tensor, "_ _"], ...]
    """The logits that are softened and compared, batch by batch."""
    predictions: Shaped[np.ndarray, "units ..."]


@dataclass(frozen=True)
class Fidelity:
    """How near a model's answers are to its teacher's."""

    distance: float
    """0 where they are the same."""
    agreement: float


@dataclass(frozen=True)
class Try:
    """A pick of layers, and how near its student came to the teacher."""

    layers: tuple[int, ...]
    rule: str
    """The rules that make the pick, if any do."""
    steps: int
    """Of training, before it was scored."""
    fidelity: Fidelity


@dataclass(frozen=True)
class Search:
    """What picks of layers are tried on."""

    origin: PreTrainedModel
    """Whose layers are picked: the teacher, or what it was cut to."""
    teacher: PreTrainedModel
    """Loaded; its answers are what counts."""
    described: ModelDescription
    """The teacher's."""
    job: Job
    """How the student will be trained."""
    rounds: tuple[tuple[int, int], ...] = ((25, MOST_PICKS), (100, 4))
    """Steps of training, and how many of the best picks get them."""


def search_layers(search: Search, count: int, listen: Callable[[StepRecord], object]) -> list[Try]:
    """Try picks of layers, and return them, the best first.

    All are trained for a few steps and the nearest to the teacher for more, each time from the start
    (successive halving: Jamieson and Talwalkar 2016, arXiv:1502.07943, section 3). An untrained student
    tells little: of a MiniLM on SST-2, the 20 picks of 3 layers are in nearly the opposite order after
    100 steps (Spearman -0.29).

    Args:
        search: what they are tried on.
        count: how many layers to keep.
        listen: told of every step of training, numbered through.

    Raises:
        TeacherError: the family cannot be cut by layers.
        TrainingError: a loss is no longer a number.
    """
    job, done = search.job, 0
    rows = draw_rows(job.train, SCORED_ROWS, job.settings.seed)
    theirs = ask(search.teacher, job.head, rows)
    picks = list_picks(search.described.stack.kinds, count, job.settings.seed)
    tries: dict[tuple[int, ...], Try] = {}
    for steps, places in search.rounds:
        for layers in list(tries or picks)[:places]:
            student = _train_briefly(search, layers, rows, steps, _numbered(listen, done))
            ours = ask(student, job.head, rows)
            found = compare(ours, theirs, job.head, job.weights.temperature)
            tries[layers] = Try(layers, picks[layers], steps, found)
            done += steps
        nearest = sorted(tries.values(), key=lambda one: (-one.steps, one.fidelity.distance))
        tries = {one.layers: one for one in nearest}
    return list(tries.values())


def ask(model: PreTrainedModel, head: Head, rows: Dataset) -> Answers:
    """Return what a model says of tokenized rows."""
    positions: list[Float[Tensor, "_ _"]] = []
    units: dict[int, Float[np.ndarray, "units classes"]] = {}
    with torch.inference_mode():
        for numbers, batch in evaluation_batches(rows, BATCH_SIZE, model.config.pad_token_id):
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            answer = head.run(model, model_inputs(model, inputs), inputs["labels"])
            logits = head.read_output(answer, inputs["attention_mask"]).float()
            positions.append(head.positions(logits, inputs["attention_mask"]).cpu())
            outputs = head.by_row(logits.cpu().numpy(), batch["labels"].numpy())
            asked = zip(numbers, outputs, rows.__getitems__(numbers), strict=True)
            units |= {number: head.units(output, row) for number, output, row in asked}
    in_order = [units[number] for number in range(len(rows))]
    return Answers(tuple(positions), head.predict(np.concatenate(in_order)))


def compare(student: Answers, teacher: Answers, head: Head, temperature: float) -> Fidelity:
    """Return how near a student is to its teacher on the same rows.

    The distance is what the head's soft loss L has above its minimum, mean over positions,

        D = L(s, t) − L(t, t)

    for a softmax θ² times the Kullback-Leibler divergence of the softened answers.
    """
    total = 0.0
    for positions_of in zip(student.positions, teacher.positions, strict=True):
        ours, theirs = (logits.double() for logits in positions_of)  # two losses nearly alike
        least = head.soft_loss(theirs, theirs, temperature)
        total += len(theirs) * float(head.soft_loss(ours, theirs, temperature) - least)
    positions = sum(map(len, teacher.positions))
    return Fidelity(total / positions, head.agreement(student.predictions, teacher.predictions))


def as_table(tries: Sequence[Try]) -> list[dict[str, Any]]:
    """Return tries as the report shows them, the chosen one first."""
    return [
        {
            "layers": list(one.layers),
            "rule": one.rule,
            "steps": one.steps,
            **asdict(one.fidelity),
            "chosen": place == 0,
        }
        for place, one in enumerate(tries)
    ]


def _train_briefly(
    search: Search,
    layers: tuple[int, ...],
    rows: Dataset,
    steps: int,
    listen: Callable[[Any], object],
) -> PreTrainedModel:
    student = build_student(search.origin, search.described.layer_prefix, layers)
    settings = search.job.settings
    brief: dict[str, Any] = {"max_steps": steps, "epochs": steps, "patience": None}
    if settings.precision == "auto":  # by the clock, and no pick must win by that
        brief |= {"precision": "fp32"}
    job = replace(search.job, validation=rows, settings=settings.model_copy(update=brief))
    return distill(student, search.teacher, job, listen).model


def _numbered(listen: Callable[[StepRecord], object], before: int) -> Callable[[Any], object]:
    """Return a listener that numbers steps through, and leaves out validations."""

    def hear(record: Any) -> None:
        if isinstance(record, StepRecord):
            listen(replace(record, step=before + record.step))

    return hear
