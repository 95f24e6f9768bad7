"""Models that compute what their head reads: behind the last attention, the first token alone."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill_core.batches import Batch, model_inputs
from distill_core.heads import Head
from distill_core.session import MODEL_INPUTS

ROWS, TOKENS = 2, 16
"""Of a batch that are looked at: each map costs a forward pass, of 512 tokens a second."""
ALIKE = 1e-4
"""Largest difference, as a share of the largest number, between two ways of computing the same in fp32."""


def first_token_maps(model: PreTrainedModel, head: Head, batch: Batch) -> list[str]:
    """Return the names of the linear maps of which one token a text is read, whatever the others are.

    A classifier of texts reads the first token of the last layer (Devlin et al. 2019, arXiv:1810.04805,
    section 3: the final hidden state of [CLS]). Of the 12 h² weights of that layer, h its width, the nine
    behind the attention then need to meet one token of a text, and its gradients too. They are found by
    trial, from the last map backwards: the input of one is cut to the first token, and as long as all that
    is read stays the same, the one before it is tried.

    Args:
        model: left as it is.
        head: of the model.
        batch: some rows, each one sequence of tokens; the beginning of a few is enough.

    Returns:
        None of them, where the head reads other tokens or the family goes another way.
    """
    was_training = model.training
    model.eval()
    names = {module: name for name, module in model.named_modules()}
    batch = {
        name: batch[name][:ROWS, :TOKENS].to(model.device) for name in MODEL_INPUTS if name in batch
    }
    hooks, found = [], []
    said = _what_is_read(model, head, batch)
    for module in _maps_last_first(model, head, batch):
        hooks.append(module.register_forward_pre_hook(_cut))
        if not _says(model, head, batch, said):
            break
        found.append(names[module])
    for hook in hooks:
        hook.remove()
    model.train(was_training)
    return found


def compute_first_token_alone(model: PreTrainedModel, maps: Iterable[str]) -> None:
    """Let linear maps compute one token a text, in place.

    What then stands at the other tokens behind them is of no use.

    Args:
        model: whose copy was looked at.
        maps: as `first_token_maps` names them.
    """
    for name in maps:
        model.get_submodule(name).register_forward_pre_hook(_cut)


def _cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0][:, :1], *inputs[1:])


def _maps_last_first(model: PreTrainedModel, head: Head, batch: Batch) -> list[nn.Module]:
    """Return the linear maps that read several tokens, the one that was called last first."""
    calls: list[nn.Module] = []
    tokens = batch["input_ids"].shape

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and inputs[0].shape[:-1] == tokens and tokens[1] > 1:
            calls.append(module)

    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_pre_hook(note) for module in maps]
    _what_is_read(model, head, batch)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(reversed(calls)))


def _what_is_read(model: PreTrainedModel, head: Head, batch: Batch) -> list[Float[Tensor, "..."]]:
    """Return what the model says, the last layer's first token, and all tokens in front of it."""
    with torch.no_grad():
        inputs: Any = model_inputs(model, batch)
        answer = head.run(model, inputs, None, output_hidden_states=True)
    *states, last = answer.hidden_states
    said = [value for value in answer.values() if isinstance(value, Tensor)]
    return [*said, last[:, :1], *states]


def _says(
    model: PreTrainedModel, head: Head, batch: Batch, said: Sequence[Float[Tensor, "..."]]
) -> bool:
    try:
        again = _what_is_read(model, head, batch)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit
        return False
    return all(_alike(*pair) for pair in zip(again, said, strict=True))


def _alike(one: Float[Tensor, "..."], other: Float[Tensor, "..."]) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= ALIKE * other.abs().max())
