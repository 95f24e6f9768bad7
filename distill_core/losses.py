"""The losses by name, and their weighted sum.

The default three are DistilBERT's: Sanh et al. 2019, "DistilBERT, a distilled version of BERT"
(arXiv:1910.01108), section 2.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from distill_core.focal import focal_loss
from distill_core.heads import Head
from distill_core.layer_losses import attention_loss, cosine_loss, hidden_loss, relation_loss
from distill_core.loss_weights import RECORDED, LossWeights
from distill_core.soft_targets import logit_loss

WHOLE = {"positions": 1.0, "labels": 1.0, "tokens": 1.0, "pairs": 1.0}
"""Losses are means over positions that are softened, over labels, over tokens that are no padding, or over
pairs of them; of each, the share that a whole batch is of itself."""


@dataclass(frozen=True)
class Output:
    """What a model says of one batch, and what happened inside it, as far as losses read it."""

    logits: Float[Tensor, "..."]
    """Of the batch, or of those of its tokens that the head reads."""
    hidden: Float[Tensor, "batch tokens *layers width"]
    """The hidden states that are aligned, of one layer or several; the sequences of a row, if it has several,
    one behind the other."""
    embeddings: Float[Tensor, "batch tokens width"] | None = None
    """What the first layer reads."""
    attentions: Float[Tensor, "sequences aligned heads tokens tokens"] | None = None
    """Probabilities, of the layers that are aligned."""
    relations: Float[Tensor, "sequences tokens 3 all_heads"] | None = None
    """Queries, keys and values of the last layer that is aligned, of all heads side by side."""


@dataclass(frozen=True)
class Objective:
    """What a training's losses depend on, beside what the models say."""

    head: Head
    weights: LossWeights
    class_weights: Float[Tensor, " classes"] | None = None
    """None where all classes count alike."""
    relation_heads: int = 1


@dataclass(frozen=True)
class Pair:
    """What student and teacher say of one batch, the student's in the teacher's width."""

    student: Output
    teacher: Output
    labels: Shaped[Tensor, "batch ..."] | None
    """None of unlabelled rows."""
    attention_mask: Int[Tensor, "batch ..."]

    @property
    def by_row(self) -> Int[Tensor, "batch tokens"]:
        """The mask of each row, whose sequences stand one behind the other."""
        return self.attention_mask.flatten(1)

    @property
    def by_sequence(self) -> Int[Tensor, "sequences tokens"]:
        """The mask of each sequence."""
        return self.attention_mask.flatten(0, -2)


@dataclass(frozen=True)
class Losses:
    """The losses of one batch."""

    named: Mapping[str, Float[Tensor, ""]]
    """Each that is computed, unweighted."""
    total: Float[Tensor, ""]
    """Their weighted sum."""

    def values(self) -> Float[Tensor, " losses"]:
        """Return the named losses and the total, detached from the graph."""
        return torch.stack([*self.named.values(), self.total]).detach()


def reads(weights: LossWeights) -> frozenset[str]:
    """Return the fields of `Output` that the losses of a training read."""
    return frozenset(_TABLE[name].field for name in weights.at(0.0))


def losses_of(fields: Collection[str]) -> list[str]:
    """Return the names of the losses that read one of these fields of `Output`."""
    return [name for name, loss in _TABLE.items() if loss.field in fields]


def combine(
    pair: Pair,
    objective: Objective,
    progress: float = 0.0,
    portion: Mapping[str, float] = WHOLE,
) -> Losses:
    """Return the losses of a batch, and L = Σ wₙ · Lₙ with the weights of the pipeline file.

    Sanh et al. 2019, section 2: "a linear combination"; 5, 2 and 1 in their published training script.

    Args:
        pair: what student and teacher say.
        objective: which losses, and how they are computed.
        progress: of the training, 0 at its first step and 1 at its last, where weights change.
        portion: how much of a batch this part of it is, of each thing that losses are means over.
    """
    weights = objective.weights.at(progress)
    named = {name: _TABLE[name].compute(pair, objective, portion) for name in weights}
    return Losses(named, reduce(add, (weight * named[name] for name, weight in weights.items())))


def task_only(
    student: Output,
    labels: Shaped[Tensor, "batch ..."],
    objective: Objective,
    portion: Mapping[str, float] = WHOLE,
) -> Losses:
    """Return the task's own loss, where there is no teacher; the others that are recorded are 0."""
    task = portion["labels"] * _task_loss(student.logits, labels, objective)
    return Losses({**dict.fromkeys(RECORDED, torch.zeros_like(task)), "task": task}, task)


@dataclass(frozen=True)
class _Loss:
    """A loss, and the field of student's and teacher's output that it is between."""

    field: str
    over: str
    """What it is a mean over, a key of `WHOLE`."""
    function: Callable[[Any, Any, Pair, Objective], Tensor]

    def compute(self, pair: Pair, objective: Objective, portion: Mapping[str, float]) -> Tensor:
        """Return what a part of a batch adds to its loss, unweighted."""
        student, teacher = (getattr(output, self.field) for output in (pair.student, pair.teacher))
        return portion[self.over] * self.function(student, teacher, pair, objective)


def _soft_loss(student: Tensor, teacher: Tensor, pair: Pair, objective: Objective) -> Tensor:
    head, weights = objective.head, objective.weights
    answers = [head.positions(logits, pair.attention_mask) for logits in (student, teacher)]
    loss: Tensor = (
        logit_loss(*answers)
        if weights.soft == "mse"
        else head.soft_loss(answers[0], answers[1], weights.temperature)
    )
    return loss


def _task_loss(logits: Tensor, labels: Tensor | None, objective: Objective) -> Tensor:
    if labels is None:
        return logits.new_zeros(())
    gamma, class_weights = objective.weights.focal_gamma, objective.class_weights
    if gamma > 0 or class_weights is not None:
        return focal_loss(logits, labels, gamma, class_weights)
    loss: Tensor = objective.head.task_loss(logits, labels)
    return loss


_TABLE = {
    "distillation": _Loss("logits", "positions", _soft_loss),
    "task": _Loss(
        "logits", "labels", lambda s, _, pair, objective: _task_loss(s, pair.labels, objective)
    ),
    "cosine": _Loss("hidden", "tokens", lambda s, t, pair, _: cosine_loss(s, t, pair.by_row)),
    "hidden": _Loss("hidden", "tokens", lambda s, t, pair, _: hidden_loss(s, t, pair.by_row)),
    "embeddings": _Loss(
        "embeddings", "tokens", lambda s, t, pair, _: hidden_loss(s, t, pair.by_row)
    ),
    "attention": _Loss(
        "attentions", "pairs", lambda s, t, pair, _: attention_loss(s, t, pair.by_sequence)
    ),
    "relation": _Loss(
        "relations",
        "tokens",
        lambda s, t, pair, objective: relation_loss(
            s, t, pair.by_sequence, objective.relation_heads
        ),
    ),
}
"""Table: name of a weight → what it weighs."""
