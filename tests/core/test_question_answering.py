"""Question answering: windows, spans, scores, and the loading code that a bundle prints."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

from distill_core.batches import collate, model_inputs, open_tokenized, tokenize
from distill_core.bundle import HARD_TEXTS, Artifact, Origin, assemble
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import Splits, read_dataset
from distill_core.errors import ConfigError, DataError
from distill_core.evaluation import agreement, evaluate
from distill_core.export import export_onnx
from distill_core.heads.question_answering import MOST_TOKENS, QuestionAnswering, best_span
from distill_core.heads.squad_score import score_answer
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.manifest import read_manifest
from distill_core.quantization import quantize
from distill_core.runtime import answer_row
from distill_core.schemes import INT8_REDUCED
from distill_core.session import MODEL_INPUTS, open_session
from distill_core.soft_targets import soft_target_loss
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import load_model
from distill_core.training import distill
from distill_core.verification import verify
from tests.core.bundle_script import check_alone
from tests.core.family_models import save_small

HEAD = QuestionAnswering(())
NONE: dict[str, list[Any]] = {"text": [], "answer_start": []}
FILM = "the film was good"
LONG = "the plot was very dull " * 6 + "the cast was bright"


def said(text: str, start: int) -> dict[str, list[Any]]:
    return {"text": [text], "answer_start": [start]}


def encode(tokenizer: PreTrainedTokenizerFast, *rows: tuple[str, str, Any]) -> list[dict[str, Any]]:
    """Return the windows of questions, contexts and answers, of at most 16 tokens."""
    columns = dict(
        zip(("question", "context", "answers"), map(list, zip(*rows, strict=True)), strict=True)
    )
    table = HEAD.encode(columns, tokenizer, max_length=16)
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def point(row: dict[str, Any], first: int, last: int, score: float) -> np.ndarray:
    """Return logits of a window that point to a span, with a score, and at no answer with 1."""
    logits = np.full((len(row["starts"]), 2), -50.0)
    logits[0] = 0.5
    logits[first, 0] = logits[last, 1] = score / 2
    return HEAD.units(logits, row)


words = st.sampled_from(["The", "a", "an", "the", "film", "Film!", "good", "-", "good,", "9.5", ""])
sentences = st.lists(words, max_size=5).map(" ".join)


@given(sentences, st.lists(sentences, min_size=1, max_size=3))
def test_scores_are_those_of_squads_own_scorer(answer: str, right: list[str]) -> None:
    from transformers.data.metrics.squad_metrics import normalize_answer

    meant = [text for text in right if normalize_answer(text)] or [""]  # as its get_raw_scores does
    expected = [max(score(text, answer) for text in meant) for score in (compute_exact, compute_f1)]
    assert score_answer(answer, right) == pytest.approx(expected)


def test_scores_are_what_counting_gives_by_hand() -> None:
    # Two words of three said are among the two meant: 2·2 / (3 + 2).
    assert score_answer("The very good film", ["a dull plot", "good film"]) == (0, 4 / 5)
    assert score_answer("", []) == (1, 1)
    assert score_answer("film", []) == score_answer("", ["film"]) == (0, 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_the_best_span_is_the_best_of_all_that_are_allowed(seed: int, tokens: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(tokens, 2))
    spans = [(i, j) for i in range(tokens) for j in range(i, min(i + MOST_TOKENS, tokens))]
    scores = [logits[i, 0] + logits[j, 1] for i, j in spans]
    assert best_span(logits) == (*spans[int(np.argmax(scores))], max(scores))


def test_a_short_context_is_one_row_with_the_tokens_of_its_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (row,) = encode(tokenizer, ("film", FILM, said("good", 13)))
    expected = tokenizer("film", FILM)
    assert {name: row[name] for name in expected} == dict(expected)
    # [CLS] film [SEP] the film was good [SEP]
    assert row["starts"] == [-1, -1, -1, 0, 4, 9, 13, -1]
    assert row["ends"] == [-1, -1, -1, 3, 8, 12, 17, -1]
    assert (row["label"], row["window"]) == ([6, 6], 0)


def test_a_long_context_is_read_in_windows_that_leave_out_no_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = encode(tokenizer, ("cast", LONG, NONE), ("film", FILM, NONE), ("plot", LONG, NONE))
    # 34 words; a window has room for 12 of them, and shares 5, a third of 16, with the next.
    assert [row["window"] for row in rows] == [0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4]
    whole = tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True)
    seen = [set(zip(row["starts"], row["ends"], strict=True)) - {(-1, -1)} for row in rows[:5]]
    assert set.union(*seen) == set(whole["offset_mapping"])
    assert [len(one & other) for one, other in pairwise(seen)] == [5, 5, 5, 5]
    assert [len(row["input_ids"]) for row in rows[:4]] == [16] * 4


def test_windows_without_the_answer_point_at_the_first_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    start = LONG.index("the cast")
    rows = encode(tokenizer, ("cast", LONG, said("the cast was bright", start)))
    assert [row["label"] for row in rows[:4]] == [[0, 0]] * 4
    first, last = rows[4]["label"]
    assert LONG[rows[4]["starts"][first] : rows[4]["ends"][last]] == "the cast was bright"
    assert [row["label"] for row in encode(tokenizer, ("cast", LONG, NONE))] == [[0, 0]] * 5


@given(st.integers(0, len(FILM) - 1), st.integers(1, len(FILM)))
def test_the_label_is_of_all_words_that_the_answer_has_a_letter_of(
    tokenizer: PreTrainedTokenizerFast, start: int, end: int
) -> None:
    assume(FILM[start:end].strip())
    (row,) = encode(tokenizer, ("film", FILM, said(FILM[start:end], start)))
    letters = [at for at in range(start, end) if FILM[at] != " "]
    touched = [FILM[:at].count(" ") for at in letters]
    # [CLS] film [SEP], and then the words.
    assert row["label"] == [3 + touched[0], 3 + touched[-1]]


def test_a_question_is_cut_to_a_third_of_the_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    (row,) = encode(tokenizer, ("the plot was very dull not good", FILM, said("good", 13)))
    assert row["question"] == "the plot was very dull"
    assert row["label"] == [10, 10]


def test_windows_too_short_for_a_question_and_its_context_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = {"question": ["film"], "context": [FILM], "answers": [NONE]}
    with pytest.raises(ConfigError, match=r"data\.max_length: 15 .*accepted: 16 or more"):
        HEAD.encode(rows, tokenizer, max_length=15)


def test_the_tokenizers_own_truncation_gives_the_first_window(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    windows = encode(tokenizer, ("the cast", LONG, said("bright", LONG.index("bright"))))
    row = HEAD.read_texts(HEAD.texts(windows[0]), tokenizer, max_length=16)
    assert {name: row[name] for name in windows[0] if name in row} == {
        name: windows[0][name] for name in ("context", "starts", "ends", "window", *MODEL_INPUTS)
    }


def test_the_answer_is_the_best_span_of_all_windows(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode(tokenizer, ("cast", LONG, NONE), ("film", FILM, said("good", 13)))
    logits = [point(row, 3, 4, score=2 + (number == 1)) for number, row in enumerate(rows[:5])]
    logits.append(point(rows[5], 4, 6, score=2))
    spans = HEAD.predict(np.concatenate(logits))
    best = rows[1]
    assert LONG[slice(*spans[0])] == LONG[best["starts"][3] : best["ends"][4]]
    assert FILM[slice(*spans[1])] == "film was good"


def test_there_is_no_answer_where_the_first_token_says_so_in_every_window(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = encode(tokenizer, ("cast", LONG, NONE))
    logits = np.concatenate([point(row, 3, 3, score=0.9) for row in rows])  # no answer has 1
    assert HEAD.predict(logits).tolist() == [[0, 0]]
    logits[2, 4] = 0.8
    assert HEAD.predict(logits).tolist() != [[0, 0]]
    (empty,) = encode(tokenizer, ("cast", "", NONE))
    assert HEAD.predict(HEAD.units(np.zeros((4, 2)), empty)).tolist() == [[0, 0]]


def test_models_are_as_far_from_each_other_as_their_scores_whatever_the_place(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (row, empty) = (encode(tokenizer, ("film", context, NONE))[0] for context in ("a plot", ""))
    first = np.concatenate([point(row, 3, 3, 2.0), HEAD.units(np.zeros((4, 2)), empty)])
    second = first + np.asarray([[0, 5, 5, 3, 0], [0, 0, 0, 0, 0]], dtype=np.float32)
    assert HEAD.distance(first, first) == 0
    assert HEAD.distance(first, second) == pytest.approx(9 / 4)


def test_scores_are_those_of_a_questions_windows_however_many_these_are() -> None:
    one = np.asarray([[1, 0, 4, 3.0, 1.0], [1, 0, 0, 1.0, 2.0]])
    cut = np.asarray([[1, 0, 0, 0.5, 1.5], [0, 0, 4, 5.0, 4.0], [1, 0, 0, 1.0, 2.0]])
    # Best span and least that no answer has: 3 and 1 of the first question, and 5 and 1.5.
    assert HEAD.distance(one, cut) == pytest.approx((2**2 + 0.5**2) / 4)


def test_models_agree_that_give_the_same_text_from_another_place(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (row,) = encode(tokenizer, ("film", "the film the plot", NONE))
    first, second, other = (point(row, token, token, 2.0) for token in (3, 5, 4))
    assert agreement(HEAD, first, second) == 1
    assert agreement(HEAD, first, other) == 0


def test_an_evaluation_counts_questions_and_not_windows(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = encode(tokenizer, ("cast", LONG, NONE), ("film", FILM, said("was good", 9)))
    labels = HEAD.read_units({name: [row[name] for row in rows] for name in HEAD.scored_columns})
    silent = [point(row, 3, 3, score=0) for row in rows[:5]]
    teacher = np.concatenate([*silent, point(rows[5], 5, 6, score=2)])
    student = np.concatenate([*silent, point(rows[5], 6, 6, score=2)])
    facts = evaluate(HEAD, teacher, student, labels, seed=0)
    assert facts["rows"] == 2
    assert facts["teacher"] == {"f1": 1, "exact_match": 1}
    # "good" of "was good": 2·1 / (1 + 2).
    assert facts["student"] == pytest.approx({"f1": (1 + 2 / 3) / 2, "exact_match": 0.5})
    assert (facts["agreement"], facts["per_class"], facts["confusion"]) == (0.5, [], [])


@given(st.integers(0, 2**32 - 1), st.floats(1, 9))
def test_padding_is_neither_softened_nor_learnt(seed: int, temperature: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, 5, 2, generator=draws, dtype=torch.float64) for _ in range(2)]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    student, teacher = (HEAD.positions(z, mask) for z in logits)
    pairs = [(row, n, part) for row, n in ((0, 5), (1, 3)) for part in (0, 1)]
    expected = [
        soft_target_loss(*(z[row, None, :n, part] for z in logits), temperature)
        for row, n, part in pairs
    ]
    assert_close(HEAD.soft_loss(student, teacher, temperature), torch.stack(expected).mean())


@pytest.fixture(scope="module")
def teacher(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights that answers questions."""
    folder = tmp_path_factory.mktemp("teacher")
    return save_small("bert", "ForQuestionAnswering", tokenizer, folder)


def test_the_task_loss_is_transformers_own(
    teacher: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = load_model(teacher)
    windows = encode(tokenizer, ("cast", LONG, said("dull", 18)))
    batch = collate(windows[:4], pad_token_id=0)  # of one length: transformers learns padding too
    starts, ends = batch["labels"].T
    answer = model(**model_inputs(model, batch), start_positions=starts, end_positions=ends)
    logits = HEAD.read_output(answer, batch["attention_mask"])
    assert_close(HEAD.task_loss(logits, batch["labels"]), answer.loss)


def test_start_and_end_are_read_of_arrays_as_of_tensors() -> None:
    start, end = torch.randn(2, 1, 4).unbind()
    mask = torch.tensor([[1, 1, 1, 0]])
    of_tensors = HEAD.read_output({"start_logits": start, "end_logits": end}, mask)
    arrays = {"start_logits": start.numpy(), "end_logits": end.numpy()}
    np.testing.assert_allclose(HEAD.read_output(arrays, mask.numpy()), of_tensors.numpy())
    assert_close(of_tensors[:, :3], torch.stack([start, end], dim=-1)[:, :3])


# Data sets


def write(folder: Path, answers: list[Any], context: str = FILM) -> None:
    rows = len(answers)
    table = {"question": ["film"] * rows, "context": [context] * rows, "answers": answers}
    for name in ("train", "validation"):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")


def read(folder: Path) -> Splits:
    return read_dataset(DataSource(source=str(folder)), HEAD, seed=0)


def test_answers_are_read_as_squad_stores_them_with_or_without_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    # More rows without than are tokenized at once, so that no text tells what the column holds.
    answers = [*[NONE] * 1001, {"text": ["good", "was good"], "answer_start": [13, 9]}]
    write(tmp_path, answers)
    tokenize(read(tmp_path), HEAD, tokenizer, max_length=16, folder=tmp_path / "rows")
    rows = open_tokenized(tmp_path / "rows")["train"]
    assert rows["answers"][-1] == answers[-1]
    assert rows["label"][-2:] == [[0, 0], [6, 6]]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "row 1 has None; accepted: {text"),
        ({"text": ["good"], "answer_start": [13, 9]}, "accepted: .* as many texts as places"),
        ({"text": [" "], "answer_start": [3]}, "none blank"),
        (
            {"text": ["good"], "answer_start": [4]},
            "answers has 'good' at 4, where context has 'film'",
        ),
        ({"text": ["good"], "answer_start": [-4]}, "answers has 'good' at -4"),
    ],
)
def test_answers_that_are_none_of_their_context_are_refused(
    tmp_path: Path, answer: Any, says: str
) -> None:
    write(tmp_path, [said("good", 13), answer])
    with pytest.raises(DataError, match=f"train.*{says}"):
        read(tmp_path)


def test_a_split_without_any_answer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [said("good", 13)])
    pq.write_table(
        pa.table({"question": ["film"], "context": [FILM], "answers": [NONE]}),
        tmp_path / "validation.parquet",
    )
    with pytest.raises(DataError, match="validation: column answers: no row has an answer"):
        read(tmp_path)


# The whole way


def test_a_training_with_kept_outputs_goes_as_one_that_asks_again(
    teacher: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    context = "the film was very good and the plot was dull " * 2
    write(tmp_path, [said("dull", 40), NONE, said("good", 18)] * 4, context)
    tokenize(read(tmp_path), HEAD, tokenizer, max_length=16, folder=tmp_path / "rows")
    rows = open_tokenized(tmp_path / "rows")
    settings = TrainingSettings(epochs=3, batch_size=5, precision="fp32")
    job = Job(rows["train"], rows["validation"], HEAD, LossWeights(), settings)
    model = load_model(teacher)
    student = build_student(model, "bert.encoder.layer.", (0, 2))
    asked, kept = (
        distill(student, model, job, lambda record: None, scratch) for scratch in (None, tmp_path)
    )
    assert kept.kept_outputs
    assert [step.total for step in kept.steps] == pytest.approx(
        [step.total for step in asked.steps], rel=1e-3
    )


@pytest.fixture(scope="module")
def bundle(
    teacher: Path, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    windows = encode(tokenizer, ("cast", LONG, NONE))
    rows = Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in windows])
    model = load_model(teacher)
    facts = export_onnx(model, HEAD, rows, OPSET, folder / "model.onnx")
    target = TARGETS["linux-x86-64"]
    (folder / "quantized").mkdir()
    file = quantize(folder / "model.onnx", INT8_REDUCED, [], folder / "quantized")
    save_model(model, teacher, folder / "student")
    origin = Origin(
        "qa",
        folder / "student",
        folder / "model.onnx",
        HEAD,
        16,
        "0" * 64,
        facts["inputs"],
        facts["outputs"],
    )
    (folder / "bundle").mkdir()
    made = Artifact(target, "int8-reduced-range", file, {"f1": 1.0}, 1.0, 1.0)
    assemble(made, origin, [("film", FILM), ("cast", LONG)], folder / "bundle")
    return folder / "bundle"


def test_golden_examples_are_pairs_cut_as_any_tokenizer_cuts_them(bundle: Path) -> None:
    assert verify(bundle).problems == ()
    assert "every file and golden example is right" in check_alone(bundle, 0)
    golden = read_manifest(bundle).golden
    assert [(one.text, one.pair) for one in golden[:2]] == [("film", FILM), ("cast", LONG)]
    assert {one.pair for one in golden} >= set(HARD_TEXTS)
    assert len(golden[0].logits) == 2 * len(golden[0].inputs["input_ids"])
    assert all(one.label in one.pair for one in golden)


@pytest.mark.parametrize("context", [FILM, LONG])
def test_loading_code_of_the_model_card_answers_as_the_head_does(
    bundle: Path, tokenizer: PreTrainedTokenizerFast, context: str
) -> None:
    session = open_session(bundle / "onnx" / "model_quantized.onnx")
    rows = encode(tokenizer, ("cast", context, NONE))
    logits = [HEAD.units(answer_row(session, HEAD, row), row) for row in rows]
    start, end = HEAD.predict(np.concatenate(logits))[0]

    code = (bundle / "README.md").read_text().split("```python\n")[1].split("```")[0]
    asked = '"the question", "the text that may hold the answer"'
    assert asked in code
    code = code.replace(asked, f"'cast', {context!r}")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == context[start:end]
