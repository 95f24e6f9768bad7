"""Bundles: what is in them, and that verification names whatever is not as published."""

import json
import shutil
import subprocess
import sys

import onnx
import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from distill_core.bundle import HARD_TEXTS
from distill_core.errors import BundleError
from distill_core.files import file_digest
from distill_core.manifest import read_manifest
from distill_core.verification import verify
from tests.core.bundle_script import check_alone


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def _edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_fresh_bundle_verifies(bundle):
    found = verify(bundle)
    assert found.passed
    assert found.largest_difference == 0.0
    assert "onnxruntime" in found.verified_on


def test_bundle_has_the_layout_that_transformers_js_and_optimum_read(bundle):
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert there >= {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "manifest.json",
        "README.md",
    }
    assert AutoConfig.from_pretrained(bundle).id2label == {0: "negative", 1: "positive"}
    assert AutoTokenizer.from_pretrained(bundle).model_max_length == 32


def test_manifest_lists_every_file_with_its_hash(bundle):
    for entry in read_manifest(bundle).files:
        assert file_digest(bundle / entry.path) == entry.sha256
        assert (bundle / entry.path).stat().st_size == entry.bytes


def test_golden_examples_hold_the_hard_texts_with_the_tokenizers_own_ids(bundle):
    manifest = read_manifest(bundle)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(manifest.max_length)
    assert {golden.text for golden in manifest.golden} >= set(HARD_TEXTS)
    for golden in manifest.golden:
        assert tuple(tokenizer.encode(golden.text).ids) == golden.inputs["input_ids"]
        assert len(golden.inputs["input_ids"]) <= manifest.max_length
        assert manifest.labels[golden.logits.index(max(golden.logits))] == golden.label


def test_loading_code_of_the_model_card_runs_as_it_is_printed(bundle):
    card = (bundle / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] in ("negative", "positive")


def _flip_a_byte(folder):
    path = folder / "onnx" / "model_quantized.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped byte": (_flip_a_byte, "model_quantized.onnx: its content is not what was published"),
    "a missing file": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: is missing"),
    "a file cut short": (
        lambda f: (f / "config.json").write_text("{"),
        "config.json: 1 bytes, the manifest says",
    ),
    "a file added": (
        lambda f: (f / "extra.txt").write_text(""),
        "extra.txt: is not in the manifest",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_verification_names_what_is_damaged(copy, damage):
    break_it, words = DAMAGE[damage]
    break_it(copy)
    found = verify(copy)
    assert not found.passed
    assert any(words in problem for problem in found.problems), found.problems


def test_other_logits_than_the_golden_ones_are_named(copy):
    document = json.loads((copy / "manifest.json").read_text())
    document["golden"][1]["logits"][0] += 1
    _edit_manifest(copy, golden=document["golden"])
    found = verify(copy)
    assert found.problems[0].startswith(
        "golden example 1: a logit differs by 1, the tolerance is 0.1"
    )


def test_other_token_ids_than_the_golden_ones_are_named(copy):
    document = json.loads((copy / "manifest.json").read_text())
    document["golden"][0]["inputs"]["input_ids"][1] += 1
    _edit_manifest(copy, golden=document["golden"])
    assert any("other token ids" in problem for problem in verify(copy).problems)


def test_nan_logits_do_not_pass(copy):
    path = copy / "onnx" / "model_quantized.onnx"
    model = onnx.load(path)
    bias = next(t for t in model.graph.initializer if "classifier.bias" in t.name)
    bias.raw_data = b"\x00\x00\xc0\x7f" * 2  # a quiet NaN, twice
    onnx.save(model, path)
    files = json.loads((copy / "manifest.json").read_text())["files"]
    for entry in files:
        if entry["path"].endswith("model_quantized.onnx"):
            entry.update(bytes=path.stat().st_size, sha256=file_digest(path))
    _edit_manifest(copy, files=files)
    assert not verify(copy).passed


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "manifest.json").unlink(), "no manifest.json, so this is no bundle"),
        (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
        (lambda f: _edit_manifest(f, schema_version=2), "schema_version"),
        (lambda f: _edit_manifest(f, surprise=1), "surprise"),
    ],
)
def test_folders_that_are_no_bundle_are_refused(copy, break_it, words):
    break_it(copy)
    with pytest.raises(BundleError, match=words):
        verify(copy)


def test_the_script_of_a_bundle_checks_it_without_distill_deploy(copy):
    printed = check_alone(copy, 0)
    assert "sentiment for linux-x86-64: every file and golden example is right" in printed
    assert "largest difference 0, on" in printed


def test_the_script_names_a_file_that_was_changed_and_one_that_is_missing(copy):
    (copy / "config.json").write_text("{}")
    (copy / "tokenizer.json").unlink()
    printed = check_alone(copy, 1)
    assert "config.json: its content is not what was published" in printed
    assert "tokenizer.json: is missing" in printed
    assert "2 problems" in printed


def test_the_script_names_golden_examples_that_are_cut_or_answered_otherwise(copy):
    golden = json.loads((copy / "manifest.json").read_text())["golden"]
    golden[0]["logits"][0] += 1.0
    golden[1]["text"] = "something else"
    golden[2]["offsets"][0][0] = [7, 9]
    _edit_manifest(copy, golden=golden)
    printed = check_alone(copy, 1)
    assert "golden example 0: differs by 1, the tolerance is 0.1" in printed
    assert "golden example 1: other token ids: 'something else'" in printed
    assert "golden example 2: other offsets" in printed
    assert any("example 2: the tokenizer makes other offsets" in p for p in verify(copy).problems)
