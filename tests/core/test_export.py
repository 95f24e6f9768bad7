"""Export: a valid file of the asked opset, alike in its answers, with dynamic shapes."""

import copy

import onnx
import pytest
import torch
from datasets import Dataset

from distill_core.errors import ExportError
from distill_core.export import check_one_file, export_onnx, parity, signature
from distill_core.runtime import answer_row
from distill_core.session import open_session
from distill_core.student import build_student
from distill_core.targets import OPSET
from distill_core.teacher import load_model
from tests.conftest import TEXTS
from tests.core.family_models import save_small


def test_exported_file_answers_as_its_model(exported, fitted_teacher, head, rows):
    assert parity(fitted_teacher, head, exported, rows["validation"]) < 1e-4


def test_exported_file_is_of_the_asked_opset_and_one_file(exported):
    model = onnx.load(exported)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_inputs_and_outputs_have_names_shapes_and_dtypes(exported):
    described = signature(exported)
    assert [entry["name"] for entry in described["inputs"]] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert {entry["dtype"] for entry in described["inputs"]} == {"int64"}
    assert described["outputs"] == [
        {"name": "logits", "shape": ["batch_size", 2], "dtype": "float32"}
    ]


@pytest.mark.parametrize("length", [1, 2, 31, 64])
def test_every_length_runs_though_one_was_traced(exported, fitted_teacher, head, length):
    row = {
        "input_ids": [5] * length,
        "attention_mask": [1] * length,
        "token_type_ids": [0] * length,
    }
    with torch.inference_mode():
        inputs = {name: torch.tensor([values]) for name, values in row.items()}
        expected = fitted_teacher(**inputs).logits[0].numpy()
    assert answer_row(open_session(exported), head, row) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_half_depth_students_of_each_family_export(family, request, head, tmp_path, rows):
    teacher = load_model(request.getfixturevalue(family))
    prefix = f"{teacher.base_model_prefix}.encoder.layer."
    student = build_student(teacher, prefix, (0, 2))
    facts = export_onnx(student, head, rows["validation"], OPSET, tmp_path / "student.onnx")
    assert facts["parity_max_difference"] < 1e-4
    assert facts["bytes"] == (tmp_path / "student.onnx").stat().st_size


def test_file_that_answers_otherwise_is_an_error(fitted_teacher, rows, head, tmp_path):
    model = copy.deepcopy(fitted_teacher)

    def drift(module, inputs, output):
        if not torch.jit.is_tracing():
            output.logits = output.logits + 1
        return output

    model.register_forward_hook(drift)
    with pytest.raises(ExportError, match="logits differ from the model's by up to 1"):
        export_onnx(model, head, rows["validation"], OPSET, tmp_path / "model.onnx")


def test_weights_beside_the_file_are_an_error(exported, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(exported), path, save_as_external_data=True, location="model.onnx_data")
    with pytest.raises(ExportError, match=r"of its weights are in other files, .* 2,147,483,648"):
        check_one_file(path)
    check_one_file(exported)


@pytest.mark.parametrize(
    ("family", "marked", "reads"),
    [
        ("bert", True, True),
        ("electra", True, True),
        ("roberta", True, True),  # optimum leaves them out, of this and of the next
        ("big_bird", True, True),
        ("roberta", False, False),
        ("big_bird", False, False),
        ("distilbert", True, False),
        ("mpnet", True, False),
    ],
)
def test_segments_are_an_input_where_the_model_reads_them_and_texts_have_them(
    family, marked, reads, tokenizer, head, tmp_path
):
    pairs = tokenizer(TEXTS[:8], TEXTS[3:11], return_token_type_ids=marked)
    rows = Dataset.from_dict(dict(pairs)).add_column("length", [len(t) for t in pairs.input_ids])
    model = load_model(save_small(family, head.architecture_suffix, tokenizer, tmp_path / "model"))
    facts = export_onnx(model, head, rows, OPSET, tmp_path / "model.onnx")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if reads else [])]
    assert [entry["name"] for entry in facts["inputs"]] == names
