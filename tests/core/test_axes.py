"""The table of axes against the models themselves: what an axis follows when a size changes."""

from typing import Any

import pytest
import torch
import transformers

from distill_core.axes import AXES, KEEPS_WIDTH, label_axes, layer_of
from distill_core.errors import TeacherError
from distill_core.families import FAMILIES
from tests.core.family_models import SMALL

SIZES = {"hidden": 3 * 14, "heads": 3, "neurons": 37, "embedding": 11}
OTHERS = {"hidden": 3 * 22, "heads": 6, "neurons": 41, "embedding": 13}
"""No two alike, and every number of heads divides every width."""
FOLLOWS = dict.fromkeys(("hidden", "queries", "keys", "values", "pooled"), "hidden")
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForMaskedLM",
    "Model",
)


def shapes_of(family: str, head: str, **changed: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model that is never filled with numbers."""
    sizes, row = SIZES | changed, FAMILIES[family]
    config = getattr(transformers, f"{SMALL[family].prefix}Config")(
        num_hidden_layers=2, vocab_size=53, num_labels=2, max_position_embeddings=59
    )
    keys = {row.width_key: "hidden", row.heads_key: "heads", row.intermediate_key: "neurons"}
    for key, size in keys.items():
        setattr(config, key, sizes[size])
    if hasattr(config, "embedding_size"):
        config.embedding_size = sizes["embedding"]
    with torch.device("meta"):
        model = getattr(transformers, f"{SMALL[family].prefix}{head}")(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", AXES)
def test_each_axis_is_what_makes_it_longer(family: str, head: str) -> None:
    before = shapes_of(family, head)
    labelled = label_axes(family, before)
    follows: dict[tuple[str, int], Any] = {}
    for size, other in OTHERS.items():
        for name, shape in shapes_of(family, head, **{size: other}).items():
            changed = [
                number for number in range(len(shape)) if shape[number] != before[name][number]
            ]
            follows |= {(name, number): size for number in changed}
    for name, axes in labelled.items():
        for number, axis in enumerate(axes):
            assert FOLLOWS.get(axis, axis) == follows.get((name, number)), (name, number)


@pytest.mark.parametrize("family", AXES)
def test_queries_keys_and_values_are_told_apart_from_hidden_states(family: str) -> None:
    labelled = label_axes(family, shapes_of(family, "ForTokenClassification"))
    of_a_layer = [
        axes for name, axes in labelled.items() if ".layer.0." in name and name.endswith("weight")
    ]
    assert sorted(axes for axes in of_a_layer if len(axes) == 2) == [
        ("hidden", "neurons"),
        ("hidden", "values"),
        ("keys", "hidden"),
        ("neurons", "hidden"),
        ("queries", "hidden"),
        ("values", "hidden"),
    ]


def test_what_reads_no_pooled_vector_reads_hidden_states() -> None:
    texts, words = (
        label_axes("bert", shapes_of("bert", f"For{head}Classification"))
        for head in ("Sequence", "Token")
    )
    assert texts["bert.pooler.dense.weight"] == ("pooled", "hidden")
    assert texts["classifier.weight"] == (None, "pooled")
    assert words["classifier.weight"] == (None, "hidden")


def test_a_tensor_that_no_row_names_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"its tensor bert\.gate\.weight are is not known"):
        label_axes("bert", {"bert.gate.weight": (4, 4)})
    with pytest.raises(TeacherError, match=r"pooler\.dense\.weight"):
        label_axes("bert", {"bert.pooler.dense.weight": (2, 4, 4)})


@pytest.mark.parametrize("family", [*KEEPS_WIDTH, "big_bird", "ernie"])
def test_other_families_are_refused_with_the_reason(family: str) -> None:
    reason = KEEPS_WIDTH.get(family, "nobody has said")
    with pytest.raises(TeacherError, match=f"student of {family} cannot be made: {reason}"):
        label_axes(family, {})


def test_every_listed_family_can_be_narrower_or_has_a_reason() -> None:
    assert FAMILIES.keys() - AXES.keys() - KEEPS_WIDTH.keys() == {"big_bird"}
    assert not AXES.keys() & KEEPS_WIDTH.keys()


def test_layers_are_read_from_names() -> None:
    prefix = "bert.encoder.layer."
    assert layer_of("bert.encoder.layer.11.output.dense.weight", prefix) == 11
    assert layer_of("bert.pooler.dense.weight", prefix) is None
    assert layer_of("bert.encoder.layer.0.weight", None) is None
