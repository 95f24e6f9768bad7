"""Losses between what happens inside student and teacher: hidden states, attentions, relations.

Each is a mean over what is no padding, so that a text counts alike in any company.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, log_softmax, mse_loss


def cosine_loss(
    student_hidden: Float[Tensor, "batch tokens *layers width"],
    teacher_hidden: Float[Tensor, "batch tokens *layers width"],
    attention_mask: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Angle between the hidden vectors of teacher and student, mean over all tokens but padding.

        L = (1 / N) · Σ 1 − (s · t) / (‖s‖ ‖t‖),  N the number of tokens that are not padding

    Where several layers are aligned, the mean over them too.

    Sanh et al. 2019, "DistilBERT" (arXiv:1910.01108), section 2: it aligns the directions of the
    hidden vectors, whatever their norms.
    """
    tokens = attention_mask.bool()
    return (1 - cosine_similarity(student_hidden[tokens], teacher_hidden[tokens], dim=-1)).mean()


def hidden_loss(
    student_hidden: Float[Tensor, "batch tokens *layers width"],
    teacher_hidden: Float[Tensor, "batch tokens *layers width"],
    attention_mask: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Squared difference of hidden states or embeddings, mean over numbers and all tokens but padding.

        L = MSE(Hˢ W, Hᵗ)

    Jiao et al. 2020, "TinyBERT" (arXiv:1909.10351), equations 8 and 9. `projections` multiplies by
    W before. Where several layers are aligned, the mean over them; the paper has their sum.
    """
    tokens = attention_mask.bool()
    return mse_loss(student_hidden[tokens], teacher_hidden[tokens])


def attention_loss(
    student_attentions: Float[Tensor, "batch layers heads tokens tokens"],
    teacher_attentions: Float[Tensor, "batch layers heads tokens tokens"],
    attention_mask: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Squared difference of attention probabilities, mean over layers, heads and pairs of tokens.

        L = (1 / h) · Σ_i MSE(Aˢ_i, Aᵗ_i),  i one of h heads; no token of a pair is padding

    Jiao et al. 2020 (arXiv:1909.10351), equation 7, but for this: there A is the score before the
    softmax, and here it is the probability after it, which is what transformers returns. A row of
    n probabilities sums to 1, so the loss falls with 1 / n² where scores keep their size.
    """
    tokens = attention_mask.bool()
    pairs = tokens[:, :, None] & tokens[:, None, :]
    student, teacher = (
        attentions.movedim((1, 2), (3, 4))[pairs]
        for attentions in (student_attentions, teacher_attentions)
    )
    return mse_loss(student, teacher)


def relation_loss(
    student_vectors: Float[Tensor, "batch tokens 3 student_width"],
    teacher_vectors: Float[Tensor, "batch tokens 3 teacher_width"],
    attention_mask: Int[Tensor, "batch tokens"],
    heads: int,
) -> Float[Tensor, ""]:
    """Divergence of how queries, keys and values relate among themselves, in teacher and student.

    Each kind of vector is cut into A parts of width d, which need not be the heads of the attention.
    For the vectors V of a kind and part, R = softmax(V Vᵀ / √d), and

        L = Σ_kinds (1 / (A · N)) · Σ_parts Σ_tokens KL(Rᵗ ‖ Rˢ),  N the tokens that are not padding

    Wang et al. 2021, "MiniLMv2" (arXiv:2012.15828), section 3, with the Q-Q, K-K and V-V relations
    that the paper settles on, each with a weight of 1. Widths and heads of the two models may differ.

    Args:
        student_vectors: queries, keys and values of one layer, as its linear maps return them.
        teacher_vectors: the same of the teacher.
        attention_mask: of the batch.
        heads: A, a divisor of both widths.
    """
    student, teacher = (
        _log_relations(vectors, attention_mask, heads)
        for vectors in (student_vectors, teacher_vectors)
    )
    divergence = kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    by_token = divergence.mean(dim=2).sum(dim=1)
    return by_token[attention_mask.bool()].mean()


def _log_relations(
    vectors: Float[Tensor, "batch tokens kinds width"],
    attention_mask: Int[Tensor, "batch tokens"],
    heads: int,
) -> Float[Tensor, "batch kinds heads tokens tokens"]:
    """Return log softmax(V Vᵀ / √d) of each kind and part; padding is related to nothing."""
    parts = vectors.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4)
    scores = parts @ parts.mT / math.sqrt(parts.shape[-1])
    padding = ~attention_mask.bool()[:, None, None, None, :]
    return log_softmax(scores.masked_fill(padding, torch.finfo(scores.dtype).min), dim=-1)
