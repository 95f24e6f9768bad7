"""The script for node, as a developer types it, and the modules that web page and phone share with it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from distill_core.graph.shape import GraphShape
from distill_core.verification import open_tokenizer
from tests.conftest import PATIENCE_S, TEXTS
from tests.deploy.bundles import MAX_LENGTH, SHAPED_SLICE, TASKS
from tests.deploy.conftest import Make

pytestmark = pytest.mark.integration


def predict(samples: Path, code: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["node", "predict.mjs", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=samples / "node",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("task", TASKS)
def test_golden_examples_of_every_task_are_answered_as_published(
    samples: Path, bundle_of: Make, task: str
) -> None:
    done = predict(samples, 0, bundle_of(task), "--check")
    assert "tiny for web-wasm: 14 golden examples, as published" in done.stdout


@pytest.mark.parametrize(("task", "shape"), SHAPED_SLICE)
def test_files_that_do_more_for_their_app_are_read_as_published(
    samples: Path, bundle_of: Make, task: str, shape: GraphShape
) -> None:
    bundle = bundle_of(task, shape=shape)
    assert "14 golden examples, as published" in predict(samples, 0, bundle, "--check").stdout


@pytest.mark.parametrize(
    ("task", "answer"),
    [("sequence-classification", "probabilities"), ("token-classification", "label")],
)
def test_an_answer_is_the_same_whatever_the_file_makes_of_it(
    samples: Path, bundle_of: Make, task: str, answer: Literal["probabilities", "label"]
) -> None:
    def said(shape: GraphShape) -> dict[str, Any]:
        bundle = bundle_of(task, shape=shape)
        found: dict[str, Any] = json.loads(predict(samples, 0, bundle, TEXTS[0], "--json").stdout)
        return found

    logits = said(GraphShape(inputs="int32", length=24))
    shaped = said(GraphShape(inputs="int32", length=24, answer=answer))
    assert shaped["label"] == logits["label"]
    if answer == "label":
        assert shaped["words"] == [without(word, "probability") for word in logits["words"]]
        return
    for one, other in zip(shaped["scores"], logits["scores"], strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


def test_a_span_that_the_file_found_is_cut_out_of_a_long_context(
    samples: Path, bundle_of: Make
) -> None:
    context = "The film was good . " * 40
    shapes = (
        GraphShape(inputs="int32", length=24),
        GraphShape(inputs="int32", length=24, answer="span"),
    )
    logits, span = (
        json.loads(predict(samples, 0, bundle, "film", context, "--json").stdout)
        for bundle in (bundle_of("question-answering", shape=shape) for shape in shapes)
    )
    assert span.pop("margin") == pytest.approx(logits.pop("margin"), abs=1e-5)
    assert span == logits


@pytest.mark.parametrize("task", ["question-answering", "multiple-choice"])
def test_pieces_of_bytes_are_cut_and_placed_as_by_tokenizers(
    samples: Path, bundle_of: Make, task: str
) -> None:
    predict(samples, 0, bundle_of(task, "roberta"), "--check")


def test_node_and_tokenizers_read_texts_of_many_scripts_alike(
    samples: Path, bundle_of: Make, tmp_path: Path
) -> None:
    texts = [
        "ΟΔΥΣΣΕΥΣ ΣΑΣ",
        "ǅ ﬁ Å",
        "क्षि 한국어 ไทย",
        "a\u00a0b\u2028c",
        "x" * 101,
        "\U0001f468\u200d\U0001f4bb",
        "½ Ⅷ ﷺ",
    ]
    bundle = shutil.copytree(bundle_of("sequence-classification"), tmp_path / "bundle")
    tokenizer = open_tokenizer(bundle, MAX_LENGTH)
    manifest = json.loads((bundle / "manifest.json").read_text())
    first = manifest["golden"][0]
    manifest["golden"] = []
    for text in texts:
        encoding = tokenizer.encode(text)
        names = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        inputs = {**names, "token_type_ids": encoding.type_ids}
        manifest["golden"].append({**first, "text": text, "inputs": inputs})
    manifest["logit_tolerance"] = 1e9
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "as published" in predict(samples, 0, bundle, "--check").stdout


def test_an_answer_is_printed_with_its_probabilities(samples: Path, bundle_of: Make) -> None:
    bundle = bundle_of("sequence-classification")
    label, *scores = predict(samples, 0, bundle, TEXTS[0]).stdout.splitlines()
    names, percents = zip(*(line.split("\t") for line in scores), strict=True)
    assert label == names[0].strip()
    assert {name.strip() for name in names} == {"negative", "positive"}
    assert sum(float(percent.removesuffix(" %")) for percent in percents) == pytest.approx(100)


def test_an_answer_is_printed_for_a_program(samples: Path, bundle_of: Make) -> None:
    bundle = bundle_of("multiple-choice")
    choices = ["--choice", "was good", "--choice", "was bad", "--choice", "was dull"]
    answer = json.loads(predict(samples, 0, bundle, "The film", *choices, "--json").stdout)
    assert {score["label"] for score in answer["scores"]} == {"was good", "was bad", "was dull"}


def test_a_long_context_is_read_in_windows(samples: Path, bundle_of: Make) -> None:
    context = "The film was good . " * 40
    answer, ahead = predict(
        samples, 0, bundle_of("question-answering"), "film", context
    ).stdout.splitlines()
    assert answer == "no answer" or answer in context
    assert ahead.startswith("  ahead by ")


def test_a_bundle_that_answers_otherwise_ends_with_1(
    samples: Path, bundle_of: Make, tmp_path: Path
) -> None:
    bundle = shutil.copytree(bundle_of("sequence-classification"), tmp_path / "bundle")
    document = json.loads((bundle / "manifest.json").read_text())
    document["golden"][2]["logits"][0] += 1
    (bundle / "manifest.json").write_text(json.dumps(document))
    printed = predict(samples, 1, bundle, "--check").stdout
    assert "golden example 2 answers otherwise: differs by 1.00, the tolerance is 0.1" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "a BUNDLE and a TEXT are needed"),
        (("nowhere", "text"), "manifest.json'; accepted: a folder as in OUTPUT/bundles/TARGET"),
        (("nowhere", "text", "--runtime", "torch"), "accepted: onnxruntime-web, onnxruntime-node"),
        (("nowhere", "--unknown"), "--unknown"),
    ],
)
def test_wrong_input_ends_with_2_and_says_what_is_accepted(
    samples: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in predict(samples, 2, *arguments).stderr
