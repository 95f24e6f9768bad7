"""The maps from the student's width to the teacher's."""

import numpy as np
import torch
from torch import Tensor, nn, tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from distill_core.losses import Output
from distill_core.projections import Projections

READS = {"logits", "hidden"}


def output(width: int) -> Output:
    values = np.random.default_rng(0).normal(size=(2, 3, 3, width))
    states = tensor(values, dtype=torch.float32)
    return Output(torch.zeros(2, 2), states[:, :, 1:], states[:, :, 0])


def weights(projections: Projections) -> dict[str, Tensor]:
    return dict(projections.named_parameters())


def test_equal_widths_need_no_map() -> None:
    projections = Projections(8, 8, READS | {"embeddings"})
    said = output(8)
    assert weights(projections) == {}
    mapped = projections(said)
    assert (mapped.hidden is said.hidden) and (mapped.embeddings is said.embeddings)


def test_a_narrower_student_is_mapped_to_the_teachers_width() -> None:
    projections, said = Projections(4, 6, READS | {"embeddings"}), output(4)
    hidden, embeddings = (projections.maps[name].weight for name in ("hidden", "embeddings"))
    nn.init.normal_(hidden), nn.init.normal_(embeddings)
    mapped = projections(said)
    assert_close(mapped.hidden, said.hidden @ hidden.T)
    assert_close(mapped.embeddings, said.embeddings @ embeddings.T)
    assert torch.equal(mapped.logits, said.logits)


def test_what_a_student_says_is_padded_with_zeros_at_the_start() -> None:
    said = output(4)
    mapped = Projections(4, 6, READS | {"embeddings"})(said)
    assert torch.equal(mapped.hidden, pad(said.hidden, (0, 2)))
    assert torch.equal(mapped.embeddings, pad(said.embeddings, (0, 2)))


def test_embeddings_have_a_map_only_where_a_loss_reads_them() -> None:
    assert list(weights(Projections(4, 6, READS))) == ["maps.hidden.weight"]


def test_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Projections(4, 6, READS)
    assert torch.equal(torch.get_rng_state(), before)
