"""Layers chosen by trying picks."""

import pytest
import torch
from datasets import DatasetDict
from torch import tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel

from distill_core.batches import draw_rows
from distill_core.config import TrainingSettings
from distill_core.evaluation import agreement, model_logits
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.job import Job, StepRecord
from distill_core.loss_weights import LossWeights
from distill_core.search import Answers, Search, Try, as_table, ask, compare, search_layers
from distill_core.student import build_student
from distill_core.teacher import describe
from distill_core.training import distill

ROUNDS = ((2, 20), (5, 3))


@pytest.fixture(scope="module")
def search(
    fitted_teacher: PreTrainedModel, tiny_bert, rows: DatasetDict, head: SequenceClassification
) -> Search:
    settings = TrainingSettings(batch_size=8, learning_rate=0.002, precision="fp32", dropout=False)
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    return Search(fitted_teacher, fitted_teacher, describe(tiny_bert), job, ROUNDS)


@pytest.fixture(scope="module")
def tries(search: Search) -> list[Try]:
    return search_layers(search, 2, listen=lambda record: None)


def test_every_pick_is_tried_and_the_best_for_longer(tries: list[Try]) -> None:
    assert len(tries) == 6  # 2 of 4 layers
    assert [one.steps for one in tries] == [5, 5, 5, 2, 2, 2]
    for half in (tries[:3], tries[3:]):
        distances = [one.fidelity.distance for one in half]
        assert distances == sorted(distances)
    assert all(one.fidelity.distance > 0 for one in tries)


def test_a_search_is_the_same_every_time(search: Search, tries: list[Try]) -> None:
    torch.rand(7)  # whatever else was drawn
    assert search_layers(search, 2, listen=lambda record: None) == tries


def test_a_pick_is_scored_after_training_like_any_other(search: Search, tries: list[Try]) -> None:
    job, best = search.job, tries[0]
    student = build_student(search.origin, "bert.encoder.layer.", best.layers)
    settings = job.settings.model_copy(update={"max_steps": 5})
    seen = draw_rows(job.train, 256, seed=0)
    again = Job(job.train, seen, job.head, job.weights, settings)
    trained = distill(student, search.teacher, again, listen=lambda record: None).model
    logits = [model_logits(model, job.head, seen) for model in (trained, search.teacher)]
    ours, theirs = (log_softmax(tensor(z) / 2, dim=-1) for z in logits)
    divergence = kl_div(ours, theirs, reduction="batchmean", log_target=True)
    assert best.fidelity.distance == pytest.approx(4 * float(divergence), rel=1e-4)
    assert best.fidelity.agreement == agreement(job.head, *logits)


def test_steps_are_numbered_through(search: Search) -> None:
    heard: list[StepRecord] = []
    search_layers(search, 3, listen=heard.append)
    assert [record.step for record in heard] == list(range(1, 4 * 2 + 3 * 5 + 1))


def test_the_teachers_own_answers_are_nearest(search: Search) -> None:
    seen = draw_rows(search.job.train, 9, seed=1)
    theirs = ask(search.teacher, search.job.head, seen)
    found = compare(theirs, theirs, search.job.head, temperature=2.0)
    assert (found.distance, found.agreement) == (0, 1)


def test_tokens_count_alike_however_they_are_batched() -> None:
    head, logits = TokenClassification(("O", "B-X")), torch.randn(6, 2)
    said = torch.randn(6, 2)
    words = torch.zeros(6).numpy()
    whole, parts = (
        [Answers(tuple(z.split(sizes)), words) for z in (said, logits)] for sizes in ([6], [1, 5])
    )
    distances = [compare(ours, theirs, head, 2.0).distance for ours, theirs in (whole, parts)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_a_table_has_the_chosen_pick_first(tries: list[Try]) -> None:
    table = as_table(tries)
    assert [row["chosen"] for row in table] == [True, *[False] * 5]
    assert table[0].keys() == {"layers", "rule", "steps", "distance", "agreement", "chosen"}
    assert {tuple(row["layers"]): row["rule"] for row in table}[0, 2] == "alternate"


def test_rows_are_drawn_without_replacement_in_their_order(rows: DatasetDict) -> None:
    drawn = draw_rows(rows["train"], 20, seed=5)["text"][:]
    everything = rows["train"]["text"][:]
    places = [everything.index(text) for text in drawn]
    assert places == sorted(set(places))
    assert drawn != draw_rows(rows["train"], 20, seed=6)["text"][:]
    assert draw_rows(rows["train"], 10_000, seed=5)["text"][:] == everything
