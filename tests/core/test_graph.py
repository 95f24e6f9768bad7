"""Files shaped as an app asks for them: what goes in, what comes out, and golden examples that say so."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from transformers import BertTokenizerFast

from distill_core.bundle import Artifact, Origin, assemble
from distill_core.export import export_onnx, signature
from distill_core.filling import measure_filling
from distill_core.golden import Shipped, may_be_another
from distill_core.graph.ort_format import write_ort
from distill_core.graph.shape import GraphShape
from distill_core.graph.shaping import shape_file
from distill_core.graph.spans import SpanRule
from distill_core.graph.table import LAST_STEPS
from distill_core.heads import Head
from distill_core.heads.question_answering import MOST_TOKENS
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.manifest import Manifest
from distill_core.quantization import quantize
from distill_core.runtime import answer_row
from distill_core.schemes import INT8, INT8_REDUCED
from distill_core.session import MODEL_INPUTS, open_session
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import load_model, load_tokenizer
from distill_core.verification import verify
from tests.conftest import TEXTS
from tests.core.bundle_script import check_alone
from tests.core.family_models import save_small
from tests.core.test_every_head import CASES, _names

SENTIMENT = SequenceClassification(("negative", "positive"))
HEADS = {"sequence-classification": (SENTIMENT, _names(SENTIMENT))} | {
    name: (case.head, case.config) for name, case in CASES.items()
}
FAMILIES = [
    "bert",
    "roberta",
    *(pytest.param(family, marks=pytest.mark.slow) for family in ("distilbert", "modernbert")),
]
"""With segments, and without; of what is between inputs and outputs, shaping reads little."""
SECOND = ("regression", "question-answering", "sentence-embeddings")


@dataclass
class Made:
    """An untrained model, and its files."""

    head: Head
    student: Path
    exported: Path
    quantized: Path

    def rows(self, length: int) -> list[dict[str, list[int]]]:
        tokenizer = load_tokenizer(self.student)
        return [dict(self.head.read_texts(text, tokenizer, length)) for text in self.texts]

    @property
    def texts(self) -> list[tuple[str, ...]]:
        if self.head.name == "multiple-choice":
            return [(TEXTS[0], "was good", "was bad", "was tired")]
        return [(text, TEXTS[9]) if self.head.name in SECOND else (text,) for text in TEXTS[::50]]

    def bundle(self, folder: Path, target: str = "linux-x86-64", **shape) -> Manifest:
        folder.mkdir()
        origin = Origin(
            name="test",
            student=self.student,
            exported=self.exported,
            head=self.head,
            max_length=32,
            teacher_fingerprint="0" * 64,
            **signature(self.exported),
            graph=GraphShape(**shape),
            asked=self.texts,
        )
        made = Artifact(
            TARGETS[target], "int8-reduced-range", self.quantized, {"f1": 1.0}, 1.0, 1.0
        )
        return assemble(made, origin, self.texts, folder)


@pytest.fixture(scope="session")
def make(tiny_bert, tmp_path_factory):
    """Make an untrained model of a head and a family, and its files, once."""
    made = {}

    def make(name: str, family: str = "bert") -> Made:
        if (name, family) in made:
            return made[name, family]
        folder = tmp_path_factory.mktemp(name)
        head, config = HEADS[name]
        segments = ["token_type_ids"] if family == "bert" else []
        tokenizer = BertTokenizerFast.from_pretrained(
            tiny_bert, model_input_names=["input_ids", "attention_mask", *segments]
        )
        save_small(family, head.architecture_suffix, tokenizer, folder / "model", **config)
        result = Made(
            head, folder / "model", folder / "model.onnx", folder / "model_quantized.onnx"
        )
        rows = Dataset.from_list(
            [
                {name: row[name] for name in MODEL_INPUTS if name in row}
                | {"label": 0, "length": len(row["input_ids"])}
                for row in result.rows(32)
            ]
        )
        export_onnx(load_model(folder / "model"), head, rows, OPSET, result.exported)
        quantize(result.exported, INT8_REDUCED, [], folder)
        made[name, family] = result
        return result

    return make


def _answer(file: Path, row: dict[str, list[int]], dtype: str = "int64") -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = {entry.name: np.array([row[entry.name]], dtype) for entry in session.get_inputs()}
    return session.run(None, feeds)


def _shaped(made: Made, folder: Path, source: Path | None = None, **shape) -> Path:
    file, asked, source = folder / "shaped.onnx", GraphShape(**shape), source or made.exported
    shape_file(source, asked, made.head.name, file)
    onnx.checker.check_model(str(file), full_check=True)
    assert file.stat().st_size <= source.stat().st_size + asked.added_bytes
    return file


def test_a_file_of_which_nothing_is_asked_stays_as_it_is(make, tmp_path):
    made = make("regression")
    assert _shaped(made, tmp_path).read_bytes() == made.exported.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_of_32_bits_are_answered_alike(make, family, tmp_path):
    made = make("sequence-classification", family)
    for source in (made.exported, made.quantized):
        file = _shaped(made, tmp_path, source, inputs="int32")
        for row in made.rows(32):
            assert np.array_equal(_answer(file, row, "int32")[0], _answer(source, row)[0])


def test_embeddings_are_looked_up_by_32_bits_without_a_cast(make, tmp_path):
    file = _shaped(make("sequence-classification"), tmp_path, inputs="int32")
    readers = [node.op_type for node in onnx.load(file).graph.node if "input_ids" in node.input]
    assert "Gather" in readers


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sequence-classification", lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)),
        ("token-classification", lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)),
        ("multiple-choice", lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)),
        ("multi-label-classification", lambda z: 1 / (1 + np.exp(-z))),
    ],
)
def test_probabilities_are_what_the_formula_makes_of_the_logits(make, name, formula, tmp_path):
    made = make(name)
    for source in (made.exported, made.quantized):
        file = _shaped(made, tmp_path, source, answer="probabilities")
        assert [output.name for output in onnx.load(file).graph.output] == ["probabilities"]
        for row in made.rows(32):
            expected = formula(_answer(source, row)[0].astype(np.float64))
            assert _answer(file, row)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, steps in LAST_STEPS.items() if "label" in steps])
def test_labels_are_those_that_the_head_predicts(make, name, tmp_path):
    made = make(name)
    file = _shaped(made, tmp_path, made.quantized, answer="label")
    for row in made.rows(32):
        logits = _answer(made.quantized, row)[0]
        (labels,) = _answer(file, row)
        assert labels.dtype == np.int64
        units = logits.reshape(-1, logits.shape[-1])
        assert np.array_equal(labels.ravel(), made.head.predict(units).ravel())


def _span(made: Made, file: Path, row: dict[str, list[int]], dtype: str = "int64") -> np.ndarray:
    (span,) = _answer(file, row, dtype)
    return span[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_are_those_that_the_head_finds(make, family, tmp_path):
    made = make("question-answering", family)
    tokenizer = load_tokenizer(made.student)
    rule = SpanRule(MOST_TOKENS, tokenizer.sep_token_id)
    asked = [("Was it good?", " ".join(TEXTS[place : place + 15])) for place in range(0, 120, 15)]
    span = GraphShape(answer="span")
    for source in (made.exported, made.quantized):
        file = tmp_path / "span.onnx"
        shape_file(source, span, made.head.name, file, rule)
        assert file.stat().st_size <= source.stat().st_size + span.added_bytes
        onnx.checker.check_model(str(file), full_check=True)
        for texts in asked:
            row = made.head.read_texts(texts, tokenizer, 60)
            assert sum(start >= 0 for start in row["starts"]) > MOST_TOKENS + 10
            first, last, score, none = _span(made, file, row)
            units = made.head.units(answer_row(open_session(source), made.head, row), row)[0]
            found = row["context"][row["starts"][int(first)] : row["ends"][int(last)]]
            assert found == row["context"][int(units[1]) : int(units[2])]
            assert (score, none) == pytest.approx(units[3:], abs=1e-5)


@given(
    st.integers(0, 60).flatmap(
        lambda tokens: st.lists(
            st.integers(-8, 8).map(float), min_size=2 * tokens, max_size=2 * tokens
        )
    )
)
def test_a_span_is_unsure_where_logits_that_move_may_make_another_the_best(numbers):
    logits = np.array(numbers, np.float32).reshape(-1, 2)
    tokens = range(len(logits))
    scores = sorted(
        logits[i, 0] + logits[j, 1] for i in tokens for j in tokens if i <= j < i + MOST_TOKENS
    )
    expected = len(scores) > 1 and scores[-1] - scores[-2] <= 2
    assert may_be_another(logits, 0.5) == expected


def test_a_file_of_spans_asks_for_what_tells_the_context(make, tmp_path):
    with pytest.raises(ValueError, match="Span asks for more than the logits"):
        shape_file(
            make("sequence-classification").exported,
            GraphShape(answer="span"),
            "question-answering",
            tmp_path / "span.onnx",
        )


QUESTIONS = {
    "span": {"answer": "span"},
    "all": {"inputs": "int32", "length": 24, "ort_format": True},
}


@pytest.mark.parametrize("shape", QUESTIONS)
@pytest.mark.parametrize("family", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_a_bundle_that_answers_with_spans_verifies_and_its_code_runs(make, family, shape, tmp_path):
    made = make("question-answering", family)
    manifest = made.bundle(tmp_path / "bundle", **{**QUESTIONS[shape], "answer": "span"})
    assert [(entry.name, entry.shape[1:]) for entry in manifest.outputs] == [("span", (4,))]
    assert manifest.logit_tolerance == 2 * made.head.tolerance
    assert verify(tmp_path / "bundle").problems == ()
    assert "every file and golden example is right" in check_alone(tmp_path / "bundle", 0)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "the score of no answer" in card
    code = card.split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "bundle", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_span_that_stands_elsewhere_is_no_right_answer(make, tmp_path):
    make("question-answering").bundle(tmp_path / "bundle", answer="span")
    path = tmp_path / "bundle" / "manifest.json"
    document = json.loads(path.read_text())
    sure = next(number for number, entry in enumerate(document["golden"]) if not entry["unsure"])
    document["golden"][sure]["logits"][1] += 1
    path.write_text(json.dumps(document))
    said = verify(tmp_path / "bundle").problems
    assert [f"golden example {sure}: a logit differs by 1" in problem for problem in said] == [True]
    assert f"golden example {sure}: differs by 1" in check_alone(tmp_path / "bundle", 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["sequence-classification", "token-classification"])
def test_a_text_that_is_filled_up_is_answered_as_it_was(make, name, family, tmp_path):
    made = make(name, family)
    file = _shaped(made, tmp_path, length=24)
    graph = onnx.load(file).graph
    sizes = [[axis.dim_value for axis in entry.type.tensor_type.shape.dim] for entry in graph.input]
    assert sizes == [[1, 24]] * len(sizes)
    assert all(axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim)
    padding = load_tokenizer(made.student).pad_token_id
    for row in made.rows(24):
        missing = 24 - len(row["input_ids"])
        padded = {
            key: [*row[key], *[padding if key == "input_ids" else 0] * missing]
            for key in MODEL_INPUTS
            if key in row
        }
        found = answer_row(open_session(file), made.head, padded)
        assert found == pytest.approx(_answer(made.exported, row)[0][0], abs=1e-4)


SHAPES = {
    "32 bits": {"inputs": "int32"},
    "probabilities": {"answer": "probabilities"},
    "labels": {"answer": "label"},
    "fixed": {"length": 24},
    "everything": {"inputs": "int32", "answer": "label", "length": 24, "ort_format": True},
    "ort": {"ort_format": True},
}


def _fits(name: str, shape: dict) -> dict:
    """Return what of a shape is possible with a head."""
    answers = {"logits", *LAST_STEPS.get(name, ())}
    shape = {**shape, "answer": "logits"} if shape.get("answer") not in answers else shape
    return {k: v for k, v in shape.items() if k != "length" or name != "multiple-choice"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("sequence-classification", shape) for shape in SHAPES),
        *((name, "everything") for name in CASES),
        *(
            pytest.param(name, "probabilities", marks=pytest.mark.slow)
            for name in CASES
            if "probabilities" in LAST_STEPS.get(name, ())
        ),
    ],
)
def test_a_shaped_bundle_verifies_here_and_by_its_own_script(make, name, shape, tmp_path):
    asked = _fits(name, SHAPES[shape])
    manifest = make(name).bundle(tmp_path / "bundle", **asked)
    found = verify(tmp_path / "bundle")
    assert found.problems == ()
    assert "every file and golden example is right" in check_alone(tmp_path / "bundle", 0)
    assert {entry.dtype for entry in manifest.inputs} == {asked.get("inputs", "int64")}
    assert manifest.answer == asked.get("answer", "logits")
    if asked.get("length"):
        assert {entry.shape for entry in manifest.inputs} == {(1, 24)}
        assert {len(golden.inputs["input_ids"]) for golden in manifest.golden} == {24}
        assert manifest.max_length == 24
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "{{" not in card
    assert ("onnxruntime's own format" in card) == bool(asked.get("ort_format"))


@pytest.mark.parametrize(
    "shape",
    [
        "everything",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("32 bits", "probabilities", "labels", "fixed")
        ),
    ],
)
def test_loading_code_of_a_shaped_file_runs_as_it_is_printed(make, shape, tmp_path):
    make("sequence-classification").bundle(tmp_path / "bundle", **SHAPES[shape])
    card = (tmp_path / "bundle" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "bundle", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in SENTIMENT.labels


def test_loading_code_of_question_answering_fills_up_its_windows(make, tmp_path):
    made = make("question-answering")
    made.bundle(tmp_path / "bundle", inputs="int32", length=24)
    code = (tmp_path / "bundle" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "bundle", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["android-arm64", "ios-arm64", "web-wasm"])
def test_loading_code_of_every_target_says_what_is_asked(make, target, tmp_path):
    made = make("sequence-classification")
    made.bundle(tmp_path / "plain", target)
    made.bundle(tmp_path / "shaped", target, inputs="int32", answer="label", length=24)
    plain, shaped = ((tmp_path / name / "README.md").read_text() for name in ("plain", "shaped"))
    for words in ("24", "Int32Array" if target == "web-wasm" else "IntBuffer|Int32"):
        assert re.search(words, shaped)
        assert not re.search(words, plain)
    assert "fill shorter ones up to as many with\n0 in `input_ids`" in shaped
    assert "The answer is the number of the label" in shaped


def test_labels_that_another_processor_may_change_are_told_and_not_held_against_it(make, tmp_path):
    made = make("token-classification")
    manifest = made.bundle(tmp_path / "bundle", answer="label")
    assert manifest.logit_tolerance == 0
    document = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    golden = next(entry for entry in document["golden"] if entry["unsure"])
    golden["logits"][golden["unsure"][0]] += 1
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(document))
    assert verify(tmp_path / "bundle").passed
    golden = next(
        entry for entry in document["golden"] if len(entry["unsure"]) < len(entry["logits"])
    )
    sure = set(range(len(golden["logits"]))) - set(golden["unsure"])
    golden["logits"][sure.pop()] += 1
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(document))
    assert "differs by 1, the tolerance is 0" in verify(tmp_path / "bundle").problems[0]
    assert "differs by 1, the tolerance is 0" in check_alone(tmp_path / "bundle", 1)


def test_an_ort_file_is_replayed_too_and_its_operators_name_no_folder(make, tmp_path):
    made, bundle = make("sequence-classification"), tmp_path / "bundle"
    manifest = made.bundle(bundle, ort_format=True)
    needed = (bundle / "onnx" / "model_quantized.required_operators.config").read_text()
    assert needed.splitlines()[1] == "# - model_quantized.ort"
    assert "LayerNormalization" in needed
    (bundle / manifest.ort_model).write_bytes(b"nothing that loads")
    assert manifest.ort_model in {entry.path for entry in manifest.files}
    assert any(manifest.ort_model in problem for problem in verify(bundle).problems)


def test_an_ort_file_of_8_bits_verifies_on_processors_that_saturate_too(make, tmp_path):
    made = make("masked-language-modelling")
    full_range = replace(made, quantized=quantize(made.exported, INT8, [], tmp_path))
    full_range.bundle(tmp_path / "bundle", target="android-arm64", ort_format=True)
    assert verify(tmp_path / "bundle").problems == ()
    assert "every file and golden example is right" in check_alone(tmp_path / "bundle", 0)


def test_an_ort_file_that_answers_otherwise_than_its_onnx_file_is_named(make, tmp_path):
    made, bundle = make("sequence-classification"), tmp_path / "bundle"
    manifest = made.bundle(bundle, ort_format=True)
    model = onnx.load(bundle / manifest.model)
    (bias,) = [t for t in model.graph.initializer if t.name.endswith("classifier.bias")]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    write_ort(tmp_path / "other.onnx", x86=True)
    shutil.copy(tmp_path / "other.ort", bundle / manifest.ort_model)
    document = json.loads((bundle / "manifest.json").read_text())
    (entry,) = [file for file in document["files"] if file["path"] == manifest.ort_model]
    content = (bundle / manifest.ort_model).read_bytes()
    entry |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(document))
    problems = verify(bundle).problems
    assert len(problems) == len(manifest.golden)
    assert all(f"{manifest.ort_model}: golden example " in problem for problem in problems)
    assert f"{manifest.ort_model}: golden example 0: differs by 1," in check_alone(bundle, 1)


def test_the_same_inputs_give_the_same_shaped_bundle(make, tmp_path):
    made = make("sequence-classification")
    asked = {"inputs": "int32", "answer": "probabilities", "length": 24}
    manifests = [made.bundle(tmp_path / name, **asked).files for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_what_a_fixed_length_costs_is_counted(make, tmp_path):
    made = make("sequence-classification")
    shipped = Shipped(
        file=made.exported,
        made_from=made.exported,
        shape=GraphShape(length=8),
        head=made.head,
        max_length=8,
        tokenizer=load_tokenizer(made.student),
    )
    texts = [("The film",), ("The film was very good",), ("film " * 20,)]
    found = measure_filling(shipped, 32, texts)
    assert (found["length"], found["texts"], found["cut"]) == (8, 3, 1)
    assert found["answered_otherwise"] <= 1  # in fp32, a text that is not cut is answered alike


@pytest.mark.parametrize("name", [name for name in HEADS if name != "multiple-choice"])
def test_the_manifest_tells_what_a_fixed_length_costs(make, name, tmp_path):
    made = make(name)
    manifest = made.bundle(tmp_path / "bundle", length=24)
    assert manifest.filled.texts == len(made.texts)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert f"Of {len(made.texts)} such texts, {manifest.filled.answered_otherwise} are" in card
