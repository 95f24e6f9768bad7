"""Every head beside sequence classification: scores by hand, and the whole way from files to a bundle."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score
from torch import tensor
from torch.testing import assert_close
from transformers import BertTokenizerFast

from distill_core.batches import open_tokenized, tokenize
from distill_core.bundle import Artifact, Origin, assemble
from distill_core.config import Columns, DataSource, StudentShape, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.errors import DataError
from distill_core.evaluation import evaluate, model_logits, read_labels
from distill_core.export import export_onnx
from distill_core.heads import HEADS, Head, Labels
from distill_core.heads.masked_language_modelling import MaskedLanguageModelling
from distill_core.heads.multi_label import MultiLabelClassification
from distill_core.heads.multiple_choice import MultipleChoice
from distill_core.heads.question_answering import QuestionAnswering
from distill_core.heads.regression import Regression
from distill_core.heads.sentence_embeddings import SentenceEmbeddings
from distill_core.heads.token_classification import NOT_COUNTED, TokenClassification, entities
from distill_core.job import Job
from distill_core.layers import pick_layers
from distill_core.loss_weights import LossWeights
from distill_core.quantization import quantize
from distill_core.schemes import INT8_REDUCED
from distill_core.scoring import ask_file, score_file
from distill_core.soft_targets import soft_target_loss
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import describe, load_model, load_tokenizer
from distill_core.training import distill
from distill_core.verification import verify
from tests.conftest import BAD, GOOD, TEXTS, THINGS
from tests.core.bundle_script import check_alone
from tests.core.family_models import save_small

FAMILIES = ("bert", "roberta", "distilbert", "modernbert")
"""Segments, positions from 2, neither of them, and rotary positions with norms before the layers."""

TOPICS = MultiLabelClassification(("good", "bad", "film"))
SCORE = Regression(("score",))
ENTITIES = TokenClassification(("O", "B-THING", "I-THING", "B-WORD"))
SPAN = QuestionAnswering(())
CHOICE = MultipleChoice(())


def rowwise(values: Any) -> Labels:
    return Labels(np.asarray(values), np.arange(len(values)))


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_several_labels_are_lists_of_names_or_numbers() -> None:
    labels = TOPICS.read_labels([["good", 2], [], [1]], "train: column label")
    assert np.stack([*labels]).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("kind", [int, float, bool])
def test_several_labels_may_stand_as_0_and_1_for_each_class(kind: type) -> None:
    ones = [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    labels = TOPICS.read_labels([[kind(one) for one in row] for row in ones], "train")
    assert np.stack([*labels]).tolist() == ones


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["good"], "accepted: a list"),
        ([["ugly"]], "'ugly'"),
        ([[1.0, 0.0, 1.0], [0.5, 0.0, 0.0]], "1.0"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(values: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=f"train: row 0 .*{says}"):
        list(TOPICS.read_labels(values, "train"))


def test_the_soft_loss_of_several_labels_is_what_the_formula_gives_by_hand() -> None:
    # θ = 2. t/θ = ln 3, so p = 3/4; s/θ = 0, so q = 1/2 and the loss of any p is ln 2; times θ² = 4.
    loss = TOPICS.soft_loss(torch.zeros(1, 1), tensor([[2 * np.log(3)]]).float(), 2.0)
    assert_close(loss, tensor(4 * np.log(2)).float())


@given(st.integers(0, 2**32 - 1), st.floats(1, 9))
def test_the_soft_loss_of_several_labels_is_the_soft_target_loss_of_yes_and_no(
    seed: int, temperature: float
) -> None:
    student, teacher = (tensor(draw(seed + part, 4, 3)) for part in (0, 1))
    yes_no = [torch.stack([z.flatten(), torch.zeros(12)], dim=1) for z in (student, teacher)]
    ours = TOPICS.soft_loss(student, teacher, temperature)
    assert_close(ours, soft_target_loss(*yes_no, temperature))


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1))
def test_scores_of_several_labels_are_scikit_learns(rows: list[list[bool]]) -> None:
    table = np.array(rows, dtype=np.int64)
    said, labels = table[:, :3], table[:, 3:]
    found = TOPICS.metrics(said, rowwise(labels))
    assert found["f1_micro"] == pytest.approx(
        f1_score(labels, said, average="micro", zero_division=0)
    )
    assert found["exact_match"] == pytest.approx((said == labels).all(axis=1).mean())


@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_scores_of_a_regression_are_scipys(seed: int, rows: int) -> None:
    said, labels = draw(seed, rows), np.round(draw(seed + 1, rows))  # ties among the labels
    found = SCORE.metrics(said, rowwise(labels))
    if len(set(labels)) > 1:
        assert found["spearman"] == pytest.approx(spearmanr(said, labels).statistic)
        assert found["pearson"] == pytest.approx(pearsonr(said, labels).statistic)
    assert found["mse"] == pytest.approx(((said - labels) ** 2).mean())
    assert SCORE.agreement(said, 3 * said + 1) == pytest.approx(1)


def test_scores_are_the_same_answer_within_the_tolerance() -> None:
    score = np.array([2.5], np.float32)
    assert SCORE.same_answer(score, score + 0.09, {}, {})
    assert not SCORE.same_answer(score, score - 0.11, {}, {})


@pytest.mark.parametrize("values", [[1.0, None], [1.0, "2"], [1.0, float("nan")], [2, 2]])
def test_what_is_no_score_is_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="train"):
        SCORE.read_labels(values, "train")


def test_an_entity_counts_when_words_and_kind_are_right() -> None:
    # Row 0: THING over words 0-1, said over 0 alone: one false, one missed. Row 1: WORD, right.
    labels = Labels(np.array([1, 2, 0, 3]), np.array([0, 0, 0, 1]))
    said = np.array([1, 0, 0, 3])
    assert ENTITIES.statistics(said, labels).tolist() == [[0, 1, 1], [1, 0, 0]]
    found = ENTITIES.metrics(said, labels)
    assert found == pytest.approx(
        {"f1": 0.5, "precision": 0.5, "recall": 0.5, "tag_accuracy": 0.75}
    )


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-A I-A O B-A", {("A", 0, 1), ("A", 3, 3)}),
        ("B-A B-A I-A", {("A", 0, 0), ("A", 1, 2)}),
        ("I-A I-A O I-B", {("A", 0, 1), ("B", 3, 3)}),  # conlleval: what starts inside starts there
        ("B-A I-B I-B", {("A", 0, 0), ("B", 1, 2)}),
        ("NOUN VERB", {("NOUN", 0, 0), ("VERB", 1, 1)}),
        ("B-A-x I-A-x", {("A-x", 0, 1)}),
    ],
)
def test_entities_are_what_conlls_scorer_reads(tags: str, found: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


def test_the_first_piece_of_each_word_has_its_tag_and_no_other_token(tiny_bert: Path) -> None:
    rows = {"tokens": [["The", "xyz", "film"], ["film"] * 9], "tags": [[0, 1, 3], [3] * 9]}
    encoded = ENTITIES.encode(rows, load_tokenizer(tiny_bert), max_length=7)
    no = NOT_COUNTED
    # xyz is no word of the vocabulary, so it is spelt: x ##y ##z.
    assert encoded["label"] == [[no, 0, 1, no, no, 3, no], [no, 3, 3, 3, 3, 3, no]]
    assert ENTITIES.read_units(encoded).rows.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    output = np.arange(36.0).reshape(9, 4)  # of a batch with a longer row beside it
    assert ENTITIES.units(output, {"label": encoded["label"][0]})[:, 0].tolist() == [4, 8, 20]


def test_padding_is_not_softened() -> None:
    logits, mask = torch.arange(12.0).reshape(2, 3, 2), tensor([[1, 1, 1], [1, 0, 0]])
    assert ENTITIES.positions(logits, mask)[:, 0].tolist() == [0, 2, 4, 6]


@dataclass(frozen=True)
class Case:
    """A head, its labels for the config, and the columns of a data set."""

    head: Head
    config: dict[str, Any]
    columns: dict[str, Any]
    rows: dict[str, list[Any]]

    def write(self, folder: Path, **splits: Sequence[int]) -> DataSource:
        """Write a data set's folder, of the rows with these numbers."""
        folder.mkdir()
        for name, numbers in splits.items():
            table = {key: [values[row] for row in numbers] for key, values in self.rows.items()}
            pq.write_table(pa.table(table), folder / f"{name}.parquet")
        return DataSource(source=str(folder), columns=Columns(**self.columns))


_WORDS = [text.split() for text in TEXTS]
_GOOD = [int(text.endswith(GOOD)) for text in TEXTS]
ORDER = random.Random(0).sample(range(len(TEXTS)), k=len(TEXTS))
_OTHERS = random.Random(1).sample(TEXTS, k=len(TEXTS))


def _names(head: Head) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(head.labels)),
        "label2id": {name: number for number, name in enumerate(head.labels)},
    }


def _tags(words: list[str]) -> list[int]:
    return [1 if w in THINGS else 3 if w in GOOD + BAD else 0 for w in words]


def _passage(number: int, words: list[str]) -> tuple[str, dict[str, list[Any]]]:
    """Return a text and what it says of its thing: nothing in every fifth, in a second window in others."""
    if number % 5 == 0:
        return " ".join(words[:-1]), {"text": [], "answer_start": []}
    before = "the scene was " * (9 if number % 7 == 0 else 0) + " ".join(words[:-1]) + " "
    return before + words[-1], {"text": [words[-1]], "answer_start": [len(before)]}


def _ends(number: int) -> list[str]:
    """Return three endings, of which one is kind: that with the number of the row, by threes."""
    ends = [f"was {BAD[(number + end) % 5]}" for end in range(3)]
    ends[number % 3] = f"was very {GOOD[number % 5]}"
    return ends


_PASSAGES = [_passage(number, words) for number, words in enumerate(_WORDS)]

CASES = {
    "multi-label-classification": Case(
        TOPICS,
        {**_names(TOPICS), "problem_type": "multi_label_classification"},
        {"text": "sentence"},
        {
            "sentence": TEXTS,
            "label": [
                ["good" if good else "bad"] + ["film"] * ("film" in text)
                for good, text in zip(_GOOD, TEXTS, strict=True)
            ],
        },
    ),
    "regression": Case(
        SCORE,
        {**_names(SCORE), "problem_type": "regression"},
        {"text": "one", "pair": "other", "label": "score"},
        {
            "one": TEXTS,
            "other": _OTHERS,
            "score": [float(text.endswith(GOOD)) for text in TEXTS],
        },
    ),
    "token-classification": Case(
        ENTITIES,
        _names(ENTITIES),
        {"tags": "ner"},
        {"tokens": _WORDS, "ner": [_tags(words) for words in _WORDS]},
    ),
    "question-answering": Case(
        SPAN,
        {},
        {"context": "passage"},
        {
            "question": [words[1] for words in _WORDS],
            "passage": [passage for passage, _ in _PASSAGES],
            "answers": [answers for _, answers in _PASSAGES],
        },
    ),
    "multiple-choice": Case(
        CHOICE,
        {},
        {"text": "start", "choices": ["end0", "end1", "end2"], "label": "right"},
        {
            "start": [" ".join(words[:2]) for words in _WORDS],
            **{
                f"end{end}": [_ends(number)[end] for number in range(len(TEXTS))]
                for end in range(3)
            },
            "right": ["ABC"[number % 3] for number in range(len(TEXTS))],
        },
    ),
    "masked-language-modelling": Case(
        MaskedLanguageModelling(()), {}, {"text": "sentence"}, {"sentence": TEXTS}
    ),
    "sentence-embeddings": Case(
        SentenceEmbeddings((), "mean"),
        {},
        {"text": "one", "pair": "other", "label": "shared"},
        {
            "one": TEXTS,
            "other": _OTHERS,
            "shared": [
                float(len(set(one.split()) & set(other.split())))
                for one, other in zip(TEXTS, _OTHERS, strict=True)
            ],
        },
    ),
}


def test_every_head_goes_the_whole_way() -> None:
    assert CASES.keys() == HEADS.keys() - {"sequence-classification"}


FEW_HEADS = {
    "distilbert": (),
    "modernbert": ("token-classification", "question-answering", "masked-language-modelling"),
}
"""Of families that are near another, the heads that are not only tried now and then: those of every token."""


def _ways() -> Iterator[Any]:
    for name, family in itertools.product(CASES, FAMILIES):
        often = name in FEW_HEADS.get(family, CASES)
        yield pytest.param(name, family, marks=() if often else pytest.mark.slow)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def splits(case: Case, tmp_path: Path) -> Splits:
    source = case.write(tmp_path / "data", train=ORDER[:120], validation=ORDER[120:])
    return read_dataset(source, case.head, seed=0)


@pytest.mark.parametrize(("case", "family"), _ways(), indirect=["case"])
def test_a_head_learns_exports_quantizes_and_verifies(
    case: Case, family: str, splits: Splits, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    segments = ["token_type_ids"] if family == "bert" else []
    tokenizer = BertTokenizerFast.from_pretrained(
        tiny_bert, model_input_names=["input_ids", "attention_mask", *segments]
    )
    save_small(family, case.head.architecture_suffix, tokenizer, folder, **case.config)
    seen = describe(folder)
    assert seen.head == case.head
    tokenize(splits, case.head, load_tokenizer(folder), max_length=32, folder=tmp_path / "rows")
    rows = open_tokenized(tmp_path / "rows")

    settings = TrainingSettings(epochs=12, batch_size=16, learning_rate=0.005, precision="fp32")
    work = Job(rows["train"], rows["validation"], case.head, LossWeights(), settings)
    teacher = distill(load_model(folder), None, work, listen=lambda record: None).model
    start = build_student(teacher, seen.layer_prefix, pick_layers(seen.stack.kinds, StudentShape()))
    fewer = replace(work, settings=settings.model_copy(update={"epochs": 4}))
    student = distill(start, teacher, fewer, listen=lambda record: None).model

    labels = read_labels(case.head, rows["validation"])
    logits = [model_logits(model, case.head, rows["validation"]) for model in (teacher, student)]
    facts = evaluate(case.head, *logits, labels, seed=0)
    assert facts["rows"] == 30
    assert facts["teacher"][facts["main_metric"]] > 0.4
    assert facts["retention"] > 0.8
    interval = facts["difference"]
    assert interval["low"] <= interval["difference"] <= interval["high"]

    onnx = tmp_path / "model.onnx"
    exported = export_onnx(student, case.head, rows["validation"], OPSET, onnx)
    target = TARGETS["linux-x86-64"]
    (tmp_path / "quantized").mkdir()
    file = quantize(onnx, INT8_REDUCED, [], tmp_path / "quantized")
    answers = ask_file(file, case.head, rows["validation"])
    found = score_file(file, answers, *logits)
    assert abs(found["drop"]) < 0.1

    save_model(student, folder, tmp_path / "student")
    origin = Origin(
        "test",
        tmp_path / "student",
        onnx,
        case.head,
        32,
        "0" * 64,
        exported["inputs"],
        exported["outputs"],
    )
    texts = [case.head.texts(row) for row in rows["validation"].select(range(3))]
    (tmp_path / "bundle").mkdir()
    figures = (found["metrics"], found["retention"], found["agreement"])
    made = Artifact(target, "int8-reduced-range", file, *figures)
    assemble(made, origin, texts, tmp_path / "bundle")
    assert verify(tmp_path / "bundle").problems == ()
    if family == "bert":  # the script in a bundle knows heads, not families
        assert "every file and golden example is right" in check_alone(tmp_path / "bundle", 0)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert case.head.reading in card
    assert "text classifier" not in card
