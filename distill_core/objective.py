"""What is to be learnt, settled for one student, one teacher and their rows."""

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from distill_core.evaluation import read_labels
from distill_core.focal import balanced_weights
from distill_core.forward import attention_maps
from distill_core.heads import Head
from distill_core.loss_weights import LossWeights
from distill_core.losses import Objective, reads
from distill_core.width import check_same_heads, pick_relation_heads


def build_objective(
    head: Head,
    weights: LossWeights,
    train: Dataset,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    device: torch.device,
) -> Objective:
    """Return what a training's losses depend on.

    Args:
        head: of both models.
        weights: of the pipeline file.
        train: tokenized rows, whose labels give balanced classes their weights.
        student: as it starts.
        teacher: None where the labels alone teach.
        device: where they learn.

    Raises:
        ConfigError: a loss between parts of student and teacher that cannot be compared.
        TeacherError: relations, of a family that does not keep queries, keys and values apart.
    """
    class_weights = _class_weights(head, weights, train, device)
    if teacher is None:
        return Objective(head, weights, class_weights)
    wanted = reads(weights)
    if "attentions" in wanted:
        check_same_heads(*(model.config.num_attention_heads for model in (student, teacher)))
    heads = _relation_heads(weights, student, teacher) if "relations" in wanted else 1
    return Objective(head, weights, class_weights, heads)


def _class_weights(
    head: Head, weights: LossWeights, train: Dataset, device: torch.device
) -> Float[Tensor, " classes"] | None:
    if weights.class_weights is None:
        return None
    if weights.class_weights == "balanced":
        values = balanced_weights(read_labels(head, train).values, len(head.labels)).tolist()
    else:
        values = [weights.class_weights.get(name, 1.0) for name in head.labels]
    return torch.tensor(values, dtype=torch.float32, device=device)


def _relation_heads(
    weights: LossWeights, student: PreTrainedModel, teacher: PreTrainedModel
) -> int:
    widths = attention_maps(student)[0][0].out_features, attention_maps(teacher)[0][0].out_features
    heads = int(teacher.config.num_attention_heads)
    return pick_relation_heads(weights.relation_heads, heads, widths)
