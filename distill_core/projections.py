"""Learned maps from the student's width to the teacher's, for the losses that need equal widths."""

from collections.abc import Set
from dataclasses import replace

from torch import nn

from distill_core.losses import Output

PROJECTED = ("hidden", "embeddings")
"""The fields of `Output` that have the model's width."""


class Projections(nn.Module):
    """H W, for hidden states and embeddings of a student that is narrower than its teacher.

    Jiao et al. 2020, "TinyBERT" (arXiv:1909.10351): W_h of equation 8, one for all layers, and W_e of
    equation 9. They are trained with the student and no part of it. Where both are of one width there
    is none: the student starts from the teacher's own layers, so their spaces are the same. (The
    paper's code learns one there too, and has a bias and shares it with the embeddings; its equations
    have neither.)
    """

    def __init__(self, student_width: int, teacher_width: int, reads: Set[str]) -> None:
        """Make a map for each field of `Output` that needs one: none, where the widths are equal.

        They start as the identity, cut to their shape: nothing is drawn, and lengths and angles of the
        student's vectors are kept. An orthogonal start that is drawn did no better with students whose
        numbers are any of the teacher's, and worse with those whose numbers are the first of them.

        Args:
            student_width: of its hidden states.
            teacher_width: of the teacher's.
            reads: the fields that the losses read.
        """
        super().__init__()
        self.maps = nn.ModuleDict()
        for field in PROJECTED:
            if field not in reads or student_width == teacher_width:
                continue
            # Its own start would draw from torch's global generator.
            linear = nn.utils.skip_init(nn.Linear, student_width, teacher_width, bias=False)
            nn.init.eye_(linear.weight)
            self.maps[field] = linear

    def forward(self, output: Output) -> Output:
        """Return the student's output, in the teacher's width."""
        return replace(output, **{name: m(getattr(output, name)) for name, m in self.maps.items()})
