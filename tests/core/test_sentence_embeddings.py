"""Vectors of texts: how they are pooled, compared and scored, and where their pooling is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import pearsonr, spearmanr
from torch import tensor
from torch.nn.functional import mse_loss, normalize
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from distill_core.bundle import Artifact, Origin, assemble
from distill_core.config import Pipeline
from distill_core.errors import ConfigError, TeacherError
from distill_core.export import export_onnx
from distill_core.heads import Labels, find_head
from distill_core.heads.sentence_embeddings import SentenceEmbeddings
from distill_core.plan import check_fit
from distill_core.student import build_student, save_model
from distill_core.targets import OPSET, TARGETS
from distill_core.teacher import describe, fingerprint, load_model, load_tokenizer
from distill_core.verification import verify
from tests.core.bundle_script import check_alone
from tests.core.family_models import save_small

MEAN, CLS = SentenceEmbeddings((), "mean"), SentenceEmbeddings((), "cls")
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def vectors(seed: int, pairs: int) -> np.ndarray:
    """Return the vectors of pairs of texts that are somewhat alike, divided by their norms."""
    texts = draw(seed, pairs, 1, 6) + 0.7 * draw(seed + 1, pairs, 2, 6)
    return MEAN.predict(texts.reshape(2 * pairs, 6))


def test_each_text_of_a_pair_is_a_row_with_the_label_of_the_pair(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    pairs = {"text": ["The film", "A plot"], "pair": ["was good", ""], "label": [0.5, 1.0]}
    rows = MEAN.encode(pairs, tokenizer, max_length=32)
    assert rows["text"] == ["The film", "was good", "A plot", ""]
    assert rows["label"] == [0.5, 0.5, 1.0, 1.0]
    assert rows["input_ids"] == tokenizer(rows["text"]).input_ids
    del pairs["label"]
    assert np.isnan(MEAN.encode(pairs, tokenizer, max_length=32)["label"]).all()


def test_a_text_is_the_mean_of_its_tokens_or_the_first_whatever_the_padding() -> None:
    hidden = np.arange(12.0).reshape(2, 3, 2)
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    for arrays in (np.asarray, torch.tensor):
        outputs, attention = {"last_hidden_state": arrays(hidden)}, arrays(mask)
        assert MEAN.read_output(outputs, attention).tolist() == [[2, 3], [7, 8]]
        assert CLS.read_output(outputs, attention).tolist() == [[0, 1], [6, 7]]


@given(seeds)
def test_the_soft_loss_is_the_mean_squared_error_of_unit_vectors(seed: int) -> None:
    student, teacher = tensor(draw(seed, 5, 7)), tensor(draw(seed + 1, 5, 7))
    expected = 7 * mse_loss(normalize(student), normalize(teacher))
    assert_close(MEAN.soft_loss(student, teacher, 2.0), expected)


def test_the_length_of_a_vector_teaches_nothing_and_labels_do_not_either() -> None:
    teacher = tensor(draw(0, 4, 3))
    assert_close(MEAN.soft_loss(9 * teacher, teacher, 1.0), tensor(0.0, dtype=torch.float64))
    logits = teacher.requires_grad_()
    MEAN.task_loss(logits, torch.zeros(4)).backward()
    assert not logits.grad.any()


@given(seeds, st.integers(3, 40))
def test_with_scores_the_cosines_of_pairs_are_held_against_them(seed: int, pairs: int) -> None:
    said, scores = vectors(seed, pairs), np.round(draw(seed + 2, pairs), 1)
    labels = MEAN.read_units({"label": np.repeat(scores, 2).tolist()})
    assert labels.rows.tolist() == sorted([*range(pairs)] * 2)
    found = MEAN.metrics(said, labels)
    cosines = [float(one @ other) for one, other in zip(said[::2], said[1::2], strict=True)]
    if len(set(scores)) > 1:
        assert found["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic)
        assert found["pearson"] == pytest.approx(pearsonr(cosines, scores).statistic)
    assert MEAN.main_metric_of(found) == "spearman"
    sums = MEAN.statistics(said, labels).sum(axis=0)
    assert MEAN.main_score(sums) == pytest.approx(found["spearman"])


def unscored(pairs: int) -> Labels:
    return MEAN.read_units({"label": [float("nan")] * 2 * pairs})


@given(seeds, st.integers(1, 40))
def test_without_scores_each_text_looks_for_its_pair(seed: int, pairs: int) -> None:
    said = vectors(seed, pairs)
    found = MEAN.metrics(said, unscored(pairs))
    places = []
    for number in range(pairs):
        cosines = [float(said[2 * number] @ said[2 * other + 1]) for other in range(pairs)]
        nearer = [other for other in cosines if other > cosines[number] + 1e-6]
        places.append(1 + len(nearer))
    expected = np.mean([1 / place if place <= 10 else 0 for place in places])
    assert found["mrr"] == pytest.approx(expected)
    assert found["recall_at_1"] == pytest.approx(np.mean([place == 1 for place in places]))
    assert MEAN.main_metric_of(found) == "mrr"
    sums = MEAN.statistics(said, unscored(pairs)).sum(axis=0)
    assert MEAN.main_score(sums) == pytest.approx(found["mrr"])


def test_a_text_that_is_there_twice_is_found_in_either_place() -> None:
    said = MEAN.predict(np.array([[1.0, 0.1], [1.0, 0.0], [1.0, 0.2], [1.0, 1e-8]]))
    assert MEAN.metrics(said, unscored(2)) == {"mrr": 1.0, "recall_at_1": 1.0}


def test_models_agree_by_the_cosine_of_their_vectors() -> None:
    one = MEAN.predict(np.array([[1.0, 0.0], [0.0, 2.0]]))
    other = MEAN.predict(np.array([[3.0, 0.0], [1.0, 0.0]]))
    assert MEAN.agreement(one, other) == pytest.approx((1 + 0) / 2)
    assert MEAN.golden(np.array([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(("degrees", "same"), [(0, True), (18, True), (19, False), (180, False)])
def test_a_vector_of_a_text_is_another_one_beyond_what_quantization_turns_it(
    degrees: float, same: bool
) -> None:
    angle = np.radians(degrees)
    one, other = np.array([3.0, 0.0]), 0.5 * np.array([np.cos(angle), np.sin(angle)])
    assert MEAN.same_answer(one, other, {}, {}) is same


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2DoubleHeadsModel", "T5Encoder"])
def test_what_predicts_the_next_word_is_no_bare_encoder(name: str) -> None:
    with pytest.raises(TeacherError, match=f"{name} has no head that can be distilled"):
        find_head({"architectures": [name]}, "auto", "teacher")


# Folders


def write_pooling(folder: Path, modules: list[str], **modes: Any) -> None:
    """Write what sentence-transformers writes beside an encoder."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "include_prompt": True, **modes})
    )
    types = [{"type": f"sentence_transformers.models.{name}"} for name in modules]
    (folder / "modules.json").write_text(json.dumps(types))


ENCODER = ["Transformer", "Pooling", "Normalize"]


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    return save_small("mpnet", "Model", tokenizer, tmp_path / "teacher")


def test_the_pooling_is_the_one_that_was_saved_beside_the_model_or_the_mean(folder: Path) -> None:
    assert describe(folder).head == MEAN
    seen = {fingerprint(folder)}
    for pooling in ("mean_tokens", "cls_token"):
        modes = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}
        write_pooling(folder, ENCODER, **modes | {f"pooling_mode_{pooling}": True})
        assert describe(folder).head.pooling == pooling.split("_")[0]
        seen.add(fingerprint(folder))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("modules", "modes", "says"),
    [
        ([*ENCODER, "Dense"], {"pooling_mode_mean_tokens": True}, "pass through Dense"),
        (ENCODER, {"pooling_mode_max_tokens": True}, "pools by pooling_mode_max_tokens; accepted"),
        (ENCODER, {}, "pools by nothing"),
        (
            ENCODER,
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pools by pooling_mode_mean_tokens and pooling_mode_cls_token",
        ),
    ],
)
def test_a_pooling_that_a_student_would_lose_is_refused(
    folder: Path, modules: list[str], modes: dict[str, bool], says: str
) -> None:
    write_pooling(folder, modules, **modes)
    with pytest.raises(TeacherError, match=says):
        describe(folder)


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json"])
def test_damaged_files_of_sentence_transformers_are_named(folder: Path, name: str) -> None:
    write_pooling(folder, ENCODER, pooling_mode_mean_tokens=True)
    for text, says in (("{", "cannot be read"), ('"x"', "is not what sentence-transformers saves")):
        (folder / name).write_text(text)
        with pytest.raises(TeacherError, match=f"{name}: {says}"):
            describe(folder)


def test_an_encoder_that_is_called_what_it_was_pretrained_as_is_one_all_the_same(
    folder: Path,
) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("MPNetModel", "MPNetForMaskedLM"))
    write_pooling(folder, ENCODER, pooling_mode_cls_token=True)
    assert describe(folder).head == CLS
    assert type(load_model(folder)).__name__ == "MPNetModel"


def test_the_pooling_goes_along_with_the_student(folder: Path, tmp_path: Path) -> None:
    write_pooling(folder, ENCODER, pooling_mode_cls_token=True)
    student = build_student(load_model(folder), describe(folder).layer_prefix, (0, 2))
    save_model(student, folder, tmp_path / "student")
    assert describe(tmp_path / "student").head == CLS


def test_a_bundle_says_how_to_pool_and_is_verified_by_that(folder: Path, tmp_path: Path) -> None:
    write_pooling(folder, ENCODER, pooling_mode_cls_token=True)
    rows = MEAN.encode({"text": ["The film"], "pair": ["a plot"]}, load_tokenizer(folder), 32)
    rows["length"] = [len(ids) for ids in rows["input_ids"]]
    onnx = tmp_path / "model.onnx"
    found = export_onnx(load_model(folder), CLS, Dataset.from_dict(rows), OPSET, onnx)
    assert [entry["name"] for entry in found["outputs"]] == ["last_hidden_state"]
    origin = Origin("x", folder, onnx, CLS, 32, "0" * 64, found["inputs"], found["outputs"])
    (tmp_path / "bundle").mkdir()
    artifact = Artifact(TARGETS["web-wasm"], "fp32", onnx, {"mrr": 1.0}, 1.0, 1.0)
    manifest = assemble(artifact, origin, [("The film",)], tmp_path / "bundle")
    assert manifest.pooling == "cls"
    assert {"modules.json", "1_Pooling/config.json"} < {file.path for file in manifest.files}
    assert verify(tmp_path / "bundle").problems == ()
    assert "every file and golden example is right" in check_alone(tmp_path / "bundle", 0)
    path = tmp_path / "bundle" / "manifest.json"
    path.write_text(path.read_text().replace('"pooling": "cls"', '"pooling": "mean"'))
    assert "a logit differs by" in verify(tmp_path / "bundle").problems[0]


@pytest.mark.parametrize("family", ["bert", "mpnet", "distilbert", "electra", "modernbert"])
def test_an_encoder_without_a_pooler_is_loaded_as_it_is(
    family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = save_small(family, "Model", tokenizer, tmp_path / "teacher")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    whole = load_model(folder)
    bare = {name: value for name, value in tensors.items() if not name.startswith("pooler.")}
    save_file(bare, path, metadata={"format": "pt"})
    model, seen = load_model(folder), describe(folder)
    assert set(whole.state_dict()) == set(tensors)
    assert set(model.state_dict()) == set(bare)
    kept = tuple(range(0, seen.layers, 2)) if family != "modernbert" else (0, 2, 4, 6)
    for teacher in (model, whole):
        student = build_student(teacher, seen.layer_prefix, kept)
        lost = (seen.layers - len(kept)) * seen.layer_parameters
        assert student.num_parameters() == teacher.num_parameters() - lost


def test_a_bare_encoder_that_lacks_anything_else_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.0.output.dense.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"missing .*: encoder\.layer\.0\.output\.dense\.bias$"):
        load_model(folder)


@pytest.mark.parametrize(
    "change", [{"baseline": True}, {"losses": {"distillation": 0, "cosine": 0}}], ids=str
)
def test_a_pipeline_without_the_teachers_word_is_refused(
    change: dict[str, Any], folder: Path
) -> None:
    document = {"name": "x", "teacher": {"source": "t"}, "data": {"source": "d", "max_length": 32}}
    seen = describe(folder)
    assert check_fit(Pipeline.model_validate(document), seen) == (0, 2)
    with pytest.raises(ConfigError, match="sentence-embeddings are learnt from the teacher alone"):
        check_fit(Pipeline.model_validate(document | change), seen)
