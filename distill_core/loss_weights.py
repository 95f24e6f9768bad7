"""How much each loss counts, a part of the pipeline file."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from distill_core.section import Section


class Ramp(Section):
    """A weight that goes along a straight line, from the first step of the training to the last."""

    model_config = ConfigDict(serialize_by_alias=True)

    start: NonNegativeFloat = Field(alias="from")
    """At the first step."""
    to: NonNegativeFloat
    """At the last step."""

    def at(self, share: float) -> float:
        """Return the weight at a share of the training, 0 at its first step and 1 at its last."""
        return (1 - share) * self.start + share * self.to


Weight = Annotated[
    Annotated[NonNegativeFloat, Tag("number")] | Annotated[Ramp, Tag("ramp")],
    # So that a mistake is told of one of them alone.
    Discriminator(lambda value: "ramp" if isinstance(value, dict | Ramp) else "number"),
]
"""A number, or `{from: 0.0, to: 2.0}`."""

LOSSES = ("distillation", "task", "cosine", "hidden", "embeddings", "attention", "relation")
"""The losses that have a weight; DistilBERT's three are recorded even where it is 0."""
RECORDED = LOSSES[:3]


class LossWeights(Section):
    """How much each loss counts, and what it is. The defaults are DistilBERT's published weights."""

    distillation: Weight = 5.0
    """Distance between the outputs of teacher and student, as `soft` says."""
    task: Weight = 2.0
    """The task's own loss on the labels."""
    cosine: Weight = 1.0
    """Direction of hidden states, whatever their norms."""
    hidden: Weight = 0.0
    """TinyBERT's: squared difference of hidden states."""
    embeddings: Weight = 0.0
    """TinyBERT's: squared difference of what the embeddings give to the first layer."""
    attention: Weight = 0.0
    """TinyBERT's: squared difference of attention probabilities, where student and teacher have as many
    heads. They are small, a hundredth or so on texts of 30 tokens, so weights of 100 are no mistake."""
    relation: Weight = 0.0
    """MiniLMv2's: how the queries, the keys and the values of a layer, the last that is aligned, relate
    among themselves; student and teacher need not have as many heads."""
    temperature: Annotated[float, Field(ge=1.0)] = 2.0
    """Softens both softmaxes while training; 1 leaves them as they are. Not read with `soft: mse`."""
    soft: Literal["cross-entropy", "mse"] = "cross-entropy"
    """cross-entropy between the softened outputs, or mse, the mean squared difference of the logits."""
    hidden_layers: Literal["auto", "last", "uniform"] | tuple[PositiveInt, ...] = "auto"
    """Which layers are aligned: auto, the last of which the head reads more than the first token; the last;
    uniform, each of the student's with the teacher's at the same share of the depth; or the teacher's layers,
    from 1, one for each of the student's."""
    relation_heads: PositiveInt | None = None
    """Parts that relations are taken in, a divisor of both widths; null is the teacher's attention heads."""
    focal_gamma: NonNegativeFloat = 0.0
    """Above 0, rows that the student gets right anyway count less in the task's loss; 2 is usual."""
    class_weights: Literal["balanced"] | dict[str, NonNegativeFloat] | None = None
    """How much rows of each class count in the task's loss: {label: weight}, 1 where none is given; or
    balanced, rows / (classes · rows of the class)."""

    def at(self, share: float) -> dict[str, float]:
        """Return the weights at a share of the training, of the losses that are computed.

        Args:
            share: 0 at the first step, 1 at the last.
        """
        weights = {name: getattr(self, name) for name in LOSSES}
        return {
            name: weight.at(share) if isinstance(weight, Ramp) else weight
            for name, weight in weights.items()
            if name in RECORDED or _largest(weight) > 0
        }

    @model_validator(mode="after")
    def _something_counts(self) -> "LossWeights":
        if not any(_largest(getattr(self, name)) for name in LOSSES):
            raise ValueError("all weights are 0, so there is nothing to learn")
        return self


def _largest(weight: float | Ramp) -> float:
    return max(weight.start, weight.to) if isinstance(weight, Ramp) else weight
