"""Models that compute what their head reads: of the last layer, the first token alone."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from distill_core.batches import Batch, model_inputs
from distill_core.heads import Head
from distill_core.session import MODEL_INPUTS

ROWS, TOKENS = 2, 16
"""Of a batch that are looked at: each map costs a forward pass, of 512 tokens a second."""
ALIKE = 1e-4
"""Largest difference, as a share of the largest number, between two ways of computing the same in fp32."""


class FirstTokenMaps(NamedTuple):
    """Names of the linear maps of which one token a text is read, whatever the others are."""

    alone: list[str]
    """Behind the last attention, whose outputs may have that token alone."""
    repeated: list[str]
    """Queries of the last attention, whose outputs are asked for at every token."""


def first_token_maps(model: PreTrainedModel, head: Head, batch: Batch) -> FirstTokenMaps:
    """Return the maps that need not meet all tokens.

    A classifier of texts reads the first token of the last layer (Devlin et al. 2019, arXiv:1810.04805,
    section 3: the final hidden state of [CLS]). Of the 12 h² weights of that layer, h its width, the nine
    behind the attention and the one of its queries then need to meet one token of a text, and its gradients
    too. They are known by gradients that are 0 at all other tokens, and each is tried: what is read has to
    stay the same when the map's input is cut to the first token.

    Args:
        model: left as it is.
        head: of the model.
        batch: some rows; the beginning of a few is enough.

    Returns:
        None of them, where the head reads other tokens or the family goes another way.
    """
    was_training = model.training
    model.eval()
    names = {module: name for name, module in model.named_modules()}
    batch = {
        name: batch[name][:ROWS, ..., :TOKENS].to(model.device)
        for name in MODEL_INPUTS
        if name in batch
    }
    with torch.no_grad():
        said = _what_is_read(model, head, batch)
    hooks: list[RemovableHandle] = []
    found = FirstTokenMaps([], [])
    for module, repeated in _heard_at_first_token(model, head, batch):
        tried = _cut(model, names[module], repeated)
        if _says(model, head, batch, said):
            hooks += tried
            (found.repeated if repeated else found.alone).append(names[module])
        else:
            _remove(tried)
    _remove(hooks)
    model.train(was_training)
    return found


def compute_first_token_alone(model: PreTrainedModel, maps: FirstTokenMaps) -> None:
    """Let linear maps compute one token a text, in place.

    What then stands at the other tokens behind them is of no use.

    Args:
        model: whose copy was looked at.
        maps: as `first_token_maps` names them.
    """
    for names, repeated in ((maps.alone, False), (maps.repeated, True)):
        for name in names:
            _cut(model, name, repeated)


def _cut(model: PreTrainedModel, name: str, repeated: bool) -> list[RemovableHandle]:
    """Let a map read the first token alone, and say the same of every token if others ask for that."""
    module = model.get_submodule(name)
    tokens = 0

    def cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal tokens
        tokens = inputs[0].shape[1]
        return (inputs[0][:, :1], *inputs[1:])

    def repeat(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.expand(-1, tokens, -1)

    hooks = [module.register_forward_pre_hook(cut)]
    if repeated:
        hooks.append(module.register_forward_hook(repeat))
        hooks += _attend_once(model.get_submodule(name.rpartition(".")[0]))
    return hooks


def _attend_once(attention: nn.Module) -> list[RemovableHandle]:
    """Let a module answer queries that are repeated once.

    Fused kernels would take each for another, and be slow in memory that repeats: of 32 texts of 13 tokens,
    1.6 ms for 0.15 forward, of 128 tokens 115 for 2.4 (fp32, two cores of Zen 3).
    """
    mode = _AttendOnce()

    def enter(*_: Any) -> None:
        mode.__enter__()

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)

    return [
        attention.register_forward_pre_hook(enter),
        attention.register_forward_hook(leave, always_call=True),  # where memory runs out, too
    ]


class _AttendOnce(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = _answer_once if func is scaled_dot_product_attention else func
        return answer(*args, **(kwargs or {}))


def _answer_once(
    query: Float[Tensor, "*heads tokens width"],
    key: Float[Tensor, "*heads keys width"],
    value: Float[Tensor, "*heads keys width"],
    attn_mask: Tensor | None = None,
    *more: Any,
    **named: Any,
) -> Float[Tensor, "*heads tokens width"]:
    tokens = query.shape[-2]
    if query.stride(-2) == 0:  # as `expand` leaves it
        query = query[..., :1, :]
        attn_mask = attn_mask if attn_mask is None else attn_mask[..., :1, :]
    said = scaled_dot_product_attention(query, key, value, attn_mask, *more, **named)
    return said.expand(*said.shape[:-2], tokens, -1)


def _remove(hooks: Iterable[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


def _heard_at_first_token(
    model: PreTrainedModel, head: Head, batch: Batch
) -> list[tuple[nn.Module, bool]]:
    """Return the maps whose output for the first token of several alone matters, the last one first.

    Returns:
        Them, and whether they read the same as a map that matters for all tokens, as queries do.
    """
    calls = _calls(model, head, batch)
    sequences = batch["input_ids"].flatten(0, -2)
    heard: dict[nn.Module, bool] = {}
    for call in calls:
        alone = call.gradient is not None and _is_of_first_token(call.gradient, sequences)
        heard[call.module] = heard.get(call.module, True) and alone
    beside = [call.read for call in calls if not heard[call.module]]
    read = {call.module: call.read for call in calls}
    return [
        (module, any(read[module] is other for other in beside))
        for module in reversed(heard)
        if heard[module]
    ]


class _Call(NamedTuple):
    module: nn.Module
    read: Tensor
    gradient: Tensor | None
    """Of what is read of the model, with respect to what the map says; None where it is not heard."""


def _calls(model: PreTrainedModel, head: Head, batch: Batch) -> list[_Call]:
    """Return the calls of linear maps, in their order."""
    modules: list[nn.Module] = []
    read: list[Tensor] = []
    outputs: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        modules.append(module)
        read.append(inputs[0])
        outputs.append(output.requires_grad_())

    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(note) for module in maps]
    with torch.enable_grad():
        said = [value for value in _what_is_read(model, head, batch) if value.requires_grad]
    _remove(hooks)
    generator = torch.Generator().manual_seed(0)
    # A sum would not do: that of a normalised vector is always the same.
    drawn = [torch.randn(value.shape, generator=generator).to(value.device) for value in said]
    gradients = torch.autograd.grad(said, outputs, drawn, allow_unused=True)
    return [_Call(*call) for call in zip(modules, read, gradients, strict=True)]


def _is_of_first_token(
    gradient: Float[Tensor, "..."], sequences: Int[Tensor, "sequences tokens"]
) -> bool:
    several = gradient.shape[:-1] == sequences.shape and sequences.shape[1] > 1
    return several and not bool(gradient[:, 1:].any())


def _what_is_read(model: PreTrainedModel, head: Head, batch: Batch) -> list[Float[Tensor, "..."]]:
    """Return what the model says, the last layer's first token, and all tokens in front of it."""
    inputs: Any = model_inputs(model, batch)
    answer = head.run(model, inputs, None, output_hidden_states=True)
    *states, last = answer.hidden_states
    said = [value for value in answer.values() if isinstance(value, Tensor)]
    return [*said, last[:, :1], *states]


def _says(
    model: PreTrainedModel, head: Head, batch: Batch, said: Sequence[Float[Tensor, "..."]]
) -> bool:
    try:
        with torch.no_grad():
            again = _what_is_read(model, head, batch)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit
        return False
    return all(_alike(*pair) for pair in zip(again, said, strict=True))


def _alike(one: Float[Tensor, "..."], other: Float[Tensor, "..."]) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= ALIKE * other.abs().max())
