"""How wide a student may be, and how large it then is, from the headers of its teacher alone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.config import DataSource, Pipeline, StudentShape, TeacherSource
from distill_core.dataset import Splits
from distill_core.errors import ConfigError, TeacherError
from distill_core.families import Width
from distill_core.loss_weights import LossWeights
from distill_core.plan import check_fit, make_plan
from distill_core.teacher import ModelDescription, describe, load_tokenizer
from distill_core.width import count_parameters, pick_width
from tests.core.family_models import save_small


@pytest.fixture(scope="module")
def teacher(tiny_bert: Path) -> ModelDescription:
    """32 wide: 4 heads of 8 dimensions, 64 neurons."""
    return describe(tiny_bert)


def pipeline(**student: Any) -> Pipeline:
    source = TeacherSource(source="teacher")
    return Pipeline(
        name="tiny",
        teacher=source,
        data=DataSource(source="data", max_length=32),
        student=StudentShape(**student),
    )


def test_a_student_is_as_wide_as_its_teacher_unless_it_is_told_otherwise(
    teacher: ModelDescription,
) -> None:
    assert pick_width(teacher, StudentShape(count=2)) is None
    whole = StudentShape(hidden_size=32, heads=4, intermediate_size=64)
    assert pick_width(teacher, whole) is None


def test_what_is_not_said_is_the_teachers(teacher: ModelDescription) -> None:
    assert pick_width(teacher, StudentShape(hidden_size=24)) == Width(24, 4, 64, 24)
    assert pick_width(teacher, StudentShape(hidden_size=24, heads=3)) == Width(24, 3, 64, 24)
    assert pick_width(teacher, StudentShape(intermediate_size=5)) == Width(32, 4, 5, 32)


def test_attentions_of_other_numbers_of_heads_are_refused_before_a_run(
    teacher: ModelDescription,
) -> None:
    compared = {"losses": LossWeights(attention=1.0)}
    check_fit(pipeline(hidden_size=24).model_copy(update=compared), teacher)
    check_fit(pipeline(hidden_size=24, heads=3), teacher)
    says = r"losses\.attention: the student has 3 attention heads and the teacher 4, .*accepted: 0"
    with pytest.raises(ConfigError, match=says):
        check_fit(pipeline(hidden_size=24, heads=3).model_copy(update=compared), teacher)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            {"hidden_size": 33},
            r"student\.hidden_size: 33, and the teacher has 32; accepted: 1 to 32",
        ),
        ({"heads": 5}, r"student\.heads: 5, and the teacher has 4; accepted: 1 to 4"),
        ({"intermediate_size": 65}, r"student\.intermediate_size: 65, .* accepted: 1 to 64"),
        (
            {"hidden_size": 30},
            r"student\.hidden_size: 30 .* by 4 heads; accepted: multiples of 4, up to 32",
        ),
        (
            {"hidden_size": 16, "heads": 3},
            r"16 dimensions .* by 3 heads; accepted: multiples of 3, up to 24",
        ),
        (
            {"hidden_size": 12, "heads": 1},
            r"student\.heads: 1 would have 12 dimensions each, and the teacher's have 8; accepted with a "
            r"hidden_size of 12: 2, 3, 4; or a hidden_size of at most 8",
        ),
        ({"heads": 2}, r"student\.heads: 2 would have 16 .* of 32: 4; or .* at most 16"),
    ],
)
def test_widths_that_the_teacher_cannot_be_cut_to_are_refused_with_what_is_accepted(
    teacher: ModelDescription, shape: dict[str, int], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check_fit(pipeline(**shape), teacher)


@given(st.integers(1, 32), st.integers(1, 4))
def test_every_width_that_is_accepted_fills_its_heads(
    teacher: ModelDescription, hidden_size: int, heads: int
) -> None:
    try:
        width = pick_width(teacher, StudentShape(hidden_size=hidden_size, heads=heads))
    except ConfigError:
        assert hidden_size % heads or hidden_size > 8 * heads
    else:
        assert width in (None, Width(hidden_size, heads, 64, hidden_size))
        assert hidden_size % heads == 0 and hidden_size <= 8 * heads


@pytest.mark.parametrize("family", ["albert", "modernbert", "deberta-v2"])
def test_a_family_that_cannot_be_narrower_is_refused_by_name(
    family: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = save_small(family, "ForSequenceClassification", load_tokenizer(tiny_bert), tmp_path)
    assert pick_width(describe(folder), StudentShape()) is None
    with pytest.raises(TeacherError, match=f"narrower student of {family} cannot be made: its|all"):
        check_fit(pipeline(intermediate_size=8), describe(folder))


def test_electra_keeps_its_embeddings_and_may_not_be_as_narrow_as_they_are(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = save_small("electra", "ForSequenceClassification", load_tokenizer(tiny_bert), tmp_path)
    seen = describe(folder)
    assert pick_width(seen, StudentShape(hidden_size=24)) == Width(24, 4, 64, 16)
    with pytest.raises(ConfigError, match=r"hidden_size: 16 is the width of the .* embeddings"):
        pick_width(seen, StudentShape(hidden_size=16))


def test_parameters_of_a_narrower_student_are_counted_by_hand(teacher: ModelDescription) -> None:
    words = teacher.shapes["bert.embeddings.word_embeddings.weight"][0]
    embeddings = (words + 64 + 2) * 24 + 2 * 24
    attention = 4 * (24 * 24 + 24) + 2 * 24
    feed_forward = 24 * 40 + 40 + 40 * 24 + 24 + 2 * 24
    head = 24 * 24 + 24 + 2 * 24 + 2
    counted = count_parameters(teacher, 3, Width(24, 3, 40, 24))
    assert counted == embeddings + 3 * (attention + feed_forward) + head


def test_a_plan_says_how_wide_and_how_large_the_student_will_be(
    teacher: ModelDescription, splits: Splits
) -> None:
    asked = {"hidden_size": 24, "heads": 3, "count": 3}
    plan = make_plan(pipeline(**asked), teacher, splits)["student"]
    assert plan["width"] == {
        "hidden_size": 24, "heads": 3, "intermediate_size": 64, "embedding_size": 24,
    }  # fmt: skip
    assert plan["parameters"] == count_parameters(teacher, 3, Width(24, 3, 64, 24))
    assert plan["bytes"] == 4 * plan["parameters"]


def test_a_plan_of_a_search_names_no_layers_and_knows_their_number(
    teacher: ModelDescription, splits: Splits
) -> None:
    found = make_plan(pipeline(layers="search", count=3), teacher, splits)["student"]
    known = make_plan(pipeline(layers="top", count=3), teacher, splits)["student"]
    assert found == {**known, "layers": "search"}
    assert known["layers"] == [1, 2, 3]


def test_a_search_among_layers_that_share_their_weights_is_refused(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = save_small("albert", "ForSequenceClassification", load_tokenizer(tiny_bert), tmp_path)
    with pytest.raises(ConfigError, match=r"student\.layers: search .* accepted: alternate"):
        check_fit(pipeline(layers="search"), describe(folder))
