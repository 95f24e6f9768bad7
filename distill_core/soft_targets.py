"""Distances between the answers of student and teacher: DistilBERT's soft targets, and plain logits."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax, mse_loss, softmax


def soft_target_loss(
    student_logits: Float[Tensor, "positions classes"],
    teacher_logits: Float[Tensor, "positions classes"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross entropy between the softened outputs of teacher and student, mean over the positions.

    With p = softmax(t / θ) and q = softmax(s / θ):

        L = θ² · (1 / B) · Σ_b −Σ_i p_bi · log q_bi

    Sanh et al. 2019 (arXiv:1910.01108), section 2, "Training loss". The gradients of the inner sum
    shrink with 1 / θ²; the factor θ² keeps the weight of this loss the same at every temperature
    (Hinton et al. 2015, arXiv:1503.02531, section 2). At its minimum it is not 0 but θ² times the
    mean entropy of p.
    """
    teacher_probabilities = softmax(teacher_logits / temperature, dim=-1)
    student_log_probabilities = log_softmax(student_logits / temperature, dim=-1)
    cross_entropy = -(teacher_probabilities * student_log_probabilities).sum(dim=-1)
    return temperature**2 * cross_entropy.mean()


def logit_loss(
    student_logits: Float[Tensor, "positions classes"],
    teacher_logits: Float[Tensor, "positions classes"],
) -> Float[Tensor, ""]:
    """Squared difference of the logits, mean over positions and classes: L = MSE(s, t).

    Kim et al. 2021, "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
    Distillation" (arXiv:2105.08919), with the mean over classes where the paper has the sum. For logits
    of one mean it is twice what θ² · KL(p ‖ q) tends to as θ rises (Hinton et al. 2015,
    arXiv:1503.02531, section 2.1); beside that limit it holds the student to the teacher's mean too.
    """
    return mse_loss(student_logits, teacher_logits)
