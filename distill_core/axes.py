"""Table: family of encoders → which axis of each of its tensors is what.

A student narrower than its teacher keeps some numbers of each such axis. A tensor that no row here
names is never cut by a guess from its shape: 512 positions of width 512 would look alike on both sides.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from distill_core.errors import TeacherError

Axis = Literal[
    "hidden",  # of the hidden states, which all layers read and add to
    "queries",  # head by head, as are keys and values
    "keys",
    "values",
    "heads",
    "neurons",  # of the feed-forward part
    "pooled",  # what is made of a text's hidden states before its label: as many, in no relation to them
    "embedding",  # of the embeddings, where they may be narrower than the hidden states
]
Axes = tuple[Axis | None, ...]
"""One for each axis of a tensor, rows first; None is kept whole: tokens, positions, labels."""

Rows = tuple[tuple[str, Axes], ...]
"""The end of a module's name, as a pattern → the axes of its weight; its bias has the first of them."""

Shapes = Mapping[str, Sequence[int]]
"""Of tensors, by name."""

_FEED_FORWARD: Rows = (
    (r"intermediate\.dense", ("neurons", "hidden")),
    (r"output\.dense", ("hidden", "neurons")),
)
_AROUND: Rows = (
    (r"(word|position|token_type)_embeddings", (None, "hidden")),
    (r"LayerNorm|layer_norm", ("hidden",)),
    (r"pooler\.dense|classifier\.dense", ("pooled", "hidden")),
    (r"classifier|out_proj|seq_relationship", (None, "pooled")),
    (r"qa_outputs", (None, "hidden")),
    # Words are filled in by the word embeddings, so what is compared with them is cut as they are.
    (r"transform\.dense|lm_head\.dense", ("hidden", "hidden")),
    (r"decoder|predictions|lm_head", (None, "hidden")),
)
_BERT: Rows = (
    (r"attention\.self\.query", ("queries", "hidden")),
    (r"attention\.self\.key", ("keys", "hidden")),
    (r"attention\.self\.value", ("values", "hidden")),
    (r"attention\.output\.dense", ("hidden", "values")),
    *_FEED_FORWARD,
    *_AROUND,
)
_ELECTRA: Rows = (
    (r"embeddings\.(word|position|token_type)_embeddings", (None, "embedding")),
    (r"(embeddings|generator_predictions)\.LayerNorm", ("embedding",)),
    (r"embeddings_project", ("hidden", "embedding")),
    (r"generator_predictions\.dense", ("embedding", "hidden")),
    (r"generator_lm_head", (None, "embedding")),
    (r"sequence_summary\.summary", ("pooled", "hidden")),
    *_BERT,
)
_DISTILBERT: Rows = (
    (r"attention\.q_lin", ("queries", "hidden")),
    (r"attention\.k_lin", ("keys", "hidden")),
    (r"attention\.v_lin", ("values", "hidden")),
    (r"attention\.out_lin", ("hidden", "values")),
    (r"ffn\.lin1", ("neurons", "hidden")),
    (r"ffn\.lin2", ("hidden", "neurons")),
    (r"(sa|output|vocab)_layer_norm", ("hidden",)),
    (r"pre_classifier", ("pooled", "hidden")),
    (r"vocab_transform", ("hidden", "hidden")),
    (r"vocab_projector", (None, "hidden")),
    *_AROUND,
)
_MPNET: Rows = (
    (r"attention\.attn\.q", ("queries", "hidden")),
    (r"attention\.attn\.k", ("keys", "hidden")),
    (r"attention\.attn\.v", ("values", "hidden")),
    (r"attention\.attn\.o", ("hidden", "values")),
    (r"relative_attention_bias", (None, "heads")),
    *_FEED_FORWARD,
    *_AROUND,
)

AXES: dict[str, Rows] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _ELECTRA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
}
"""`model_type` of the families whose students may be narrower."""

KEEPS_WIDTH = {
    "albert": "all its layers share one set of weights, whose parts matter otherwise in each of them",
    "deberta": "its attention has projections of relative positions beside queries, keys and values",
    "deberta-v2": "its attention has projections of relative positions beside queries, keys and values",
    "mobilebert": "its layers have bottlenecks of a width of their own",
    "modernbert": "its queries, keys and values are one matrix, and so are its neurons and their gates",
}
"""Table: families whose students are as wide as their teacher → the reason."""


def label_axes(model_type: str, shapes: Shapes) -> dict[str, Axes]:
    """Return what each axis of each tensor of a model is.

    Raises:
        TeacherError: a family whose students cannot be narrower, or a tensor that no row names.
    """
    if model_type not in AXES:
        raise keeps_width(model_type)
    labelled = {name: _label(model_type, name, len(shape)) for name, shape in shapes.items()}
    if not any(axes[0] == "pooled" for axes in labelled.values()):
        # Nothing pools, so that what else reads the pooled vector reads the hidden states.
        labelled = {name: tuple(map(_not_pooled, axes)) for name, axes in labelled.items()}
    return labelled


def keeps_width(model_type: str) -> TeacherError:
    """Return the error that says why students of a family are as wide as their teacher."""
    reason = KEEPS_WIDTH.get(model_type, "nobody has said which axis of its tensors is what")
    return TeacherError(
        f"student: a narrower student of {model_type} cannot be made: {reason}; accepted: "
        f"hidden_size, heads and intermediate_size null, or a teacher of {', '.join(AXES)}"
    )


def _label(model_type: str, name: str, dimensions: int) -> Axes:
    module = name.rpartition(".")[0]
    for pattern, axes in AXES[model_type]:
        if re.search(rf"(^|\.)({pattern})$", module) and dimensions <= len(axes):
            return axes[:dimensions]
    raise TeacherError(
        f"student: a narrower student of this {model_type} cannot be made: what the axes of its tensor "
        f"{name} are is not known; accepted: hidden_size, heads and intermediate_size null"
    )


def _not_pooled(axis: Axis | None) -> Axis | None:
    return "hidden" if axis == "pooled" else axis


def layer_of(name: str, layer_prefix: str | None) -> int | None:
    """Return the number of the layer that a tensor is in, from 0; None outside of them."""
    match = re.match(rf"{re.escape(layer_prefix)}(\d+)\.", name) if layer_prefix else None
    return int(match[1]) if match else None
