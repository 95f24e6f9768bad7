"""Every family: the student of all layers is its teacher, and the one of half of them goes the whole way."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from distill_core.config import StudentShape, TrainingSettings
from distill_core.errors import ConfigError, TeacherError
from distill_core.export import PARITY_TOLERANCE, export_onnx
from distill_core.families import FAMILIES
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.layers import pick_layers
from distill_core.loss_weights import LossWeights
from distill_core.positions import cut_positions
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET
from distill_core.teacher import describe, load_model
from distill_core.training import distill
from tests.core.family_models import SMALL, save_small

SUFFIX = "ForSequenceClassification"


@pytest.fixture(scope="module", params=SMALL)
def folder(
    request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_small(request.param, SUFFIX, tokenizer, tmp_path_factory.mktemp(request.param))


@torch.inference_mode()
def hidden_and_logits(model: PreTrainedModel) -> tuple[Tensor, ...]:
    ids = torch.randint(5, 40, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    answer = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return (*answer.hidden_states, answer.logits)


def student_of(folder: Path, shape: StudentShape) -> tuple[PreTrainedModel, PreTrainedModel]:
    seen, teacher = describe(folder), load_model(folder)
    return teacher, build_student(teacher, seen.layer_prefix, pick_layers(seen.stack.kinds, shape))


def test_every_listed_family_is_in_the_matrix() -> None:
    assert FAMILIES.keys() < SMALL.keys()


def test_the_description_counts_what_the_model_has(folder: Path) -> None:
    seen, model = describe(folder), load_model(folder)
    tied = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert seen.parameters == sum(tied.values())
    assert seen.layers == model.config.num_hidden_layers
    assert seen.stack.hidden_size == model.config.hidden_size
    assert seen.max_length == 64


def test_a_student_with_all_layers_is_its_teacher(folder: Path) -> None:
    teacher, student = student_of(folder, StudentShape(count=describe(folder).layers))
    pairs = zip(hidden_and_logits(student), hidden_and_logits(teacher), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_student_of_one_layer_can_be_a_teacher_itself(folder: Path, tmp_path: Path) -> None:
    _, student = student_of(folder, StudentShape(layers="spread", count=1))
    assert student.config.num_hidden_layers == 1
    save_model(student, folder, tmp_path / "student")
    seen = describe(tmp_path / "student")
    assert (seen.layers, seen.parameters) == (1, student.num_parameters())
    saved, again = student_of(tmp_path / "student", StudentShape())
    pairs = zip(hidden_and_logits(saved), hidden_and_logits(again), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_half_the_layers_train_save_reload_and_export(
    folder: Path, rows: DatasetDict, head: SequenceClassification, tmp_path: Path
) -> None:
    teacher, student = student_of(folder, StudentShape())
    seen = describe(folder)
    halved = seen.layers // 2
    assert student.config.num_hidden_layers == halved
    saved = (seen.layers - halved) * seen.layer_parameters
    assert student.num_parameters() == teacher.num_parameters() - saved
    assert len(hidden_and_logits(student)) == halved + 2  # embeddings before, logits behind

    settings = TrainingSettings(max_steps=3, batch_size=8, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    trained = distill(student, teacher, job, listen=lambda record: None)
    assert all(math.isfinite(step.total) and step.losses["cosine"] > 0 for step in trained.steps)
    assert not torch.equal(hidden_and_logits(trained.model)[-1], hidden_and_logits(student)[-1])

    save_model(trained.model, folder, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert torch.equal(hidden_and_logits(loaded)[-1], hidden_and_logits(trained.model)[-1])
    assert describe(tmp_path / "student").layers == halved

    cut = cut_positions(loaded, longest=20)
    pairs = zip(hidden_and_logits(cut), hidden_and_logits(loaded), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert rows_of_positions(cut) == [count - 44 for count in rows_of_positions(loaded)]
    facts = export_onnx(cut, head, rows["validation"], OPSET, tmp_path / "model.onnx")
    assert facts["parity_max_difference"] < PARITY_TOLERANCE


def rows_of_positions(model: PreTrainedModel) -> list[int]:
    """Return how many positions each table of them has; some families have no table."""
    tables = {n: p for n, p in model.named_parameters() if n.endswith("position_embeddings.weight")}
    return [len(table) for table in tables.values()]


@pytest.mark.parametrize(("longest", "positions"), [(20, 20), (5, 16), (64, 64), (80, 64)])
def test_positions_stay_for_the_longest_text_and_for_what_an_export_reads(
    longest: int, positions: int, tiny_bert: Path
) -> None:
    model = load_model(tiny_bert)
    cut = cut_positions(model, longest)
    assert rows_of_positions(model) == [64]
    assert rows_of_positions(cut) == [positions]
    with pytest.raises((IndexError, RuntimeError)):
        cut(input_ids=torch.ones(1, positions + 1, dtype=torch.long))


def test_a_precision_that_a_familys_code_cannot_compute_in_is_not_chosen_and_refused(
    tokenizer: Any, rows: DatasetDict, head: SequenceClassification, tmp_path: Path
) -> None:
    folder = save_small("deberta", SUFFIX, tokenizer, tmp_path)
    teacher, student = student_of(folder, StudentShape())

    def train(precision: str) -> str:
        settings = TrainingSettings(max_steps=1, batch_size=8, precision=precision)
        job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
        return distill(student, teacher, job, listen=lambda _: None).choice.mode.precision

    assert train("auto") == "fp32"
    says = r"training\.precision: bf16: the model's own code .*overflow\); accepted: auto or fp32$"
    with pytest.raises(ConfigError, match=says):
        train("bf16")


def test_modernbert_keeps_its_pattern_of_global_and_local_attention(
    tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_small("modernbert", SUFFIX, tokenizer, tmp_path)
    kinds = describe(folder).stack.kinds
    assert kinds == ("first", "local", "local", "global", "local", "local", "global", "local")
    picked = {
        (rule, count): pick_layers(kinds, StudentShape(layers=rule, count=count))
        for rule, count in (("alternate", 4), ("alternate", 5), ("top", 4), ("bottom", 4))
    }
    assert picked == {
        ("alternate", 4): (0, 2, 4, 6),
        ("alternate", 5): (0, 1, 2, 3, 5),
        ("top", 4): (0, 4, 5, 6),
        ("bottom", 4): (0, 1, 2, 3),
    }
    for layers in picked.values():
        build_student(load_model(folder), describe(folder).layer_prefix, layers)
    with pytest.raises(
        ConfigError, match="puts layer 3, a global one, where this family has a local"
    ):
        pick_layers(kinds, StudentShape(layers=(0, 2, 3, 6)))
    with pytest.raises(TeacherError, match="do something else at the student's depth"):
        build_student(load_model(folder), describe(folder).layer_prefix, (0, 2, 3, 6))


def test_an_albert_of_half_the_depth_has_as_many_parameters(tokenizer: Any, tmp_path: Path) -> None:
    folder = save_small("albert", SUFFIX, tokenizer, tmp_path)
    assert describe(folder).stack.shared
    teacher, student = student_of(folder, StudentShape())
    assert student.num_parameters() == teacher.num_parameters()


def test_layers_shared_in_groups_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = save_small("albert", SUFFIX, tokenizer, tmp_path, num_hidden_groups=2)
    with pytest.raises(TeacherError, match="num_hidden_groups and inner_group_num are \\(2, 1\\)"):
        describe(folder)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("gpt2", "it reads in one direction"),
        ("longformer", "it pads texts to its windows"),
        ("bart", "it has a decoder"),
        ("nomic_bert", r"transformers \d\S+ has none, and code beside a model is never run"),
        (None, r"transformers \d\S+ has none"),
    ],
)
def test_what_is_no_encoder_is_refused_with_the_reason(
    model_type: str | None, reason: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": model_type}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=f"model_type {model_type!r} is not supported: {reason}"):
        describe(folder)
