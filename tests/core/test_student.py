"""Students against their teachers, tensor by tensor and answer by answer."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from distill_core.errors import TeacherError
from distill_core.student import build_student, pick_state, save_model
from distill_core.teacher import describe, load_model, load_tokenizer

SENTENCES = ["The film was very good", "A plot", "The cast was not ever so dull, nor warm"]
each_family = pytest.mark.parametrize("folder", ["tiny_bert", "tiny_roberta"], indirect=True)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def build(folder: Path, layers: Sequence[int]) -> tuple[PreTrainedModel, PreTrainedModel]:
    teacher = load_model(folder)
    return teacher, build_student(teacher, describe(folder).layer_prefix, layers)


@torch.inference_mode()
def answers(model: PreTrainedModel, folder: Path) -> Tensor:
    return model(**load_tokenizer(folder)(SENTENCES, padding=True, return_tensors="pt")).logits


@each_family
def test_a_student_with_all_layers_answers_exactly_as_its_teacher(folder: Path) -> None:
    teacher, student = build(folder, (0, 1, 2, 3))
    assert torch.equal(answers(student, folder), answers(teacher, folder))


@each_family
def test_a_student_with_fewer_layers_answers_otherwise(folder: Path) -> None:
    teacher, student = build(folder, (0, 2))
    assert not torch.allclose(answers(student, folder), answers(teacher, folder), atol=0.01)


@each_family
@pytest.mark.parametrize("layers", [(0, 2), (1, 3), (3,), (0, 1, 3)])
def test_the_picked_layers_and_all_that_is_in_no_layer_are_copied(
    folder: Path, layers: tuple[int, ...]
) -> None:
    teacher, student = build(folder, layers)
    copied = student.base_model.encoder.layer
    assert len(copied) == student.config.num_hidden_layers == len(layers)
    for number, layer in enumerate(layers):
        originals = teacher.base_model.encoder.layer[layer].state_dict()
        for name, tensor in copied[number].state_dict().items():
            assert torch.equal(tensor, originals[name])
    outside = {name for name in student.state_dict() if ".layer." not in name}
    assert outside == {name for name in teacher.state_dict() if ".layer." not in name}
    assert all(torch.equal(student.state_dict()[n], teacher.state_dict()[n]) for n in outside)


@each_family
def test_a_student_is_smaller_by_what_its_description_says(folder: Path) -> None:
    seen = describe(folder)
    _, student = build(folder, (0, 2))
    assert student.num_parameters() == seen.parameters - 2 * seen.layer_parameters


def test_a_student_shares_nothing_with_its_teacher(tiny_bert: Path) -> None:
    teacher, student = build(tiny_bert, (0, 2))
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.config.num_hidden_layers == 4


def test_a_student_is_ready_to_answer_and_knows_its_labels(tiny_bert: Path) -> None:
    _, student = build(tiny_bert, (0, 2))
    assert not student.training
    assert student.config.id2label == {0: "negative", 1: "positive"}
    assert all(parameter.dtype is torch.float32 for parameter in student.parameters())


@each_family
def test_plain_transformers_loads_a_saved_student_with_equal_answers(
    folder: Path, tmp_path: Path
) -> None:
    _, student = build(folder, (0, 2))
    save_model(student, folder, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert torch.equal(answers(loaded, folder), answers(student, folder))
    assert describe(tmp_path / "student").layers == 2
    assert not list((tmp_path / "student").glob("*.bin"))


@each_family
def test_a_saved_student_has_its_teachers_tokenizer(folder: Path, tmp_path: Path) -> None:
    _, student = build(folder, (0, 2))
    save_model(student, folder, tmp_path / "student")
    saved = AutoTokenizer.from_pretrained(tmp_path / "student")
    original = AutoTokenizer.from_pretrained(folder)
    assert saved(SENTENCES).input_ids == original(SENTENCES).input_ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_student_of_a_half_width_teacher_starts_from_its_exact_weights(
    tiny_bert: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    half = load_model(tiny_bert).to(dtype)
    save_model(half, tiny_bert, tmp_path / "half")
    _, student = build(tmp_path / "half", (1, 3))
    original = half.bert.encoder.layer[3].output.dense.weight
    assert torch.equal(student.bert.encoder.layer[1].output.dense.weight, original.float())
    save_model(student, tiny_bert, tmp_path / "student")
    assert load_model(tmp_path / "student").config.dtype is torch.float32


def test_layers_are_renumbered_from_zero_and_other_numbers_left_alone() -> None:
    names = ("stack.0.w", "stack.2.w.3.b", "stack.10.w", "head.2.w", "x.stack.2.w", "stack.2")
    state = {name: torch.tensor(float(number)) for number, name in enumerate(names)}
    picked = pick_state(state, "stack.", (2, 10))
    assert {name: int(value) for name, value in picked.items()} == {
        "stack.0.w.3.b": 1,
        "stack.1.w": 2,
        "head.2.w": 3,
        "x.stack.2.w": 4,
        "stack.2": 5,
    }


def test_a_family_that_counts_its_layers_elsewhere_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(TeacherError, match=r"bert: a student of the layers .* has other tensors"):
        build_student(load_model(tiny_bert), "encoder.", (0, 2))
