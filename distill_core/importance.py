"""What of a teacher matters most on training rows: attention heads, neurons, dimensions."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from datasets import Dataset
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from distill_core.axes import Axes, Axis, label_axes, layer_of
from distill_core.batches import Batch, evaluation_batches, model_inputs
from distill_core.heads import Head
from distill_core.teacher import ModelDescription

_BATCH_SIZE = 32

Part = tuple[Axis, int | None]
"""An axis, and the layer that it is in; None where it is in none, or runs through all of them."""

Importance = Mapping[Part, Float[Tensor, " _"]]
"""What the loss owes to each number of an axis."""

_Activations = Mapping[Part, Sequence[Float[Tensor, "batch ... _"]]]


def measure_importance(
    model: PreTrainedModel, teacher: ModelDescription, rows: Dataset
) -> Importance:
    """Return how much each head, neuron and dimension matters to the task's loss on labelled rows.

    With a the activation of a part and L the loss of a row, summed over the tokens t of the row:

        I = (1 / N) · Σ_rows |Σ_t a_t · ∂L / ∂a_t|

    which is, to first order, by how much the loss changes without the part (Molchanov et al. 2017,
    arXiv:1611.06440, section 2.2). For heads it is the sensitivity to a mask of them (Michel et al.
    2019, arXiv:1905.10650, equation 2); DynaBERT ranks heads and neurons so (Hou et al. 2020,
    arXiv:2004.04037, section 2.1). A head is all dimensions of its values together, inside the |·|. A
    hidden dimension is in what every norm writes, and has the sum over them.

    Where labels teach nothing, as vectors of texts, L is u · r, the vector divided by its norm in a direction
    of the row's own: of r ~ N(0, 1) the mean of (Σ_t a_t · ∂L / ∂a_t)² is ‖Δu‖², how far the vector goes
    without the part, to first order.

    Args:
        model: the teacher, loaded and in eval mode.
        teacher: its description.
        rows: tokenized, with labels.
    """
    owed: dict[Part, Tensor] = {}
    directions = torch.Generator().manual_seed(0)
    axes = label_axes(teacher.model_type, floating_shapes(model))
    for _, batch in evaluation_batches(rows, _BATCH_SIZE, model.config.pad_token_id):
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        for part, values in _owed_by_row(model, teacher, axes, batch, directions):
            owed[part] = owed.get(part, torch.zeros(())) + values.abs().sum(dim=0).cpu()
    return {part: total / len(rows) for part, total in owed.items()}


def floating_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors of floating-point numbers."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }


def _owed_by_row(
    model: PreTrainedModel,
    teacher: ModelDescription,
    axes: Mapping[str, Axes],
    batch: Batch,
    directions: torch.Generator,
) -> Iterator[tuple[Part, Float[Tensor, "batch size"]]]:
    """Yield Σ_t a_t · ∂L / ∂a_t of each part, and of all hidden dimensions once a norm."""
    with _activations(model, axes, teacher.layer_prefix) as found:
        answer = teacher.head.run(model, model_inputs(model, batch), batch["labels"])
    logits = teacher.head.read_output(answer, batch["attention_mask"]).float()
    loss = _loss_of_rows(teacher.head, logits, batch["labels"], directions)
    rows = len(batch["labels"])
    flat = [(part, tensor) for part, tensors in found.items() for tensor in tensors]
    gradients = torch.autograd.grad(loss, [a for _, a in flat], materialize_grads=True)
    for ((axis, layer), a), gradient in zip(flat, gradients, strict=True):
        owed = (a * gradient).detach().reshape(rows, -1, a.shape[-1]).sum(dim=1)
        yield (axis, layer), owed
        if axis == "values":
            heads = model.config.num_attention_heads
            yield ("heads", layer), owed.reshape(rows, heads, -1).sum(dim=2)


def _loss_of_rows(
    head: Head,
    logits: Float[Tensor, "batch ..."],
    labels: Shaped[Tensor, "batch ..."],
    directions: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the sum of what each row's parts are to matter to."""
    if head.taught_by_labels:
        loss: Tensor = head.task_loss(logits, labels)
        return len(labels) * loss  # which is a mean over rows
    drawn = torch.randn(logits.shape, generator=directions).to(logits.device)
    return (normalize(logits, dim=-1) * drawn).sum()


@contextmanager
def _activations(
    model: PreTrainedModel, axes: Mapping[str, Axes], layer_prefix: str | None
) -> Iterator[_Activations]:
    """Note what stands on each axis while the model runs in the block."""
    found: defaultdict[Part, list[Tensor]] = defaultdict(list)
    hooks = []
    for name, labels in axes.items():
        module_name, _, kind = name.rpartition(".")
        module, layer = model.get_submodule(module_name), layer_of(name, layer_prefix)
        part, reads = _seen_at(labels, layer) if kind == "weight" else (None, False)
        if part is not None:
            note = found[part].append
            hooks.append(
                module.register_forward_pre_hook(lambda _, given, note=note: note(given[0]))
                if reads
                else module.register_forward_hook(lambda _, __, made, note=note: note(made))
            )
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _seen_at(labels: Axes, layer: int | None) -> tuple[Part | None, bool]:
    """Return the part whose activations can be seen at a module, and whether it reads or writes them."""
    read, written = labels[-1], labels[0]
    if len(labels) == 2 and read in ("values", "neurons", "pooled"):
        return (read, layer), True
    if written == "queries":
        return (written, layer), False
    return (("hidden", None) if labels == ("hidden",) else None), False
