"""The pipeline file against the teacher: what of its losses makes no sense is refused before a run."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from distill_core.config import DataSource, Pipeline, TeacherSource
from distill_core.errors import ConfigError, TeacherError
from distill_core.graph.shape import GraphShape
from distill_core.plan import check_fit
from distill_core.teacher import describe
from tests.core.family_models import save_small
from tests.core.test_every_head import CASES


def check(
    teacher: Path,
    more: Mapping[str, Any] | None = None,
    student: Mapping[str, Any] | None = None,
    **losses: Any,
) -> None:
    pipeline = Pipeline(
        name="test",
        teacher=TeacherSource(source=str(teacher)),
        data=DataSource(source="owner/data", max_length=32, **(more or {})),
        student=student or {},
        losses=losses,
    )
    check_fit(pipeline, describe(teacher))


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [("focal_gamma", 2.0, "0.0"), ("class_weights", "balanced", "null")],
)
@pytest.mark.parametrize("name", CASES)
def test_classes_are_weighed_only_where_each_unit_has_one(
    name: str,
    key: str,
    value: Any,
    accepted: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    case = CASES[name]
    teacher = save_small("bert", case.head.architecture_suffix, tokenizer, tmp_path, **case.config)
    check(teacher)
    if name == "token-classification":
        check(teacher, **{key: value})
        return
    message = rf"losses\.{key}: {value!r}, and with {name} .*; accepted: {accepted}$"
    with pytest.raises(ConfigError, match=message):
        check(teacher, **{key: value})


def test_a_class_that_the_teacher_does_not_have_is_named(tiny_bert: Path) -> None:
    check(tiny_bert, class_weights={"positive": 2.0})
    with pytest.raises(ConfigError, match=r"no class 'bad', 'ugly'; accepted: negative, positive$"):
        check(tiny_bert, class_weights={"bad": 2.0, "positive": 1.0, "ugly": 0.5})


@pytest.mark.parametrize("family", ["deberta", "modernbert"])
def test_relations_are_refused_of_a_family_with_one_map(
    family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    teacher = save_small(family, "ForSequenceClassification", tokenizer, tmp_path)
    check(teacher)
    with pytest.raises(ConfigError, match=rf"losses\.relation: {family} .*apart: bert, roberta"):
        check(teacher, relation={"from": 0.0, "to": 1.0})


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].head.reads_plain_text])
def test_telling_texts_are_refused_where_a_head_finds_something_in_each(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    case = CASES[name]
    teacher = save_small("bert", case.head.architecture_suffix, tokenizer, tmp_path, **case.config)
    kept = {"unlabelled": "x.txt", "unlabelled_kept": "telling"}
    if name == "token-classification":
        check(teacher, kept)
        return
    with pytest.raises(
        ConfigError, match=rf"unlabelled_kept: telling, and {name} .*accepted: all$"
    ):
        check(teacher, kept)


@pytest.mark.parametrize(
    ("key", "value", "accepted"), [("unlabelled", "x.txt", "null"), ("augment", 2, "0")]
)
def test_more_text_is_refused_where_a_head_reads_none_as_it_stands(
    key: str,
    value: Any,
    accepted: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    suffix = CASES["multiple-choice"].head.architecture_suffix
    teacher = save_small("bert", suffix, tokenizer, tmp_path)
    message = rf"data\.{key}: multiple-choice reads no text as it stands; accepted: {accepted}$"
    with pytest.raises(ConfigError, match=message):
        check(teacher, {key: value})


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"vocabulary": "auto"}, "answers with tokens, so that all of them stay; accepted: null"),
        ({"packed_words": "after"}, "multiplies by the word embeddings.*accepted: null"),
    ],
    ids=["trimmed", "packed"],
)
def test_tokens_stay_as_they_are_where_the_answers_are_tokens(
    student: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    teacher = save_small("bert", "ForMaskedLM", tokenizer, tmp_path)
    with pytest.raises(ConfigError, match=message):
        check(teacher, student=student)


def test_words_too_few_to_be_packed_are_refused_before_anything_is_made(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"student\.packed_words.*2,528 weights.*accepted: null"):
        check(tiny_bert, student={"packed_words": "before"})


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("question-answering", "logits, span"),
        ("regression", "logits"),
        ("sentence-embeddings", "logits"),
        ("token-classification", None),
        ("multiple-choice", None),
    ],
)
def test_an_answer_that_the_logits_do_not_tell_is_refused_by_the_head_s_name(
    name: str, accepted: str | None, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    case = CASES[name]
    teacher = save_small("bert", case.head.architecture_suffix, tokenizer, tmp_path, **case.config)
    if accepted is None:
        shape(teacher, answer="label")
        return
    with pytest.raises(
        ConfigError, match=rf"graph\.answer: label, .*{name}.*; accepted: {accepted}$"
    ):
        shape(teacher, answer="label")


def test_a_length_is_at_most_that_of_the_texts_and_of_one_sequence(
    tiny_bert: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    shape(tiny_bert, length=32)
    with pytest.raises(
        ConfigError, match=r"graph\.length: 33 tokens, .*; accepted: 8 to 32, or null$"
    ):
        shape(tiny_bert, length=33)
    choice = CASES["multiple-choice"].head
    teacher = save_small("bert", choice.architecture_suffix, tokenizer, tmp_path)
    with pytest.raises(
        ConfigError, match=r"graph\.length: 32, .*multiple-choice.*; accepted: null$"
    ):
        shape(teacher, length=32)


def test_spans_are_refused_where_nothing_parts_question_and_context(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    question = CASES["question-answering"].head
    teacher = save_small("bert", question.architecture_suffix, tokenizer, tmp_path)
    shape(teacher, answer="span")
    nameless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    nameless.save_pretrained(teacher)
    with pytest.raises(ConfigError, match=r"graph\.answer: span, .*sep_token.*; accepted: logits$"):
        shape(teacher, answer="span")


def test_vectors_are_as_wide_as_the_teacher_s(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    teacher = describe(save_small("bert", "Model", tokenizer, tmp_path))
    given = {
        "name": "vectors",
        "teacher": {"source": "x"},
        "data": {"source": "x", "max_length": 32},
    }
    check_fit(Pipeline(**given, student={"intermediate_size": 20}), teacher)
    with pytest.raises(
        ConfigError, match=r"student\.hidden_size: 16, .* of 32 numbers; accepted: null"
    ):
        check_fit(Pipeline(**given, student={"hidden_size": 16, "heads": 2}), teacher)


def test_weights_that_one_file_cannot_hold_are_refused(tiny_bert: Path) -> None:
    teacher = describe(tiny_bert)
    large = replace(teacher, shapes={**teacher.shapes, "more": [2**29]})
    pipeline = Pipeline(
        name="test",
        teacher=TeacherSource(source=str(tiny_bert)),
        data=DataSource(source="owner/data", max_length=32),
    )
    with pytest.raises(
        ConfigError, match=r"student: .* one ONNX file holds less than 2,147,483,648"
    ):
        check_fit(pipeline, large)


def test_relations_in_parts_that_do_not_come_out_even_are_refused(tiny_bert: Path) -> None:
    check(tiny_bert, relation=1.0)
    check(tiny_bert, relation=1.0, relation_heads=8)
    narrow = {"hidden_size": 20, "heads": 4}
    check(tiny_bert, student=narrow, relation=1.0)
    message = r"losses\.relation_heads: 8 parts of 20 \(student\) and 32 \(teacher\) .* 1, 2, 4$"
    with pytest.raises(ConfigError, match=message):
        check(tiny_bert, student=narrow, relation=1.0, relation_heads=8)
    check(tiny_bert, student=narrow, relation_heads=8)  # not read


def test_a_vocabulary_that_cannot_spell_every_word_is_refused(tiny_roberta: Path) -> None:
    check(tiny_roberta, student={"vocabulary": 261})
    check(tiny_roberta, student={"vocabulary": "auto"})
    with pytest.raises(ConfigError, match=r"student\.vocabulary: 260, and 261 tokens must stay"):
        check(tiny_roberta, student={"vocabulary": 260})


def test_a_tokenizer_that_cannot_be_trimmed_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(tiny_bert, tmp_path / "teacher")
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "good": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(teacher)
    check(teacher)
    with pytest.raises(TeacherError, match="'WordLevel' cannot be trimmed; accepted: null"):
        check(teacher, student={"vocabulary": "auto"})


def shape(teacher: Path, **graph: Any) -> None:
    pipeline = Pipeline(
        name="test",
        teacher=TeacherSource(source=str(teacher)),
        data=DataSource(source="owner/data", max_length=32),
        graph=GraphShape(**graph),
    )
    check_fit(pipeline, describe(teacher))
