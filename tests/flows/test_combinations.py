"""Heads, families and settings that are seldom together: the whole run of each, by the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import read_dataset
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.student import save_model
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import distill
from tests.conftest import TEXTS
from tests.core.family_models import save_small
from tests.core.small_tokenizers import OTHER_TOKENIZERS
from tests.core.test_every_head import ORDER
from tests.deploy.bundles import TASKS
from tests.flows.combination import LARGE_WORDS, UNLABELLED, Combination, draw

pytestmark = pytest.mark.integration

MAX_LENGTH = 32


COMBINATIONS = {
    "tags of a DeBERTa, searched, filled up": Combination(
        "token-classification",
        "deberta-v2",
        {
            "student": {"layers": "search"},
            "graph": {"inputs": "int32", "answer": "label", "length": 16},
            "losses": {"class_weights": "balanced", "focal_gamma": 2.0},
        },
        ("int8", "fp16"),
    ),
    "vectors by fewer neurons and relations": Combination(
        "sentence-embeddings",
        "mpnet",
        {
            "student": {"intermediate_size": 24, "layers": "search"},
            "losses": {"relation": 1.0, "relation_heads": 2},
            "data": {"unlabelled": UNLABELLED, "augment": 1},
            "graph": {"ort_format": True},
        },
        ("int8-fused", "weights-8-bits"),
    ),
    "spans of a narrow ELECTRA": Combination(
        "question-answering",
        "electra",
        {
            "student": {"hidden_size": 24, "intermediate_size": 40},
            "losses": {"hidden": 1.0, "attention": 0.5, "embeddings": 0.5, "cosine": 0.0},
            "graph": {"answer": "span", "ort_format": True},
            "baseline": True,
        },
        ("int8", "int8-static"),
    ),
    "choices of shared layers in bf16": Combination(
        "multiple-choice",
        "albert",
        {
            "losses": {"soft": "mse", "hidden_layers": "uniform"},
            "training": {"precision": "bf16", "rows_at_once": 4, "patience": 1},
            "graph": {"answer": "probabilities", "inputs": "int32"},
        },
        ("int8-reduced-range", "all-4-bits"),
    ),
    "several labels of global and local layers": Combination(
        "multi-label-classification",
        "modernbert",
        {
            "data": {"unlabelled": UNLABELLED, "augment": 2},
            "training": {"unlabelled": "first", "max_steps": 25},
            "losses": {"distillation": {"from": 4.0, "to": 1.0}, "temperature": 4.0},
            "graph": {"answer": "probabilities", "length": 20, "ort_format": True},
        },
        ("int8-embeddings-8-bits", "int8-static-percentile"),
    ),
    "scores of pairs, fewer tokens": Combination(
        "regression",
        "roberta",
        {
            "student": {"vocabulary": 70, "layers": "top", "count": 3},
            "losses": {"soft": "mse", "hidden_layers": "last"},
            "data": {"unlabelled": UNLABELLED},
            "baseline": True,
        },
        ("int8", "weights-4-bits"),
    ),
    "words of a masked text, large": Combination(
        "masked-language-modelling",
        "bert",
        {
            "student": {"intermediate_size": 40, "layers": "bottom"},
            "training": {"dropout": True, "keep_outputs_gb": 0.0},
            "graph": {"inputs": "int32", "length": 12},
        },
        ("int8-of-4-bits", "int8-of-3-bits"),
        sizes=LARGE_WORDS,
    ),
    "tags by packed words": Combination(
        "token-classification",
        "bert",
        {
            "student": {"packed_words": "before", "intermediate_size": 40},
            "data": {"unlabelled": UNLABELLED, "augment": 1},
            "training": {"unlabelled": "first", "rows_at_once": 5},
            "graph": {"answer": "label", "ort_format": True},
            "baseline": True,
        },
        ("int8-of-4-bits", "int8-of-3-bits", "int8-embeddings-of-4-bits"),
        sizes=LARGE_WORDS,
    ),
    "telling texts of a tagger of one layer with sparse attention": Combination(
        "token-classification",
        "big_bird",
        {
            "student": {"count": 1},
            "data": {"unlabelled": UNLABELLED, "unlabelled_kept": "telling"},
            "graph": {"answer": "probabilities"},
            "losses": {"cosine": {"from": 1.0, "to": 0.0}},
        },
        ("int8", "fp16"),
    ),
    "classes of a MobileBERT for NNAPI": Combination(
        "sequence-classification",
        "mobilebert",
        {
            "student": {"layers": [0, 3]},
            "graph": {"inputs": "int32", "length": 16, "answer": "label"},
            "losses": {"class_weights": {"positive": 2.0}},
        },
        ("int8-static",),
        like="android-nnapi",
    ),
    "a classifier, searched, narrow, trimmed, packed after": Combination(
        "sequence-classification",
        "distilbert",
        {
            "student": {
                "layers": "search",
                "intermediate_size": 48,
                "packed_words": "after",
            },
            "data": {"unlabelled": UNLABELLED},
            "graph": {"ort_format": True, "answer": "probabilities"},
        },
        ("int8-of-4-bits-reduced-range", "int8-of-3-bits-reduced-range", "int8-reduced-range"),
        like="web-wasm",
        sizes={**LARGE_WORDS, "dim": 64},
    ),
    "vectors found by structure": Combination(
        "sentence-embeddings",
        "roformer",
        {
            "data": {"columns": {"text": "one", "pair": "other", "label": None}},
            "training": {"batch_size": 8, "rows_at_once": 3, "learning_rate": 0.001},
            "graph": {"length": 24},
        },
        ("int8-static-entropy", "int8"),
    ),
    "spans of rotary positions, fixed": Combination(
        "question-answering",
        "modernbert",
        {
            "student": {"layers": "spread", "count": 3},
            "graph": {"answer": "span", "length": 32, "inputs": "int32"},
            "training": {"unlabelled": "first"},
        },
        ("fp16", "int8-reduced-range"),
    ),
    "choices of a narrow RoBERTa": Combination(
        "multiple-choice",
        "roberta",
        {
            "student": {"hidden_size": 24, "heads": 3, "vocabulary": "auto"},
            "graph": {"answer": "label", "ort_format": True},
            "baseline": True,
        },
        ("int8", "int8-embeddings-8-bits"),
    ),
    "a score of disentangled attention": Combination(
        "regression",
        "deberta-v2",
        {
            "student": {"layers": "search", "vocabulary": "auto"},
            "graph": {"ort_format": True, "inputs": "int32"},
            "training": {"precision": "auto", "epochs": 2},
        },
        ("int8-fused-reduced-range", "weights-4-bits"),
    ),
    "spans by fewer tokens": Combination(
        "question-answering",
        "bert",
        {
            "student": {"vocabulary": "auto", "layers": "bottom"},
            "data": {"unlabelled": UNLABELLED},
            "losses": {"task": {"from": 0.0, "to": 2.0}, "relation": 0.5},
            "graph": {"answer": "span", "inputs": "int32"},
        },
        ("int8-of-4-bits", "int8-fused"),
    ),
    "spans of texts that fewer tokens cut in more windows": Combination(
        "question-answering",
        "bert",
        {"student": {"vocabulary": 60}, "graph": {"length": 16}},
        ("int8", "int8-static"),
    ),
    "tags of texts that fewer tokens cut sooner": Combination(
        "token-classification",
        "bert",
        {"student": {"vocabulary": 60}, "data": {"max_length": 7}},
        ("int8", "int8-static"),
        cut=True,
    ),
    "vectors by packed words": Combination(
        "sentence-embeddings",
        "xlm-roberta",
        {
            "student": {"packed_words": "after", "layers": "top", "vocabulary": "auto"},
            "data": {"unlabelled": UNLABELLED, "augment": 1},
            "losses": {"hidden_layers": "uniform", "cosine": 0.0, "hidden": 1.0},
            "graph": {"ort_format": True, "length": 16},
        },
        ("int8-of-3-bits-reduced-range", "int8-embeddings-of-4-bits-reduced-range"),
        like="web-wasm",
        sizes=LARGE_WORDS,
    ),
    "several labels of a narrow ELECTRA, packed after": Combination(
        "multi-label-classification",
        "electra",
        {
            "student": {"hidden_size": 48, "heads": 3, "packed_words": "after"},
            "data": {"unlabelled": UNLABELLED},
            "training": {"unlabelled": "first", "patience": 1},
            "baseline": True,
        },
        ("int8-of-4-bits-reduced-range", "weights-4-bits"),
        sizes={**LARGE_WORDS, "embedding_size": 80},
    ),
    "words of a masked text with sparse attention": Combination(
        "masked-language-modelling",
        "big_bird",
        {
            "student": {"layers": "search"},
            "losses": {"attention": 0.5, "hidden_layers": [2, 4]},
            "baseline": True,
        },
        ("int8-embeddings-8-bits", "fp16"),
    ),
}
IN_CI = {
    "spans of a narrow ELECTRA",
    "telling texts of a tagger of one layer with sparse attention",
}


@pytest.fixture
def combination(request: pytest.FixtureRequest) -> Combination:
    asked = request.param
    return draw(asked) if isinstance(asked, int) else COMBINATIONS[asked]


@pytest.fixture
def pipeline_file(combination: Combination, tiny_bert: Path, tmp_path: Path) -> Path:
    """A fitted teacher, its rows and text without labels, and what is asked for."""
    case = TASKS[combination.task]
    source = case.write(tmp_path / "data", train=ORDER[:120], validation=ORDER[120:])
    lines = [json.dumps({"text": f"{text} and witty"}) for text in TEXTS[:60]]
    (tmp_path / UNLABELLED).write_text("\n".join(lines))

    row = {
        "name": "kiosk",
        "like": combination.like,
        "schemes": list(combination.schemes),
        "verifiers": [],
    }
    document: dict[str, Any] = {
        "name": "seldom",
        "teacher": {"source": "teacher"},
        "data": {"source": "data", "max_length": MAX_LENGTH, "augment": 0, "columns": case.columns},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.002, "precision": "fp32"},
        "targets": [row, "web-wasm"] if combination.like != "web-wasm" else [row],
        "gate": {"retention": 0.0, "quantization_drop": 1.0},
    }
    for key, value in combination.asked.items():
        document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
    _fit_teacher(combination, source, tiny_bert, tmp_path)
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def _fit_teacher(
    combination: Combination, source: DataSource, tiny_bert: Path, folder: Path
) -> None:
    case, other = TASKS[combination.task], OTHER_TOKENIZERS.get(combination.tokenizer)
    tokenizer = other() if other else load_tokenizer(tiny_bert)
    suffix, sizes = case.head.architecture_suffix, {**case.config, **combination.sizes}
    start = save_small(combination.family, suffix, tokenizer, folder / "start", **sizes)
    splits = read_dataset(source, case.head, seed=0)
    tokenize(splits, case.head, load_tokenizer(start), MAX_LENGTH, folder / "teacher-rows")
    rows = open_tokenized(folder / "teacher-rows")
    settings = TrainingSettings(epochs=6, batch_size=16, learning_rate=0.005, precision="fp32")
    work = Job(rows["train"], rows["validation"], case.head, LossWeights(), settings)
    save_model(
        distill(load_model(start), None, work, listen=lambda record: None).model,
        start,
        folder / "teacher",
    )


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(name, id=name, marks=() if name in IN_CI else pytest.mark.slow)
        for name in COMBINATIONS
    ],
    indirect=True,
)
def test_what_is_seldom_asked_for_together_is_made_as_planned(
    combination: Combination, pipeline_file: Path, run_cli, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    plan = run_cli.json("check", pipeline_file)
    report = run_cli.json("run", pipeline_file, "--output", output)
    assert report["passed"]
    if combination.asked.get("student", {}).get("vocabulary") is None:
        assert report["student"]["parameters"] == plan["student"]["parameters"]
    stops_early = "patience" in combination.asked.get("training", {})
    if not (stops_early or TASKS[combination.task].head.has_windows):
        assert report["training"]["steps"] == plan["steps"]
    assert any("behind data.max_length" in note for note in report["notes"]) == combination.cut
    for artifact in report["artifacts"]:
        assert run_cli.json("verify", output / "bundles" / artifact["target"])["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("combination", range(16), indirect=True)
def test_what_check_accepts_is_made_and_what_it_refuses_is_not_begun(
    combination: Combination, pipeline_file: Path, run_cli, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    checked = run_cli.end("check", pipeline_file)
    done = run_cli.end("run", pipeline_file, "--output", output, "--json")
    if checked.returncode == 2:
        assert (done.returncode, done.stderr) == (2, checked.stderr)
        return
    assert checked.returncode == 0, checked.stderr
    if done.returncode == 1:
        assert "seldom: the gate said no, nothing was published" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for artifact in report["artifacts"]:
        assert run_cli.json("verify", output / "bundles" / artifact["target"])["passed"]
    assert run_cli.json("run", pipeline_file, "--output", output) == report
