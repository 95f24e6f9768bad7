"""Texts without labels in which a teacher finds something."""

from typing import Any

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.errors import DataError
from distill_core.heads import Head
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.teacher import load_model
from distill_core.telling import telling_texts
from tests.core.family_models import save_small

ENTITIES = TokenClassification(("O", "B-THING"))
THING, NOTHING = "The film was good", "it was rather good"


@pytest.fixture(scope="module")
def teacher(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedModel:
    """A BERT that finds a thing in `film`, and in its special tokens, which nobody taught it not to."""
    names = {"id2label": {0: "O", 1: "B-THING"}, "label2id": {"O": 0, "B-THING": 1}}
    folder = tmp_path_factory.mktemp("finds-films")
    model = load_model(save_small("bert", "ForTokenClassification", tokenizer, folder, **names))
    direction = torch.tensor([1.0, -1.0] * (model.config.hidden_size // 2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "output.dense" in name or "position_emb" in name or "type_emb" in name:
                weight.zero_()  # each token stays its own
        words = model.get_input_embeddings().weight
        words.copy_(-direction.expand_as(words))
        film = tokenizer.convert_tokens_to_ids("film")
        words[[film, *tokenizer.all_special_ids]] = direction
        model.classifier.weight.copy_(torch.stack([-direction, direction]))
        model.classifier.bias.zero_()
    return model


def texts_of(*texts: str) -> Dataset:
    return Dataset(pa.table({"text": list(texts)}))


def test_texts_without_a_find_are_left_out_and_told(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = texts_of(NOTHING, THING, "a bad scene", f"{THING} and {NOTHING}", "x")
    kept, notes = telling_texts(texts, teacher, ENTITIES, tokenizer, 32)
    assert kept["text"][:] == [THING, f"{THING} and {NOTHING}"]
    assert notes == [
        "unlabelled: in 3 of 5 texts the teacher answers O to every word, and they were left out"
    ]


def test_where_every_text_tells_something_nothing_is_said(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    kept, notes = telling_texts(texts_of(THING), teacher, ENTITIES, tokenizer, 32)
    assert (kept["text"][:], notes) == ([THING], [])


@given(st.lists(st.lists(st.sampled_from(["film", "good", "was", "q"]), min_size=1, max_size=40)))
def test_a_text_is_kept_for_its_own_words_whatever_others_it_stands_among(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, drawn: list[list[str]]
) -> None:
    texts = [" ".join(words) for words in [["film"], *drawn] * 3]
    kept, _ = telling_texts(texts_of(*texts), teacher, ENTITIES, tokenizer, 16)
    # 16 tokens are 14 words and two special ones.
    assert kept["text"][:] == [text for text in texts if "film" in text.split()[:14]]


def test_texts_that_all_teach_nothing_are_refused(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(
        DataError, match=r"data.unlabelled: the teacher answers O to every word of its 2 texts"
    ):
        telling_texts(texts_of(NOTHING, "x"), teacher, ENTITIES, tokenizer, 32)


@pytest.mark.parametrize(
    ("head", "may"),
    [
        (ENTITIES, True),
        (TokenClassification(("NOUN", "VERB")), False),
        (SequenceClassification(("O", "A")), False),
    ],
)
def test_words_alone_can_be_nothing_and_only_where_there_is_such_a_tag(
    head: Head, may: Any
) -> None:
    assert head.may_find_nothing is may
