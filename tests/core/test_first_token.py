"""What a head does not read is not computed: behind the last attention, all tokens but the first."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from distill_core.graph.first_token import keep_first_token
from tests.core.exports import answers
from tests.core.family_models import GRAPHS


def tokens_of_products(model: onnx.ModelProto, tokens: int) -> list[int]:
    """Return of how many of a text's tokens each matrix is multiplied with the vectors."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node if node.op_type == "MatMul"]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    shapes = [np.shape(values) for values in answers(shown, 1, tokens, outputs=names)]
    return [shape[1] for shape in shapes if len(shape) == 3]


LONG = 40
"""Tokens; BigBird's attention to blocks takes no fewer."""

OF_ALL = {"deberta", "deberta-v2", "roformer", "convbert", "modernbert"}
"""Families whose queries turn with their places, or are mixed with others, before they are alone."""


@pytest.mark.parametrize("family", GRAPHS)
def test_the_last_layer_is_computed_for_the_first_token_alone(
    family: str, export_small: Any
) -> None:
    model = export_small(family, "ForSequenceClassification", "sequence-classification")
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    assert keep_first_token(model)
    onnx.checker.check_model(model, full_check=True)
    for shape in ((1, LONG), (3, LONG + 9)):
        ours, theirs = (answers(file, *shape)[0] for file in (model, whole))
        assert np.abs(ours - theirs).max() < 1e-5
    before, after = (tokens_of_products(file, LONG).count(1) for file in (whole, model))
    assert after - before >= (3 if family in OF_ALL else 4)


def test_a_text_of_one_token_is_answered_too(export_small: Any) -> None:
    model = export_small("bert", "ForSequenceClassification", "sequence-classification")
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    keep_first_token(model)
    assert np.allclose(answers(model, 1, 1)[0], answers(whole, 1, 1)[0], atol=1e-6)


def test_choices_are_read_by_their_first_tokens_as_well(export_small: Any) -> None:
    model = export_small("bert", "ForMultipleChoice", "multiple-choice")
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    assert keep_first_token(model)
    assert np.allclose(answers(model, 2, 4, 9)[0], answers(whole, 2, 4, 9)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("ForTokenClassification", "token-classification"),
        ("ForQuestionAnswering", "question-answering"),
        ("ForMaskedLM", "masked-language-modelling"),
    ],
)
def test_heads_that_read_all_tokens_keep_them(kind: str, task: str, export_small: Any) -> None:
    model = export_small("bert", kind, task)
    before = model.SerializeToString()
    assert not keep_first_token(model)
    assert model.SerializeToString() == before


def test_what_something_else_reads_is_computed_whole(export_small: Any) -> None:
    model = export_small("bert", "ForSequenceClassification", "sequence-classification")
    (first,) = (n for n in model.graph.node if n.op_type == "Gather" and "pooler" in n.name)
    model.graph.output.append(helper.make_empty_tensor_value_info(first.input[0]))
    assert not keep_first_token(model)
    assert answers(model, 1, 9)[1].shape[:2] == (1, 9)
