"""The optimizers of a step: AdamW for most of the model, a sparse Adam for the word embeddings."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer, SparseAdam
from transformers import PreTrainedModel

from distill_core.config import TrainingSettings

WEIGHT_DECAY = 0.01
"""As in BERT's own fine-tuning (Devlin et al. 2019, arXiv:1810.04805, appendix A.2)."""

MAX_GRADIENT_NORM = 100.0
"""Against spikes alone. The three losses weigh 8 together and the soft one is scaled by θ², so norms of
40 are usual on SST-2. BERT's limit of 1 would give every batch the same weight, those that the student
still gets wrong too: after 500 steps it agreed with its teacher on 0.902 of the rows, without on 0.924."""

_RATE_TIMES_WIDTH = 0.0768


def peak_learning_rate(settings: TrainingSettings, hidden_size: int) -> float:
    """Return the learning rate of the settings; `auto` is 2e-4 at a width of 384, 1e-4 at 768.

    Those two were measured (retention 0.995 on SST-2 with each); the rule between them is the
    1 / width of Adam's hidden weights (Yang et al. 2022, arXiv:2203.03466, table 3).
    """
    rate = settings.learning_rate
    return _RATE_TIMES_WIDTH / hidden_size if rate == "auto" else rate


def word_embeddings(model: PreTrainedModel) -> nn.Embedding:
    """Return the largest table of most models, of which a batch touches a few hundred rows."""
    return cast(nn.Embedding, model.get_input_embeddings())


def make_embeddings_sparse(model: PreTrainedModel) -> None:
    """Make the gradients of a model's word embeddings sparse, in place.

    Where the table is the decoder's too, as in masked language models, every row has a gradient, and it
    stays one of the matrices.
    """
    embeddings = word_embeddings(model)
    embeddings.sparse = not _is_decoder(model, embeddings)


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Keep a model's word embeddings from learning."""
    word_embeddings(model).weight.requires_grad_(False)


def build_optimizers(
    model: PreTrainedModel, learning_rate: float, beside: Iterable[nn.Parameter] = ()
) -> list[Optimizer]:
    """Return the optimizers of a model, one more for its word embeddings if their gradients are sparse.

    A dense Adam over the whole table moves and decays millions of moments for tokens that are
    not in the batch; SparseAdam touches the rows that are. Matrices decay, biases and norms don't.

    Args:
        model: the student.
        learning_rate: its peak.
        beside: what else is learnt.
    """
    embeddings = word_embeddings(model)
    dense_table = not embeddings.sparse
    parameters = [*model.parameters(), *beside]
    dense = [
        p for p in parameters if p.requires_grad and (dense_table or p is not embeddings.weight)
    ]
    groups = [
        {"params": [p for p in dense if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in dense if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [AdamW(groups, lr=learning_rate, fused=True)]
    if embeddings.sparse and embeddings.weight.requires_grad:
        optimizers.append(SparseAdam([embeddings.weight], lr=learning_rate))
    return optimizers


def _is_decoder(model: PreTrainedModel, embeddings: nn.Embedding) -> bool:
    decoder = model.get_output_embeddings()
    return decoder is not None and decoder.weight is embeddings.weight


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their common norm is at most `max_norm`; return what it was.

    torch's own clipping refuses sparse gradients; their norm is that of their summed values.
    """
    values = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            parameter.grad = gradient.coalesce()
            gradient = parameter.grad._values()
        values.append(gradient)
    norm = torch.nn.utils.get_total_norm(values)
    if norm > max_norm:  # else the multiplication by 1 would read and write every gradient
        torch._foreach_mul_(values, max_norm / (norm + 1e-6))
    return norm
