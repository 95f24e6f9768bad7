"""Narrower students of every family, against their teacher with the other parts masked."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from distill_core.axes import AXES
from distill_core.config import StudentShape, TrainingSettings
from distill_core.export import PARITY_TOLERANCE, export_onnx
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.importance import Importance, measure_importance
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.pruning import Kept, keep_most_important, narrow, prune
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET
from distill_core.teacher import ModelDescription, describe, load_model
from distill_core.training import distill
from distill_core.width import count_parameters, pick_width
from tests.core.family_models import save_small

TEXTS, WORDS = "ForSequenceClassification", "ForTokenClassification"


@dataclass(frozen=True)
class Parts:
    """Where a family does what, to mask it there."""

    query: str = "attention.self.query"
    context: str = "attention.output.dense"
    neurons: str = "output.dense"
    pooled: str = "classifier.out_proj"


PARTS = {
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "electra"), Parts()),
    "bert": Parts(pooled="classifier"),
    "distilbert": Parts("attention.q_lin", "attention.out_lin", "ffn.lin2", "classifier"),
    "mpnet": Parts("attention.attn.q", "attention.attn.o"),
}
SHAPES = {
    "fewer heads": StudentShape(hidden_size=24, heads=3, intermediate_size=20),
    "smaller heads": StudentShape(hidden_size=20, intermediate_size=33),
    "fewer and smaller heads": StudentShape(hidden_size=12, heads=3),
    "fewer neurons": StudentShape(intermediate_size=7),
}


@dataclass(frozen=True)
class Small:
    """A small model of a family, and what matters in it."""

    model: PreTrainedModel
    seen: ModelDescription
    importance: Importance

    def cut(self, shape: StudentShape) -> tuple[PreTrainedModel, Kept]:
        width = pick_width(self.seen, shape) or self.seen.stack.width
        kept = keep_most_important(self.importance, self.seen, width)
        return prune(self.model, self.seen, kept, width), kept


def tagged(rows: Dataset) -> Dataset:
    """Return rows with a tag for each token."""
    return rows.map(lambda row: {"label": [number % 2 for number in row["input_ids"]]})


def make(family: str, head: str, tokenizer: Any, rows: Dataset, folder: Path) -> Small:
    save_small(family, head, tokenizer, folder)
    model, seen = load_model(folder), describe(folder)
    rows = rows.select(range(16))
    return Small(
        model, seen, measure_importance(model, seen, tagged(rows) if head == WORDS else rows)
    )


@pytest.fixture(scope="module", params=AXES)
def small(
    request: pytest.FixtureRequest,
    tokenizer: Any,
    rows: DatasetDict,
    tmp_path_factory: pytest.TempPathFactory,
) -> Small:
    folder = tmp_path_factory.mktemp(request.param)
    return make(request.param, TEXTS, tokenizer, rows["train"], folder)


@torch.inference_mode()
def hidden_and_logits(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 40, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    answer = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return answer.hidden_states[-1], answer.logits


class NormOfSome(nn.Module):
    """A LayerNorm of some dimensions alone, by its formula; the others are 0."""

    def __init__(self, norm: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: Tensor) -> Tensor:
        some = x[..., self.kept]
        centred = some - some.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + self.norm.eps).sqrt()
        weight, bias = self.norm.weight[self.kept], self.norm.bias[self.kept]
        return torch.zeros_like(x).index_copy(-1, self.kept, centred / scale * weight + bias)


def masked(x: Tensor, kept: Tensor) -> Tensor:
    return x * torch.zeros(x.shape[-1]).index_fill(0, kept, 1)


def with_masks(small: Small, kept: Kept) -> PreTrainedModel:
    """Return the teacher with what is not kept set to 0 where it is used; all of its weights are there."""
    model, parts = copy.deepcopy(small.model), PARTS[small.seen.model_type]
    prefix, wide = small.seen.layer_prefix, small.seen.stack.hidden_size
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.LayerNorm) and module.normalized_shape == (wide,):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, NormOfSome(module, kept["hidden", None]))

    def mask_input(name: str, those: Tensor) -> None:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(lambda _, given: (masked(given[0], those), *given[1:]))

    for layer in range(small.seen.layers):
        mask_input(f"{prefix}{layer}", kept["hidden", None])  # ELECTRA's first has no norm in front
        mask_input(f"{prefix}{layer}.{parts.context}", kept["values", layer])
        mask_input(f"{prefix}{layer}.{parts.neurons}", kept["neurons", layer])
        query = model.get_submodule(f"{prefix}{layer}.{parts.query}")
        those = kept["queries", layer]
        query.register_forward_hook(lambda _, __, made, those=those: masked(made, those))
    if ("pooled", None) in kept:
        mask_input(parts.pooled, kept["pooled", None])
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_narrower_model_answers_as_its_teacher_with_the_other_parts_masked(
    small: Small, shape: StudentShape
) -> None:
    student, kept = small.cut(shape)
    hidden, logits = hidden_and_logits(student)
    expected_hidden, expected_logits = hidden_and_logits(with_masks(small, kept))
    torch.testing.assert_close(
        hidden, expected_hidden[..., kept["hidden", None]], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
    assert not torch.allclose(logits, hidden_and_logits(small.model)[1], atol=1e-3)


@pytest.mark.parametrize("family", AXES)
def test_taggers_are_cut_the_same_way(
    family: str, tokenizer: Any, rows: DatasetDict, tmp_path: Path
) -> None:
    small = make(family, WORDS, tokenizer, rows["train"], tmp_path)
    student, kept = small.cut(SHAPES["fewer and smaller heads"])
    assert ("pooled", None) not in kept
    expected = hidden_and_logits(with_masks(small, kept))[1]
    torch.testing.assert_close(hidden_and_logits(student)[1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", AXES)
def test_teachers_of_vectors_are_cut_the_same_way_beside_a_pooler_that_nothing_reads(
    family: str, tokenizer: Any, rows: DatasetDict, tmp_path: Path
) -> None:
    small = make(family, "Model", tokenizer, rows["train"], tmp_path)
    student, kept = small.cut(SHAPES["fewer neurons"])
    ids = torch.randint(5, 40, (3, 20), generator=torch.Generator().manual_seed(1))
    ours, theirs, masked_ones = (
        model(input_ids=ids).last_hidden_state
        for model in (student, small.model, with_masks(small, kept))
    )
    torch.testing.assert_close(ours, masked_ones, atol=1e-5, rtol=0)
    assert not torch.allclose(ours, theirs, atol=1e-3)


def test_a_model_of_its_teachers_width_is_its_teacher(small: Small) -> None:
    student, _ = small.cut(StudentShape())
    for ours, theirs in zip(
        hidden_and_logits(student), hidden_and_logits(small.model), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_narrower_model_has_the_parameters_that_the_plan_counts(
    small: Small, shape: StudentShape
) -> None:
    student, _ = small.cut(shape)
    width = pick_width(small.seen, shape)
    assert student.num_parameters() == count_parameters(small.seen, small.seen.layers, width)
    assert student.config.hidden_size == width.hidden_size
    assert student.config.num_attention_heads == width.heads


def test_a_teacher_is_left_as_it_was(small: Small) -> None:
    before, config = copy.deepcopy(small.model.state_dict()), small.model.config.to_dict()
    student, _ = small.cut(SHAPES["fewer heads"])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert small.model.config.to_dict() == config
    assert all(torch.equal(value, before[n]) for n, value in small.model.state_dict().items())


def test_narrower_students_of_fewer_layers_train_save_reload_and_export(
    small: Small, rows: DatasetDict, head: SequenceClassification, tmp_path: Path
) -> None:
    width = pick_width(small.seen, SHAPES["fewer heads"])
    origin = narrow(small.model, small.seen, width, rows["train"], seed=0)
    student = build_student(origin, small.seen.layer_prefix, (0, 2))
    settings = TrainingSettings(max_steps=3, batch_size=8, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    trained = distill(student, None, job, listen=lambda record: None)
    assert all(math.isfinite(step.total) for step in trained.steps)

    save_model(trained.model, small.seen.folder, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert torch.equal(hidden_and_logits(loaded)[1], hidden_and_logits(trained.model)[1])
    seen = describe(tmp_path / "student")
    assert (seen.layers, seen.stack.width) == (2, width)
    assert seen.parameters == count_parameters(small.seen, 2, width)
    facts = export_onnx(loaded, head, rows["validation"], OPSET, tmp_path / "model.onnx")
    assert facts["parity_max_difference"] < PARITY_TOLERANCE


def importance_of(seen: ModelDescription, **heads: Any) -> dict[Any, Tensor]:
    """Return importance that favours nothing but, in each layer, some heads."""
    wide = seen.stack.width
    found: dict[Any, Tensor] = {("hidden", None): torch.ones(wide.hidden_size)}
    for layer in range(seen.layers):
        found |= {(axis, layer): torch.ones(wide.hidden_size) for axis in ("queries", "values")}
        found["neurons", layer] = torch.arange(wide.intermediate_size).float()
        found["heads", layer] = torch.tensor(heads["of_layers"][layer]).float()
    return found


def test_each_layer_keeps_its_own_heads_and_all_of_their_dimensions(tiny_bert: Path) -> None:
    seen = describe(tiny_bert)
    scores = [[0, 3, 1, 2], [1, 1, 1, 1], [9, 0, 0, 8], [0, 0, 0, 1]]
    width = pick_width(seen, StudentShape(hidden_size=16, heads=2, intermediate_size=3))
    kept = keep_most_important(importance_of(seen, of_layers=scores), seen, width)
    heads = [kept["values", layer].reshape(2, 8)[:, 0].div(8).tolist() for layer in range(4)]
    assert heads == [[1, 3], [0, 1], [0, 3], [0, 3]]  # of equals the first
    assert torch.equal(kept["queries", 0], torch.tensor([*range(8, 16), *range(24, 32)]))
    assert torch.equal(kept["keys", 0], kept["queries", 0])
    assert kept["neurons", 2].tolist() == [61, 62, 63]
    assert kept["hidden", None].tolist() == list(range(16))


def test_smaller_heads_keep_their_own_most_important_dimensions(tiny_bert: Path) -> None:
    seen = describe(tiny_bert)
    found = importance_of(seen, of_layers=[[2, 1, 0, 0]] * 4)
    found["queries", 0][[1, 6, 8, 10]] = 2
    found["values", 0][[0, 7, 14, 15]] = 2
    width = pick_width(seen, StudentShape(hidden_size=4, heads=2))
    kept = keep_most_important(found, seen, width)
    assert kept["queries", 0].tolist() == kept["keys", 0].tolist() == [1, 6, 8, 10]
    assert kept["values", 0].tolist() == [0, 7, 14, 15]


def test_all_layers_of_mpnet_keep_the_heads_that_matter_most_in_all(
    tokenizer: Any, tmp_path: Path
) -> None:
    # One table of relative positions, a column for each head, serves all of them.
    seen = describe(save_small("mpnet", TEXTS, tokenizer, tmp_path))
    scores = [[0, 3, 0, 2], [0, 3, 0, 2], [9, 0, 0, 8], [0, 1, 5, 0]]  # 9, 7, 5, 12 in all
    width = pick_width(seen, StudentShape(hidden_size=16, heads=2))
    kept = keep_most_important(importance_of(seen, of_layers=scores), seen, width)
    assert kept["heads", None].tolist() == [0, 3]
    for layer in range(4):
        assert kept["values", layer].reshape(2, 8)[:, 0].tolist() == [0, 24]


def test_the_same_rows_and_seed_give_the_same_student(tiny_bert: Path, rows: DatasetDict) -> None:
    seen, model = describe(tiny_bert), load_model(tiny_bert)
    width = pick_width(seen, SHAPES["fewer heads"])
    first, second = (narrow(model, seen, width, rows["train"], seed=3) for _ in range(2))
    pairs: Mapping[str, Tensor] = second.state_dict()
    assert all(torch.equal(tensor, pairs[name]) for name, tensor in first.state_dict().items())
