"""Models that compute the first token alone where no other is read: same answers and gradients, less work."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from transformers import PreTrainedModel

from distill_core.batches import Batch, collate
from distill_core.config import TrainingSettings
from distill_core.first_token import FirstTokenMaps, compute_first_token_alone, first_token_maps
from distill_core.forward import run_model
from distill_core.heads import HEADS, Head
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.losses import Output
from distill_core.mode import Mode, with_attention
from distill_core.student import build_student
from distill_core.teacher import load_model
from distill_core.teaching import Teaching
from tests.core.family_models import SMALL, save_small

SHARED = {"albert"}
"""One set of weights serves all layers."""

OTHER_QUERIES = {"deberta", "deberta-v2", "modernbert"}
"""One map makes queries, keys and values, or reads relative positions too."""

NONE = FirstTokenMaps([], [])


def batch() -> Batch:
    ids = torch.randint(5, 40, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1, 0])}


def said_and_gradients(
    model: PreTrainedModel, head: Head
) -> tuple[Output, dict[str, torch.Tensor]]:
    model.zero_grad()
    layer = (model.config.num_hidden_layers - 1,)
    said = run_model(model, head, batch(), layer, {"logits", "hidden"})
    (said.logits.square().sum() + said.hidden.square().sum()).backward()
    named = model.named_parameters()
    return said, {name: p.grad.clone() for name, p in named if p.grad is not None}


def work(model: PreTrainedModel, head: Head) -> int:
    """Return how many vectors meet a linear map in a forward pass, each as often as the map has weights."""
    seen = []

    def note(module: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].numel() * module.out_features)

    hooks = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        run_model(model, head, batch(), (1,), {"logits"})
    for hook in hooks:
        hook.remove()
    return sum(seen)


@pytest.mark.parametrize("family", sorted(set(SMALL) - SHARED))
def test_a_text_classifier_of_every_family_answers_and_learns_the_same_with_less_work(
    family: str, tokenizer: Any, head: Head, tmp_path: Path
) -> None:
    folder = save_small(family, "ForSequenceClassification", tokenizer, tmp_path)
    whole, cut = load_model(folder).eval(), load_model(folder).eval()
    maps = first_token_maps(cut, head, batch())
    assert len(maps.alone) >= 2
    assert bool(maps.repeated) == (family not in OTHER_QUERIES)
    assert not hooked(cut)
    compute_first_token_alone(cut, maps)
    assert work(cut, head) < 0.95 * work(whole, head)
    (said, gradients), (expected, theirs) = (said_and_gradients(m, head) for m in (cut, whole))
    assert_close(said.logits, expected.logits, atol=1e-5, rtol=1e-4)
    assert_close(said.hidden, expected.hidden, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        scale = max(theirs[name].abs().max().item(), 1e-3)
        assert_close(gradient / scale, theirs[name] / scale, atol=1e-4, rtol=1e-3, msg=name)


def test_choices_are_read_by_their_first_tokens_as_well(tokenizer: Any, tmp_path: Path) -> None:
    head = HEADS["multiple-choice"](())
    folder = save_small("bert", head.architecture_suffix, tokenizer, tmp_path)
    whole, cut = load_model(folder).eval(), load_model(folder).eval()
    of_two = {"labels": torch.tensor([0, 1])}
    choices = {name: batch()[name].reshape(2, 2, -1) for name in ("input_ids", "attention_mask")}
    maps = first_token_maps(cut, head, choices)
    assert (len(maps.alone), len(maps.repeated)) == (3, 1)
    compute_first_token_alone(cut, maps)
    read = {"logits", "hidden"}
    ours, theirs = (run_model(m, head, {**choices, **of_two}, (3,), read) for m in (cut, whole))
    assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=1e-4)
    assert_close(ours.hidden, theirs.hidden, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(SHARED))
def test_maps_that_serve_all_layers_compute_every_token(
    family: str, tokenizer: Any, head: Head, tmp_path: Path
) -> None:
    model = load_model(save_small(family, "ForSequenceClassification", tokenizer, tmp_path))
    assert first_token_maps(model, head, batch()) == NONE


@pytest.mark.parametrize(
    ("weights", "cut"),
    [({}, True), ({"hidden_layers": "last"}, False), ({"relation": 1.0}, False)],
)
def test_a_training_cuts_copies_of_both_models_unless_losses_look_into_the_last_layer(
    weights: dict[str, Any], cut: bool, fitted_teacher: PreTrainedModel, rows: Any, head: Head
) -> None:
    student = build_student(fitted_teacher, "bert.encoder.layer.", (0, 2))
    job = Job(rows["train"], rows["validation"], head, LossWeights(**weights), TrainingSettings())
    teaching = Teaching(student, fitted_teacher, job, torch.device("cpu"))
    copies = teaching.models(Mode("fp32", "sdpa"))
    layer = "bert.encoder.layer.1."
    names = {
        layer + name
        for name in (
            "attention.self",
            "attention.self.query",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    }
    assert hooked(copies.student) == (names if cut else set())
    assert not hooked(student) | hooked(fitted_teacher)
    batch = collate(rows["train"].select(range(4)).to_list(), 0)
    said = copies.ask_teacher(batch)
    whole = run_model(fitted_teacher.eval(), head, batch, (2 if cut else 4,), {"logits", "hidden"})
    assert_close(said.logits, whole.logits, atol=1e-5, rtol=1e-4)
    assert_close(said.hidden, whole.hidden, atol=1e-5, rtol=1e-4)


def test_texts_of_one_token_tell_nothing(tokenizer: Any, head: Head, tmp_path: Path) -> None:
    model = load_model(save_small("bert", "ForSequenceClassification", tokenizer, tmp_path))
    short = {name: tensor[:, :1] for name, tensor in batch().items() if tensor.ndim == 2}
    assert first_token_maps(model, head, short) == NONE


@pytest.mark.parametrize(("found_with", "used_with"), [("sdpa", "eager"), ("eager", "sdpa")])
def test_what_was_found_with_one_attention_holds_with_another(
    found_with: str, used_with: str, tokenizer: Any, head: Head, tmp_path: Path
) -> None:
    whole = load_model(save_small("bert", "ForSequenceClassification", tokenizer, tmp_path)).eval()
    maps = first_token_maps(with_attention(whole, found_with), head, batch())
    assert len(maps.repeated) == 1
    cut = with_attention(whole, used_with)
    compute_first_token_alone(cut, maps)
    logits = [run_model(model, head, batch(), (1,), {"logits"}).logits for model in (cut, whole)]
    assert_close(*logits, atol=1e-5, rtol=1e-4)


class QueriesSeen(TorchFunctionMode):
    """Notes how many queries each attention is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            self.counts.append(args[0].shape[-2])
        return func(*args, **(kwargs or {}))


def test_the_last_attention_is_asked_once_a_text_even_after_memory_ran_out(
    tokenizer: Any, head: Head, tmp_path: Path
) -> None:
    model = load_model(save_small("bert", "ForSequenceClassification", tokenizer, tmp_path)).eval()
    compute_first_token_alone(model, first_token_maps(model, head, batch()))

    def run_out(*_: Any) -> None:
        raise MemoryError

    key = model.get_submodule("bert.encoder.layer.3.attention.self.key")
    full = key.register_forward_pre_hook(run_out)
    with pytest.raises(MemoryError):
        run_model(model, head, batch(), (1,), {"logits"})
    full.remove()
    with QueriesSeen() as queries:
        run_model(model, head, batch(), (1,), {"logits"})
        every = torch.randn(1, 1, 5, 4)
        scaled_dot_product_attention(every[..., :1, :].expand(-1, -1, 5, -1), every, every)
    assert queries.counts == [12, 12, 12, 1, 5]


def hooked(model: PreTrainedModel) -> set[str]:
    return {name for name, module in model.named_modules() if module._forward_pre_hooks}


@pytest.mark.parametrize(
    ("name", "labels"), [("token-classification", ("O", "B")), ("question-answering", ())]
)
def test_a_head_that_reads_every_token_gets_every_token(
    name: str, labels: tuple[str, ...], tokenizer: Any, tmp_path: Path
) -> None:
    head = HEADS[name](labels)
    model = load_model(save_small("bert", head.architecture_suffix, tokenizer, tmp_path)).train()
    assert first_token_maps(model, head, batch()) == NONE
    assert model.training
    assert not hooked(model)
