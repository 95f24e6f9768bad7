"""The task's loss where rows or classes do not count alike."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from distill_core.heads.token_classification import NOT_COUNTED


def focal_loss(
    logits: Float[Tensor, "*units classes"],
    labels: Int[Tensor, "*units"],
    gamma: float,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy in which units that are answered right anyway count less, mean over the units.

    With p = softmax(z)[y], the probability of the right class, and its weight α:

        L = −(1 / N) · Σ α · (1 − p)^γ · log p

    Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv:1708.02002), equation 5. γ = 0
    leaves the weights of the classes alone. N counts the units, and is not the sum of their weights
    as in torch's cross entropy, where a batch of one class would not feel its weight at all.

    Args:
        logits: of rows, or of the tokens of rows.
        labels: class numbers; units with -100 are left out.
        gamma: γ.
        class_weights: α of each class; None is 1.
    """
    counted = labels != NOT_COUNTED
    right = labels[counted]
    log_p = log_softmax(logits[counted], dim=-1).gather(-1, right[..., None])[..., 0]
    # Where p is 1 to the last bit, the slope of (1 − p)^γ is infinite for a γ below 1.
    wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    losses = -(wrong**gamma) * log_p
    if class_weights is not None:
        losses = class_weights[right] * losses
    return losses.sum() / counted.sum().clamp(min=1)


def balanced_weights(
    labels: Int[np.ndarray, " units"], classes: int
) -> Float[np.ndarray, " classes"]:
    """Return n / (k · n_c) for each class c of k that n units have, so that all classes count alike.

    scikit-learn's "balanced" (King and Zeng 2001, "Logistic Regression in Rare Events Data"). A class
    that no unit has is none of the k, and its weight, 1, is never used.

    Args:
        labels: class numbers; negative ones are no labels.
        classes: how many the head has.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    there = counts > 0
    return np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 1.0)
