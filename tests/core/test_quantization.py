"""Quantization: which weights become 8-bit, by which scheme, and how the file is scored."""

import numpy as np
import onnx
import pytest
from datasets import Dataset
from onnx import numpy_helper

from distill_core.evaluation import model_logits, read_labels, score
from distill_core.files import file_digest
from distill_core.heads import Labels
from distill_core.heads.question_answering import QuestionAnswering
from distill_core.quantization import quantize
from distill_core.quantization.dynamic import activation_products
from distill_core.schemes import INT8, INT8_REDUCED
from distill_core.scoring import (
    VALIDATION_ROWS,
    ask_file,
    choosing_rows,
    measure_loss,
    score_file,
    still_read,
)
from tests.core.exports import kinds_at_run_time


@pytest.fixture(scope="module", params=[INT8, INT8_REDUCED], ids=lambda scheme: scheme.name)
def quantized(request, exported, tmp_path_factory):
    return request.param, quantize(exported, request.param, [], tmp_path_factory.mktemp("int8"))


def _weights(path):
    graph = onnx.load(path).graph
    read = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return [arrays[name] for name in read if name in arrays]


def test_every_weight_of_the_layers_becomes_8_bit(quantized, exported):
    _, file = quantized
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    # 4 layers of 6 matrices, the pooler and the classifier
    assert kinds.count("MatMulInteger") == 4 * 6 + 2
    assert "Gemm" not in kinds


def test_products_of_two_activations_stay_fp32(quantized, exported):
    _, file = quantized
    skipped = activation_products(exported)
    assert len(skipped) == 4 * 2  # each layer: queries with keys, attention with values
    kept = {node.name for node in onnx.load(file).graph.node if node.op_type == "MatMul"}
    assert kept == set(skipped)


def test_sums_in_front_of_norms_are_not_fused_with_them(quantized, tmp_path):
    model = onnx.load(quantized[1])
    assert kinds_at_run_time(model, tmp_path)["SkipLayerNormalization"] == 0
    for node in model.graph.node:
        node.op_type = "Add" if node.op_type == "Sum" else node.op_type
    assert kinds_at_run_time(model, tmp_path)["SkipLayerNormalization"] > 0


def test_reduced_range_keeps_weights_within_7_bits(quantized):
    scheme, file = quantized
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in _weights(file))
    assert largest == (64 if scheme.reduce_range else 127)


def test_weights_have_a_scale_for_each_output_channel(quantized):
    _, file = quantized
    graph = onnx.load(file).graph
    shapes = [
        numpy_helper.to_array(tensor).shape
        for tensor in graph.initializer
        if tensor.name.endswith("_scale") and "MatMul" in tensor.name
    ]
    assert shapes
    assert all(len(shape) == 1 and shape[0] > 1 for shape in shapes)


def test_quantized_file_loads_alone_and_is_the_only_thing_left(quantized):
    _, file = quantized
    assert [path.name for path in file.parent.iterdir()] == ["model_quantized.onnx"]


def test_same_file_quantizes_to_the_same_bytes(quantized, exported, tmp_path):
    scheme, file = quantized
    assert file_digest(quantize(exported, scheme, [], tmp_path)) == file_digest(file)


def test_the_loss_that_a_file_is_chosen_by_is_from_the_student_it_is_given(
    quantized, fitted_teacher, rows, head
):
    _, file = quantized
    read = choosing_rows(rows["validation"], head)
    logits = model_logits(fitted_teacher, head, read)
    labels = read_labels(head, read)
    answers = ask_file(file, head, read)
    found = measure_loss(answers, -logits)
    assert found["rows"] == len(read) == 30
    assert found["flips"] == pytest.approx(1.0)
    # The file says almost what the logits say, and the student is given as saying their opposite.
    assert found["distance"] == pytest.approx(4 * np.square(logits).mean(), rel=0.1)
    wrong = score(head, -logits, labels)["accuracy"]
    assert found["drop"] == pytest.approx(wrong - score(head, logits, labels)["accuracy"])


def test_scores_are_those_of_the_file_itself(quantized, fitted_teacher, rows, head):
    _, file = quantized
    teacher = model_logits(fitted_teacher, head, rows["validation"])
    labels = read_labels(head, rows["validation"])
    # A student that is always of another mind.
    answers = ask_file(file, head, rows["validation"])
    found = score_file(file, answers, teacher, -teacher)
    assert (found["bytes"], found["sha256"]) == (file.stat().st_size, file_digest(file))
    assert found["agreement"] == pytest.approx(found["flips"]) == pytest.approx(1.0)
    accuracy = score(head, teacher, labels)["accuracy"]
    assert found["retention"] == pytest.approx(found["metrics"]["accuracy"] / accuracy)
    assert found["drop"] == pytest.approx((1 - accuracy) - found["metrics"]["accuracy"])


def test_files_are_chosen_by_all_validation_rows_if_they_are_few(rows, head):
    few = rows["validation"]
    assert (
        choosing_rows(few, head) is few
    )  # so that what a file said of them need not be asked again
    many = few.select([0] * (VALIDATION_ROWS + 1))
    assert len(choosing_rows(many, head)) == VALIDATION_ROWS


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_files_are_chosen_by_as_many_questions_however_they_are_cut(windows):
    rows = Dataset.from_dict({"window": list(range(windows)) * (VALIDATION_ROWS + 1)})
    assert len(choosing_rows(rows, QuestionAnswering(()))) == windows * VALIDATION_ROWS


def test_words_behind_the_cut_of_another_tokenizer_are_not_read():
    before, after = np.asarray([0, 0, 0, 1, 2, 2]), np.asarray([0, 0, 2])
    read = still_read(Labels(before, before), Labels(after, after))
    assert read.tolist() == [True, True, False, False, True, False]
    assert still_read(Labels(before, before), Labels(before, before)).all()
