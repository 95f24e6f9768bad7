"""Importance against numerical derivatives: the loss of a row with a part a little weaker and stronger."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.nn import LayerNorm
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.batches import collate, model_inputs
from distill_core.importance import measure_importance
from distill_core.teacher import ModelDescription, describe, load_model
from tests.core.family_models import save_small

STEP = 1e-4
LAYER = "bert.encoder.layer.1."


@pytest.fixture(scope="module")
def seen(tiny_bert: Path) -> ModelDescription:
    return describe(tiny_bert)


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> PreTrainedModel:
    return load_model(tiny_bert).double()


@pytest.fixture(scope="module")
def few(rows: DatasetDict) -> Dataset:
    return rows["train"].select(range(5))


@contextmanager
def scaled(model: PreTrainedModel, name: str, factors: Tensor, reads: bool) -> Iterator[None]:
    """Scale what a module reads, or writes, in the block."""
    module = model.get_submodule(name)
    if reads:
        hook = module.register_forward_pre_hook(lambda _, given: (given[0] * factors, *given[1:]))
    else:
        hook = module.register_forward_hook(lambda _, __, made: made * factors)
    yield
    hook.remove()


@torch.inference_mode()
def sensitivity(
    model: PreTrainedModel, rows: Dataset, name: str, those: list[int], reads: bool = True
) -> float:
    """Return the mean over rows of |∂L / ∂ξ|, ξ a factor of some activations at a module, by differences."""
    weight = model.get_submodule(name).weight
    total = 0.0
    for row in rows:
        batch = collate([row], pad_token_id=0)
        losses = []
        for sign in (1, -1):
            factors = torch.ones(weight.shape[-1 if reads else 0], dtype=torch.float64)
            factors[those] += sign * STEP
            with scaled(model, name, factors, reads):
                logits = model(**model_inputs(model, batch)).logits
            losses.append(float(cross_entropy(logits, batch["labels"])))
        total += abs(losses[0] - losses[1]) / (2 * STEP)
    return total / len(rows)


def test_a_head_matters_as_much_as_the_loss_is_sensitive_to_a_mask_of_it(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset
) -> None:
    found = measure_importance(model, seen, few)["heads", 1]
    for head in range(4):
        dimensions = list(range(8 * head, 8 * head + 8))
        by_mask = sensitivity(model, few, f"{LAYER}attention.output.dense", dimensions)
        assert float(found[head]) == pytest.approx(by_mask, rel=1e-4)


@pytest.mark.parametrize(
    ("axis", "name", "reads"),
    [
        ("values", "attention.output.dense", True),
        ("neurons", "output.dense", True),
        ("queries", "attention.self.query", False),
        (
            "queries",
            "attention.self.key",
            False,
        ),  # a score is their product, so it owes both the same
    ],
)
def test_each_number_of_a_layer_matters_as_the_loss_is_sensitive_to_it(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset, axis: Any, name: str, reads: bool
) -> None:
    found = measure_importance(model, seen, few)[axis, 1]
    for number in (0, 13, 31):
        by_mask = sensitivity(model, few, LAYER + name, [number], reads)
        assert float(found[number]) == pytest.approx(by_mask, rel=1e-4)


def test_a_hidden_dimension_matters_in_every_norm(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset
) -> None:
    found = measure_importance(model, seen, few)
    norms = [name for name, module in model.named_modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 1 + 2 * seen.layers
    by_masks = sum(sensitivity(model, few, name, [7], reads=False) for name in norms)
    assert float(found["hidden", None][7]) == pytest.approx(by_masks, rel=1e-4)


def test_pooled_dimensions_matter_where_the_label_is_read(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset
) -> None:
    found = measure_importance(model, seen, few)["pooled", None]
    assert float(found[3]) == pytest.approx(sensitivity(model, few, "classifier", [3]), rel=1e-4)


def test_padding_and_the_company_of_a_row_change_nothing(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset
) -> None:
    together = measure_importance(model, seen, few)
    alone = [measure_importance(model, seen, few.select([number])) for number in range(len(few))]
    for part, total in together.items():
        torch.testing.assert_close(total, sum(one[part] for one in alone) / len(alone))


def test_measuring_leaves_no_trace_in_the_model(
    model: PreTrainedModel, seen: ModelDescription, few: Dataset
) -> None:
    measure_importance(model, seen, few)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_where_labels_teach_nothing_a_part_matters_by_how_far_vectors_go_without_it(
    tokenizer: PreTrainedTokenizerFast, few: Dataset, tmp_path: Path
) -> None:
    """Of x ~ N(0, σ²) the mean of |x| is √(2 / π) · σ."""
    seen = describe(save_small("bert", "Model", tokenizer, tmp_path))
    model = load_model(tmp_path).double()
    same = few.select([0] * 2_000)
    found = measure_importance(model, seen, same)["heads", 1]
    batch = collate([few[0]], pad_token_id=0)

    @torch.inference_mode()
    def vector(factors: Tensor) -> Tensor:
        with scaled(model, "encoder.layer.1.attention.output.dense", factors, reads=True):
            answer = seen.head.run(model, model_inputs(model, batch), None)
        return normalize(seen.head.read_output(answer, batch["attention_mask"]), dim=-1)

    for head in range(4):
        step = torch.zeros(32, dtype=torch.float64)
        step[8 * head : 8 * head + 8] = STEP
        moved = (vector(1 + step) - vector(1 - step)).norm() / (2 * STEP)
        assert float(found[head]) == pytest.approx(math.sqrt(2 / math.pi) * float(moved), rel=0.08)
