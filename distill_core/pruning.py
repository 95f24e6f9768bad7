"""Cut a teacher to a width: keep its most important heads, neurons and dimensions."""

import copy
import math
from collections.abc import Mapping

import torch
from datasets import Dataset
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from distill_core.axes import Axes, label_axes, layer_of
from distill_core.batches import draw_rows
from distill_core.errors import TeacherError
from distill_core.families import FAMILIES, Width
from distill_core.importance import Importance, Part, floating_shapes, measure_importance
from distill_core.teacher import ModelDescription

Kept = Mapping[Part, Int[Tensor, " _"]]
"""Which numbers of an axis are kept, rising from 0; an axis that is not there is kept whole."""


IMPORTANCE_ROWS = 512
"""Of training. Two draws of SST-2 rank the hidden dimensions of a MiniLM alike to 0.94 (Spearman)."""


def narrow(
    model: PreTrainedModel, teacher: ModelDescription, width: Width, rows: Dataset, seed: int
) -> PreTrainedModel:
    """Return the teacher cut to a width, by what matters most on some of its training rows.

    Args:
        model: the loaded teacher; left as it is.
        teacher: its description.
        width: of the student.
        rows: tokenized, with labels.
        seed: decides which 512 of them are read.
    """
    importance = measure_importance(model, teacher, draw_rows(rows, IMPORTANCE_ROWS, seed))
    return prune(model, teacher, keep_most_important(importance, teacher, width), width)


def keep_most_important(importance: Importance, teacher: ModelDescription, width: Width) -> Kept:
    """Return what of a teacher is kept at a width: in each layer its own heads and neurons.

    Where the student's heads are smaller, each keeps the dimensions of its own that matter most, the
    same of queries and keys, since a score is the sum over both; those of values are chosen apart.

    Args:
        importance: of the teacher.
        teacher: its description.
        width: of the student.
    """
    hidden = _largest(importance["hidden", None], width.hidden_size)
    kept: dict[Part, Tensor] = {("hidden", None): hidden}
    if width.embedding_size == width.hidden_size:
        kept["embedding", None] = hidden
    if ("pooled", None) in importance:
        kept["pooled", None] = _largest(importance["pooled", None], width.hidden_size)
    heads = torch.stack([importance["heads", layer] for layer in range(teacher.layers)])
    if _heads_are_shared(teacher):
        heads = heads.sum(dim=0).expand_as(heads)
        kept["heads", None] = _largest(heads[0], width.heads)
    for layer in range(teacher.layers):
        those = _largest(heads[layer], width.heads)
        for axis in ("queries", "values"):
            kept[axis, layer] = _within_heads(
                importance[axis, layer], those, len(heads[layer]), width
            )
        kept["keys", layer] = kept["queries", layer]
        kept["neurons", layer] = _largest(importance["neurons", layer], width.intermediate_size)
    return kept


def _largest(scores: Float[Tensor, "*rows size"], count: int) -> Int[Tensor, "*rows kept"]:
    """Return the places of the largest scores, rising; of equals the first."""
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values


def _heads_are_shared(teacher: ModelDescription) -> bool:
    """Tell whether all layers keep the same heads, as MPNet's one table of positions wants them to."""
    labelled = label_axes(teacher.model_type, teacher.shapes)
    return any("heads" in axes for axes in labelled.values())


def _within_heads(
    scores: Float[Tensor, " hidden"], those: Int[Tensor, " heads"], heads: int, width: Width
) -> Int[Tensor, " kept"]:
    by_head = scores.reshape(heads, -1)
    dimensions = _largest(by_head[those], width.head_size)
    return (those[:, None] * by_head.shape[1] + dimensions).flatten()


def prune(
    model: PreTrainedModel, teacher: ModelDescription, kept: Kept, width: Width
) -> PreTrainedModel:
    """Return a model of all layers of the teacher, with what is kept of each tensor; nothing is averaged.

    Without heads, neurons or dimensions of heads a model answers as its teacher does with these set
    to 0. Where heads become smaller, queries are scaled by √(new size / old size): a score is divided
    by the root of the size (Vaswani et al. 2017, arXiv:1706.03762, equation 1), and what is kept of it
    is to count as before. Without hidden dimensions norms take mean and variance over those left.

    Args:
        model: the loaded teacher; left as it is.
        teacher: its description.
        kept: as `keep_most_important` chooses it.
        width: the sizes that `kept` comes to.

    Raises:
        TeacherError: the family makes other tensors at this width.
    """
    axes = label_axes(teacher.model_type, floating_shapes(model))
    student = type(model)(_narrow_config(model, teacher.model_type, width))
    old = model.config.hidden_size // model.config.num_attention_heads
    state = {}
    for name, tensor in model.state_dict().items():
        labels = axes.get(name, ())
        state[name] = _cut(tensor, labels, layer_of(name, teacher.layer_prefix), kept)
        if labels[:1] == ("queries",):
            state[name] = state[name] * math.sqrt(width.head_size / old)
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise TeacherError(
            f"{teacher.model_type}: a student of hidden_size {width.hidden_size} has other tensors: {error}"
        ) from None
    return student.eval()


def _narrow_config(model: PreTrainedModel, model_type: str, width: Width) -> PretrainedConfig:
    config, family = copy.deepcopy(model.config), FAMILIES[model_type]
    setattr(config, family.width_key, width.hidden_size)
    setattr(config, family.heads_key, width.heads)
    setattr(config, family.intermediate_key, width.intermediate_size)
    if hasattr(config, "embedding_size"):
        config.embedding_size = width.embedding_size
    return config


def _cut(
    tensor: Shaped[Tensor, "..."], axes: Axes, layer: int | None, kept: Kept
) -> Shaped[Tensor, "..."]:
    for number, axis in enumerate(axes):
        if axis is not None:
            there = kept.get((axis, layer), kept.get((axis, None)))
            tensor = tensor if there is None else tensor.index_select(number, there)
    return tensor
