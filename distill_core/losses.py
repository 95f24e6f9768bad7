"""The three losses of DistilBERT, from Sanh et al. 2019, "DistilBERT, a distilled version of BERT"
(arXiv:1910.01108), section 2, and their weighted sum.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import cosine_similarity

from distill_core.config import LossWeights
from distill_core.heads import Head


def cosine_loss(
    student_hidden: Float[Tensor, "batch tokens *layers width"],
    teacher_hidden: Float[Tensor, "batch tokens *layers width"],
    attention_mask: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Angle between the hidden vectors of teacher and student, mean over all tokens but padding.

        L = (1 / N) · Σ 1 − (s · t) / (‖s‖ ‖t‖),  N the number of tokens that are not padding

    Where several layers are aligned, the mean over them too.

    Sanh et al. 2019, section 2: it aligns the directions of the hidden vectors, whatever their
    norms.
    """
    tokens = attention_mask.bool()
    return (1 - cosine_similarity(student_hidden[tokens], teacher_hidden[tokens], dim=-1)).mean()


@dataclass(frozen=True)
class Losses:
    """The three losses of one batch, unweighted, and their weighted sum."""

    distillation: Float[Tensor, ""]
    task: Float[Tensor, ""]
    cosine: Float[Tensor, ""]
    total: Float[Tensor, ""]

    def values(self) -> Float[Tensor, " losses"]:
        """Return distillation, task, cosine and total, detached from the graph."""
        return torch.stack([self.distillation, self.task, self.cosine, self.total]).detach()


@dataclass(frozen=True)
class Output:
    """What a model says of one batch."""

    logits: Float[Tensor, "..."]
    """Of the batch, or of those of its tokens that the head reads."""
    hidden: Float[Tensor, "batch tokens *layers width"]
    """The hidden states that are aligned, of one layer or several."""


def combine(
    student: Output,
    teacher: Output,
    labels: Shaped[Tensor, "batch ..."],
    attention_mask: Int[Tensor, "batch tokens"],
    head: Head,
    weights: LossWeights,
) -> Losses:
    """Return the three losses and L = α · L_distillation + β · L_task + γ · L_cosine.

    α, β and γ are the weights of the pipeline file (Sanh et al. 2019, section 2: "a linear
    combination"; 5, 2 and 1 in their published training script).
    """
    answers = [head.positions(output.logits, attention_mask) for output in (student, teacher)]
    distillation = head.soft_loss(answers[0], answers[1], weights.temperature)
    task = head.task_loss(student.logits, labels)
    cosine = cosine_loss(student.hidden, teacher.hidden, attention_mask)
    total = weights.distillation * distillation + weights.task * task + weights.cosine * cosine
    return Losses(distillation, task, cosine, total)


def task_only(student: Output, labels: Shaped[Tensor, "batch ..."], head: Head) -> Losses:
    """Return the task's own loss, where there is no teacher; the other two are 0."""
    task = head.task_loss(student.logits, labels)
    return Losses(torch.zeros_like(task), task, torch.zeros_like(task), task)
