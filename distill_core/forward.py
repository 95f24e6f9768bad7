"""A forward pass, and what the losses read of it."""

import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill_core.batches import Batch, model_inputs
from distill_core.errors import TeacherError
from distill_core.families import FAMILIES, Family
from distill_core.heads import Head
from distill_core.losses import Output


def run_model(
    model: PreTrainedModel, head: Head, batch: Batch, layers: Sequence[int], reads: Set[str]
) -> Output:
    """Return what a model says of a batch, in fp32.

    Args:
        model: student or teacher.
        head: finds the logits.
        batch: as `collate` makes it.
        layers: the layers that are aligned, from 1.
        reads: the fields of `Output` that the losses read; logits and hidden states are always there.

    Raises:
        TeacherError: relations are read, and the family has one map for queries, keys and values.
    """
    asked = {"output_attentions": True} if "attentions" in reads else {}
    with ExitStack() as stack:
        calls = stack.enter_context(_recorded(model, layers[-1])) if "relations" in reads else []
        if asked:
            stack.enter_context(_quietly())
        inputs, labels = model_inputs(model, batch), batch.get("labels")
        answer = head.run(model, inputs, labels, output_hidden_states=True, **asked)
    # BigBird pads long texts to whole blocks, and its hidden states stay padded.
    mask = batch["attention_mask"]
    tokens = mask.shape[-1]
    fields: dict[str, Tensor] = {}
    if "embeddings" in reads:
        fields["embeddings"] = _by_row(answer.hidden_states[0][:, :tokens], len(mask)).float()
    if "attentions" in reads:
        chosen = [answer.attentions[layer - 1][..., :tokens, :tokens] for layer in layers]
        fields["attentions"] = torch.stack(chosen, dim=1).float()
    if "relations" in reads:
        fields["relations"] = torch.stack([call.output[:, :tokens] for call in calls], 2).float()
    hidden = torch.stack([answer.hidden_states[layer][:, :tokens] for layer in layers], dim=2)
    logits = head.read_output(answer, mask)
    return Output(logits.float(), _by_row(hidden, len(mask)).float(), **fields)


def _by_row(
    states: Float[Tensor, "sequences tokens ..."], rows: int
) -> Float[Tensor, "rows all_tokens ..."]:
    """Put the sequences of each row one behind the other; most rows are one."""
    joined: Tensor = states.unflatten(0, (rows, -1)).flatten(1, 2)
    return joined


def attention_maps(model: PreTrainedModel) -> list[tuple[nn.Linear, ...]]:
    """Return the linear maps to queries, keys and values of each layer; of one, where layers share them.

    Raises:
        TeacherError: the family does not keep the three apart.
    """
    name, layers = model.config.model_type, model.config.num_hidden_layers
    endings = FAMILIES.get(name, Family()).attention_maps or ()
    found = [
        [
            module
            for path, module in model.named_modules()
            if path.endswith(f".{ending}") and isinstance(module, nn.Linear)
        ]
        for ending in endings
    ]
    if {len(modules) for modules in found} not in ({1}, {layers}):
        raise TeacherError(
            f"losses.relation: {name} has no map of its own to each of queries, keys and values "
            "(looked for …attention.self.query and its like); accepted: 0"
        )
    return list(zip(*found, strict=True))


class _Call:
    """Keeps what a module returns at one of its calls."""

    output: Tensor

    def __init__(self, number: int) -> None:
        self._number = number
        self._seen = 0

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._seen == self._number:
            self.output = output
        self._seen += 1


@contextmanager
def _recorded(model: PreTrainedModel, layer: int) -> Iterator[list[_Call]]:
    """Yield what will hold the queries, keys and values of a layer, counted from 1."""
    maps = attention_maps(model)
    # A map that all layers share is called once by each. DeBERTa's own are called again for positions.
    shared = len(maps) < model.config.num_hidden_layers
    calls = [_Call(layer - 1 if shared else 0) for _ in range(3)]
    modules = maps[0 if shared else layer - 1]
    hooks = [m.register_forward_hook(call) for m, call in zip(modules, calls, strict=True)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from saying, at every layer of ALBERT, that attentions are computed eagerly.

    Fused attention has no probabilities to return, and transformers then takes the other way itself.
    """
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
