"""The optimizers of a step, each against a dense twin."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Adam
from torch.testing import assert_close
from transformers import PreTrainedModel

from distill_core.config import TrainingSettings
from distill_core.optimization import (
    WEIGHT_DECAY,
    build_optimizers,
    clip_gradients,
    make_embeddings_sparse,
    peak_learning_rate,
    word_embeddings,
)
from distill_core.teacher import load_model, load_tokenizer
from tests.core.family_models import SMALL, save_small

IDS = torch.tensor([[2, 9, 9, 40, 3], [2, 9, 77, 3, 0]])  # 9 twice and 0, the padding, once


@pytest.fixture
def model(tiny_bert: Path) -> PreTrainedModel:
    return load_model(tiny_bert)


def backward(model: PreTrainedModel, scale: float = 1.0) -> None:
    labels = torch.tensor([0, 1])
    loss = model(input_ids=IDS, attention_mask=(IDS != 0).long(), labels=labels).loss
    (scale * loss).backward()


def dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e9])
def test_clipping_is_torchs_own_of_a_dense_twin(model: PreTrainedModel, max_norm: float) -> None:
    twin = copy.deepcopy(model)
    word_embeddings(model).sparse = True
    backward(model, scale=10)
    backward(twin, scale=10)
    norm = clip_gradients(model.parameters(), max_norm)
    assert_close(norm, nn.utils.clip_grad_norm_(twin.parameters(), max_norm))
    assert word_embeddings(model).weight.grad.is_sparse
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(dense(ours.grad), theirs.grad)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.floats(0.01, 100))
def test_rows_that_appear_often_are_summed_before_they_are_clipped(
    ids: list[int], max_norm: float
) -> None:
    table = nn.Embedding(6, 3, sparse=True)
    twin = nn.Embedding.from_pretrained(table.weight.detach().clone(), freeze=False)
    for embedding in (table, twin):
        embedding(torch.tensor(ids)).square().sum().backward()
    clip_gradients(table.parameters(), max_norm)
    nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
    assert_close(table.weight.grad.to_dense(), twin.weight.grad)


def test_parameters_without_a_gradient_are_passed_over(model: PreTrainedModel) -> None:
    model.classifier.weight.grad = torch.full_like(model.classifier.weight, 2.0)
    norm = clip_gradients(model.parameters(), 1.0)
    assert_close(norm, torch.tensor(2.0 * 64**0.5))  # 2 classes × width 32
    assert model.classifier.bias.grad is None


def test_a_step_touches_only_the_rows_of_tokens_that_were_seen(model: PreTrainedModel) -> None:
    before = word_embeddings(model).weight.detach().clone()
    make_embeddings_sparse(model)
    _, sparse = build_optimizers(model, learning_rate=0.01)
    backward(model)
    sparse.step()
    moved = (word_embeddings(model).weight != before).any(dim=1).nonzero().flatten()
    assert moved.tolist() == [2, 3, 9, 40, 77]  # and not 0, the padding


def test_the_first_sparse_step_is_a_dense_adams_on_those_rows(model: PreTrainedModel) -> None:
    # SparseAdam adds its ε = 1e-8 before the bias correction √(1 − β₂), Adam after it.
    twin = copy.deepcopy(model)
    make_embeddings_sparse(model)
    _, sparse = build_optimizers(model, learning_rate=0.01)
    adam = Adam([word_embeddings(twin).weight], lr=0.01, eps=1e-8 / (1 - 0.999) ** 0.5)
    for trained, optimizer in ((model, sparse), (twin, adam)):
        backward(trained)
        optimizer.step()
    assert_close(word_embeddings(model).weight, word_embeddings(twin).weight)


def test_every_parameter_has_one_optimizer(model: PreTrainedModel) -> None:
    make_embeddings_sparse(model)
    groups = [group for o in build_optimizers(model, 0.01) for group in o.param_groups]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("family", SMALL)
def test_word_embeddings_that_are_the_decoder_too_have_a_dense_gradient_and_optimizer(
    family: str, tiny_bert: Path, tmp_path: Path
) -> None:
    model = load_model(save_small(family, "ForMaskedLM", load_tokenizer(tiny_bert), tmp_path))
    words = word_embeddings(model).weight
    make_embeddings_sparse(model)
    (adamw,) = build_optimizers(model, 0.01)
    held = [id(p) for group in adamw.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    model(input_ids=IDS, attention_mask=(IDS != 0).long(), labels=IDS).loss.backward()
    assert not words.grad.is_sparse
    clip_gradients(model.parameters(), 1.0)
    adamw.step()


def test_matrices_decay_and_biases_norms_and_word_embeddings_do_not(
    model: PreTrainedModel,
) -> None:
    before = copy.deepcopy(model.state_dict())
    make_embeddings_sparse(model)
    optimizers = build_optimizers(model, learning_rate=0.1)
    for name, parameter in model.named_parameters():
        if "word_embeddings" not in name:
            parameter.grad = torch.zeros_like(parameter)
    optimizers[0].step()
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and "word_embeddings" not in name
        factor = 1 - 0.1 * WEIGHT_DECAY if decays else 1
        assert_close(parameter.detach(), factor * before[name])


def test_frozen_parameters_have_no_optimizer(model: PreTrainedModel) -> None:
    model.bert.encoder.layer[0].requires_grad_(False)
    make_embeddings_sparse(model)
    adamw, _ = build_optimizers(model, 0.01)
    held = {id(parameter) for group in adamw.param_groups for parameter in group["params"]}
    assert not held & {id(p) for p in model.bert.encoder.layer[0].parameters()}


@pytest.mark.parametrize(("width", "rate"), [(384, 2e-4), (768, 1e-4), (1024, 7.5e-5)])
def test_the_automatic_learning_rate_falls_with_the_width(width: int, rate: float) -> None:
    assert peak_learning_rate(TrainingSettings(), width) == pytest.approx(rate)
