"""What the losses read of a forward pass, in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close
from transformers import PreTrainedModel

from distill_core.batches import Batch
from distill_core.errors import TeacherError
from distill_core.families import FAMILIES
from distill_core.forward import attention_maps, run_model
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.teacher import load_model
from tests.core.family_models import SMALL, save_small

SUFFIX = "ForSequenceClassification"
ONE_MAP = ("deberta", "modernbert")
PLAIN_INPUT = set(SMALL) - {*ONE_MAP, "megatron-bert", "mobilebert"}
"""Families whose attention reads the hidden states as they are, without a norm or bottleneck before."""
EVERYTHING = {"logits", "hidden", "embeddings", "attentions", "relations"}


@pytest.fixture(scope="module", params=SMALL)
def model(
    request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedModel:
    folder = tmp_path_factory.mktemp(request.param)
    return load_model(save_small(request.param, SUFFIX, tokenizer, folder))


def small(family: str, tokenizer: Any, folder: Path) -> PreTrainedModel:
    return load_model(save_small(family, SUFFIX, tokenizer, folder))


def batch(tokens: int = 12) -> Batch:
    ids = torch.randint(5, 40, (3, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1])}


@torch.no_grad()
def hidden_states(model: PreTrainedModel) -> tuple[Tensor, ...]:
    asked = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    return model(**asked, output_hidden_states=True).hidden_states


def test_hidden_states_and_embeddings_are_the_models_own(
    model: PreTrainedModel, head: SequenceClassification
) -> None:
    said = run_model(model, head, batch(), (1, 3), {"logits", "hidden", "embeddings"})
    expected = hidden_states(model)
    assert torch.equal(said.hidden, torch.stack([expected[1], expected[3]], dim=2))
    assert torch.equal(said.embeddings, expected[0])
    assert (said.attentions, said.relations) == (None, None)


def test_attentions_are_probabilities_over_what_is_no_padding(
    model: PreTrainedModel, head: SequenceClassification, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = batch()
    said = run_model(model, head, asked, (2, 3), {"attentions"})
    heads = 2 if model.config.model_type == "convbert" else 4  # convolutions take the place of half
    assert said.attentions.shape == (3, 2, heads, 12, 12)
    tokens = asked["attention_mask"].bool()
    rows = said.attentions.movedim(3, 1)[tokens]
    assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    assert said.attentions[1, :, :, :7, 7:].abs().max() == 0
    assert capfd.readouterr().err == ""
    plain = run_model(model, head, asked, (2, 3), set())
    assert_close(said.logits, plain.logits, atol=1e-5, rtol=1e-5)


def test_relations_are_between_the_queries_keys_and_values_of_the_last_aligned_layer(
    tokenizer: Any, head: SequenceClassification, tmp_path: Path
) -> None:
    for family in sorted(PLAIN_INPUT):
        model = small(family, tokenizer, tmp_path / family)
        said = run_model(model, head, batch(), (1, 3), {"relations"})
        maps = attention_maps(model)
        of_layer = maps[0 if len(maps) == 1 else 2]
        inputs = hidden_states(model)[2]
        expected = [linear(inputs, one.weight, one.bias) for one in of_layer]
        assert_close(said.relations, torch.stack(expected, dim=2), msg=family)


@pytest.mark.parametrize("family", sorted(set(SMALL) - set(ONE_MAP)))
def test_every_family_that_keeps_its_maps_apart_teaches_relations(
    family: str, tokenizer: Any, head: SequenceClassification, tmp_path: Path
) -> None:
    model = small(family, tokenizer, tmp_path)
    run_model(model, head, batch(), (3,), {"relations"}).relations.sum().backward()
    maps = attention_maps(model)
    assert len(maps) == (1 if family == "albert" else model.config.num_hidden_layers)
    of_layer = maps[0 if family == "albert" else 2]
    assert all(one.weight.grad.abs().max() > 0 for one in of_layer)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_family_with_one_map_has_no_relations(
    tokenizer: Any, head: SequenceClassification, tmp_path: Path
) -> None:
    assert {name for name, family in FAMILIES.items() if not family.attention_maps} == set(ONE_MAP)
    for family in ONE_MAP:
        model = small(family, tokenizer, tmp_path / family)
        with pytest.raises(
            TeacherError, match=rf"losses\.relation: {family} has no map of its own"
        ):
            run_model(model, head, batch(), (3,), {"relations"})


def test_what_big_bird_pads_is_cut_off(
    tokenizer: Any, head: SequenceClassification, tmp_path: Path
) -> None:
    model = small("big_bird", tokenizer, tmp_path)
    said = run_model(model, head, batch(tokens=50), (2, 4), EVERYTHING)  # in blocks of 4, to 52
    assert said.hidden.shape == (3, 50, 2, 32)
    assert said.embeddings.shape == (3, 50, 32)
    assert said.attentions.shape == (3, 2, 4, 50, 50)
    assert said.relations.shape == (3, 50, 3, 32)


def test_a_pass_that_fails_leaves_no_hook_behind(
    tiny_bert: Path, head: SequenceClassification
) -> None:
    model = load_model(tiny_bert)
    beyond = {name: value.repeat(1, 9) for name, value in batch().items() if value.ndim > 1}
    with pytest.raises((IndexError, RuntimeError)):
        run_model(model, head, beyond, (3,), EVERYTHING)  # more tokens than positions
    assert not any(module._forward_hooks for module in model.modules())
