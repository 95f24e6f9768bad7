"""Word embeddings packed after the training, and more of it, in which all else learns to read them."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill_core.errors import ConfigError
from distill_core.job import Job
from distill_core.loss_weights import LossWeights, Ramp
from distill_core.optimization import peak_learning_rate, word_embeddings
from distill_core.packed_training import adaptation, pack_words
from distill_core.quantization.coded import CodedRows
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import Listener, Trained
from tests.core.family_models import save_small

WORDS = 8_192
USED = torch.arange(200).numpy()


@pytest.fixture(scope="module")
def many_words(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    """A BERT with words enough to be packed; not to be changed."""
    folder, sizes = tmp_path_factory.mktemp("student"), {"hidden_size": 64, "vocab_size": WORDS}
    tokenizer = load_tokenizer(tiny_bert)
    return load_model(
        save_small("bert", "ForSequenceClassification", tokenizer, folder, **sizes)
    ).eval()


def _pack(
    student: PreTrainedModel, job: Job, listen: Listener = lambda record: None, **where: Path
) -> tuple[Trained, CodedRows]:
    teacher = copy.deepcopy(student)
    work = adaptation(job, student, teacher)
    return pack_words(copy.deepcopy(student), teacher, work, USED, listen, **where)


def _table(model: PreTrainedModel) -> Tensor:
    return word_embeddings(model).weight.detach()


def test_the_student_ends_with_the_words_of_its_codes_and_all_else_learnt(
    many_words: PreTrainedModel, job: Any
) -> None:
    trained, words = _pack(many_words, job(epochs=4))
    assert torch.equal(_table(trained.model), torch.from_numpy(words.weights()))
    before, after = many_words.state_dict(), trained.model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert [record.epoch for record in trained.epochs] == [1, 2]
    assert len(trained.steps) == job(epochs=2).steps


def test_killed_on_the_way_it_ends_with_the_same_weights(
    many_words: PreTrainedModel, job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_core.checkpoint.Checkpoint.is_due", lambda self: True)
    whole, _ = _pack(many_words, job())

    def stop(record: Any) -> None:
        if record.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _pack(many_words, job(), stop, scratch=tmp_path)
    told: list[int] = []
    resumed, _ = _pack(many_words, job(), lambda record: told.append(record.step), scratch=tmp_path)
    assert told[0] > 1
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_adaptation_goes_on_where_weights_ended_at_half_the_rate(
    many_words: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(hidden=Ramp.model_validate({"from": 0.0, "to": 3.0}), task=0.5)
    before = job(weights, epochs=5, learning_rate=0.01, unlabelled="first", patience=1)
    work = adaptation(before, many_words, many_words)
    assert work.weights.at(0.0) == work.weights.at(1.0) == weights.at(1.0)
    settings = work.settings
    assert (settings.epochs, settings.unlabelled, settings.patience) == (2, "between", None)
    assert settings.learning_rate == 0.005
    automatic = adaptation(job(), many_words, many_words).settings
    assert automatic.learning_rate == peak_learning_rate(job().settings, 64) / 2


def test_unlabelled_rows_are_all_read_again(many_words: PreTrainedModel, job: Any) -> None:
    before = job(epochs=15)
    before = replace(before, unlabelled=before.train.select(range(10)))
    work = adaptation(before, many_words, many_words)
    assert work.unlabelled is before.unlabelled
    assert work.steps == 2 + 5 * before.steps_per_epoch


def test_beside_a_wider_teacher_no_vectors_are_compared(
    many_words: PreTrainedModel, fitted_teacher: PreTrainedModel, job: Any
) -> None:
    weights = LossWeights(hidden=1.0, embeddings=1.0, relation=2.0)
    work = adaptation(job(weights), many_words, fitted_teacher)
    assert work.weights.at(0.0) == {
        "distillation": 5.0,
        "task": 2.0,
        "cosine": 0.0,
        "relation": 2.0,
    }


def test_words_too_few_to_be_packed_are_refused(student: PreTrainedModel, job: Any) -> None:
    with pytest.raises(ConfigError, match=r"student\.packed_words: the word embeddings have"):
        _pack(student, job())
