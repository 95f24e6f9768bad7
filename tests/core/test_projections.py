"""The maps from the student's width to the teacher's."""

import numpy as np
import torch
from torch import Tensor, tensor
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
    projections = Projections(8, 8, READS | {"embeddings"}, seed=0)
    said = output(8)
    assert weights(projections) == {}
    assert projections(said) == said


def test_a_narrower_student_is_mapped_to_the_teachers_width() -> None:
    projections, said = Projections(4, 6, READS | {"embeddings"}, seed=0), output(4)
    mapped = projections(said)
    hidden, embeddings = (projections.maps[name].weight for name in ("hidden", "embeddings"))
    assert_close(mapped.hidden, said.hidden @ hidden.T)
    assert_close(mapped.embeddings, said.embeddings @ embeddings.T)
    assert torch.equal(mapped.logits, said.logits)
    assert not torch.equal(hidden, embeddings)


def test_embeddings_have_a_map_only_where_a_loss_reads_them() -> None:
    assert list(weights(Projections(4, 6, READS, seed=0))) == ["maps.hidden.weight"]


def test_lengths_and_angles_are_kept_at_the_start() -> None:
    said = output(4)
    mapped = Projections(4, 6, READS | {"embeddings"}, seed=3)(said)
    before, after = (o.hidden.flatten(0, 2) for o in (said, mapped))
    assert_close(after @ after.T, before @ before.T)


def test_the_seed_alone_decides_where_the_maps_start() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = Projections(4, 6, READS, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    again, other = (Projections(4, 6, READS, seed=seed) for seed in (5, 6))
    assert torch.equal(first.maps["hidden"].weight, again.maps["hidden"].weight)
    assert not torch.equal(first.maps["hidden"].weight, other.maps["hidden"].weight)
