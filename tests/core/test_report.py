"""The page of a run, read as a browser and as its readers would."""

import copy
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distill_core.report import advice, confused_pairs, render_html, write_html

CONTRACT_KEYS = (
    "name", "passed", "gate", "main_metric", "teacher", "student", "retention", "agreement",
    "artifacts", "timings_s", "mlflow_run_id", "versions",
)  # fmt: skip
VOID_TAGS = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


class Balance(HTMLParser):
    """Tags that are open, ids, and text, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, in one line."""
        return re.sub(r"\s+", " ", " ".join(self.words))


def text_of(page: str) -> str:
    return Balance(page).text


def example_report(classes: int = 2) -> dict[str, Any]:
    """All that a run may report, with plausible figures."""
    draws = random.Random(0)
    labels = ["negative", "positive"] if classes == 2 else [f"intent_{i}" for i in range(classes)]
    confusion = [
        [round(320 / classes) if i == j else draws.choice([0, 0, 0, 1, 3]) for j in range(classes)]
        for i in range(classes)
    ]
    return {
        "schema_version": 1,
        "name": "reviews",
        "passed": True,
        "gate": {
            "limits": {
                "retention": 0.97,
                "quantization_drop": 0.01,
                "max_mb": {"android-arm64": 80.0},
                "max_ms": {},
            },
            "failures": [],
        },
        "main_metric": "accuracy",
        "evaluation_split": "validation",
        "evaluation_rows": 872,
        "notes": ["There is no test split: 872 rows of the validation split judged the models."],
        "teacher": {
            "source": "textattack/bert-base-uncased-SST-2",
            "revision": "95f0f6f859b35c8ff0863ae3cd4e2dbc702c0ae2",
            "fingerprint": "3f" * 32,
            "architecture": "BertForSequenceClassification",
            "model_type": "bert",
            "layers": 12,
            "parameters": 109_483_778,
            "bytes": 437_935_112,
            "metrics": {"accuracy": 0.9243, "f1_macro": 0.9241},
        },
        "student": {
            "layers": [0, 2, 4, 6, 8, 10],
            "parameters": 66_955_010,
            "bytes": 267_820_040,
            "metrics": {"accuracy": 0.9106, "f1_macro": 0.9101},
        },
        "retention": 0.9852,
        "agreement": 0.9564,
        "difference": {"difference": -0.0137, "low": -0.0264, "high": -0.0011},
        "per_class": [
            {"label": label, "precision": 0.9, "recall": 0.91, "f1": draws.uniform(0.7, 0.99), "rows": 9}
            for label in labels
        ],
        "confusion": confusion,
        "labels": labels,
        "training": {
            "steps": 6315,
            "epochs": [
                {
                    "epoch": epoch,
                    "step": 2105 * epoch,
                    "metrics": {"accuracy": accuracy, "f1_macro": accuracy - 0.0005},
                    "best": epoch < 3,
                }
                for epoch, accuracy in ((1, 0.902), (2, 0.9106), (3, 0.9083))
            ],
            "best_epoch": 2,
            "precision": "bf16",
            "step_ms": {"fp32, sdpa attention": 1420.0, "bf16, sdpa attention": 812.0},
            "training_s": 5127.6,
            "learning_rate": 5e-5,
        },
        "losses": {"distillation": 5.0, "task": 2.0, "cosine": 1.0, "temperature": 2.0},
        "artifacts": [
            example_artifact("android-arm64", "int8-per-channel", 0.9829, 22.1),
            example_artifact("web-wasm", "int8-per-channel-reduced-range", 0.9804, 24.6),
        ],
        "benchmark": {
            "machine": "Intel(R) Xeon(R) Platinum 8481C (x86_64)",
            "threads": 1,
            "rounds": 3,
            "texts": 40,
            "spread": 0.021,
        },
        "timings_s": {
            "fetch": 12.4, "init": 3.1, "distil": 5127.6, "evaluate": 48.2, "export": 31.0,
            "quantize": 22.7, "benchmark": 97.3, "verify": 8.8, "publish": 4.2,
        },
        "mlflow_run_id": "b1946ac92492d2347c6235b4d2611184",
        "tracking_uri": "https://ana:hunter2@mlflow.example.org/",
        "versions": {
            "python": "3.11.2", "distill-deploy": "0.1.0", "torch": "2.13.0",
            "transformers": "4.57.1", "onnxruntime": "1.23.2",
        },
        "pipeline": {
            "name": "reviews",
            "teacher": {"source": "textattack/bert-base-uncased-SST-2", "revision": None},
            "data": {"source": "data/sst2", "max_length": 128},
            "student": {"layers": "alternate", "count": None},
            "training": {"epochs": 3, "batch_size": 32, "learning_rate": "auto", "seed": 0},
            "targets": ("android-arm64", "web-wasm"),
        },
    }  # fmt: skip


def example_candidate(scheme: str, size_bytes: int, verdict: str) -> dict[str, Any]:
    return {
        "scheme": scheme,
        "key": "0" * 64,
        "drop": 0.002,
        "flips": 0.011,
        "bytes": size_bytes,
        "p50_ms": 10.4,
        "load_ms": 212.0,
        "peak_rss_mb": 311.0,
        "verdict": verdict,
    }


def example_verification(verifier: str, flips: int) -> dict[str, Any]:
    return {
        "verifier": verifier,
        "instruction_set": "armv8-a",
        "through": "qemu-aarch64 7.2.22, cortex-a53",
        "runtime": "onnxruntime 1.27.0",
        "rows": 64,
        "flips": flips,
        "flips_from_native": 0,
        "largest_difference": 0.02134,
        "other_token_ids": None,
    }


def example_artifact(target: str, scheme: str, retention: float, p50: float) -> dict[str, Any]:
    return {
        "target": target,
        "file": f"bundles/{target}/onnx/model_quantized.onnx",
        "scheme": scheme,
        "bytes": 67_446_120,
        "sha256": "ab" * 32,
        "metrics": {"accuracy": 0.9243 * retention, "f1_macro": 0.9241 * retention},
        "retention": retention,
        "agreement": 0.953,
        "drop": 0.002,
        "latency_ms": {"p50": p50, "p95": 1.9 * p50},
        "teacher_latency_ms": {"p50": 104.2, "p95": 171.8},
        "speedup": 104.2 / p50,
        "load_ms": 212.0,
        "teacher_load_ms": 841.0,
        "peak_rss_mb": 311.0,
        "teacher_peak_rss_mb": 1240.0,
        "verified_on": ["linux-x86_64 onnxruntime 1.23.2"],
        "verifications": [example_verification("arm64-no-dotprod", 3)],
        "verifiers_missing": ["arm64-dotprod"],
        "fp32_left": [{"operator": "LayerNormalization", "nodes": 7, "mb": 0.0216}],
        "candidates": [
            example_candidate(scheme, 67_446_120, "chosen"),
            example_candidate("int8-of-4-bits", 41_446_120, "takes 1.80 times as long as int8"),
        ],
    }


def example_steps(count: int) -> list[dict[str, Any]]:
    """Falling, noisy losses."""
    draws = random.Random(0)
    steps = []
    for number in range(1, count + 1):
        fall = math.exp(-5 * number / count)
        distillation = 0.9 + 1.8 * fall + draws.gauss(0, 0.12)
        task = 0.12 + 0.5 * fall + draws.gauss(0, 0.05)
        cosine = 0.05 + 0.4 * fall + draws.gauss(0, 0.01)
        steps.append(
            {
                "step": number,
                "epoch": 3 * number / count,
                "losses": {"distillation": distillation, "task": task, "cosine": cosine},
                "total": 5 * distillation + 2 * task + cosine,
                "learning_rate": 5e-5 * min(10 * number / count, (1 - number / count) / 0.9),
                "rows_per_s": 38.0,
            }
        )
    return steps


def failed_report() -> dict[str, Any]:
    report = example_report()
    report["passed"] = False
    report["artifacts"][1]["retention"] = 0.931
    report["gate"]["failures"] = [
        "retention: web-wasm keeps 0.931 of the teacher's accuracy, the gate asks for 0.97",
        "max_mb: android-arm64 is 67.4 MB, the gate allows 40 MB",
    ]
    return report


def test_verdict_of_a_passed_run_is_a_sentence_with_what_it_keeps_and_saves() -> None:
    text = text_of(render_html(example_report(), example_steps(50)))
    assert "✓ Passed" in text
    # The least favourable artifact is web-wasm: 104.2 ms / 24.6 ms, 437.9 MB / 67.4 MB.
    assert (
        "The student keeps 98.0% of the teacher’s accuracy at about 1/6 of its size "
        "and 4.2× its speed."
    ) in text


def test_verdict_of_a_failed_run_lists_each_failure_with_what_to_do() -> None:
    text = text_of(render_html(failed_report(), []))
    assert "✕ Failed" in text
    assert "missed 2 of its limits" in text
    for failure in failed_report()["gate"]["failures"]:
        assert failure in text
    assert "student.count" in text
    assert "raise gate.max_mb" in text


def test_a_student_that_was_searched_for_or_is_narrower_is_shown_as_one() -> None:
    report = example_report()
    plain = text_of(render_html(report, []))
    assert "Which layers were tried" not in plain
    assert "Width" not in plain
    report["student"]["width"] = {
        "hidden_size": 384, "heads": 6, "intermediate_size": 1536, "embedding_size": 384,
    }  # fmt: skip
    tried = {"layers": [0, 1, 5], "rule": "", "steps": 100, "distance": 0.194, "agreement": 0.946}
    other = {"layers": [0, 2, 4], "rule": "alternate", "steps": 25, "distance": 0.473}
    report["student"]["search"] = [
        {**tried, "chosen": True},
        {**other, "agreement": 0.876, "chosen": False},
    ]
    text = text_of(render_html(report, []))
    assert "Width 384, 6 heads, 1536 neurons a layer" in text
    assert "0, 1, 5 ✓ 100 0.194 94.6% 0, 2, 4 alternate 25 0.473 87.6%" in text


@pytest.mark.parametrize(
    "key", ["retention", "quantization_drop", "quantization_flips", "max_mb", "max_ms"]
)
def test_each_limit_of_the_gate_has_an_advice_that_names_it(key: str) -> None:
    assert f"gate.{key}" in advice(f"{key}: too much")


def test_failure_of_an_unknown_kind_still_says_what_to_do() -> None:
    assert "run again" in advice("something else")


@pytest.mark.parametrize("name", ["android-arm64", "web-wasm", "Teacher", "Student"])
def test_every_model_has_a_row(name: str) -> None:
    page = render_html(example_report(), [])
    assert f'<tr><th scope="row">{name} <small>' in page


def test_what_was_tried_is_shown_with_why_it_is_not_shipped() -> None:
    page = render_html(example_report(), example_steps(20))
    assert "What was tried" in page
    assert "takes 1.80 times as long as int8" in page
    assert "int8-per-channel: 67.4 MB, 1.1% (chosen); int8-of-4-bits: 41.4 MB, 1.1%;" in page


def test_places_are_shown_with_what_is_answered_otherwise_there_and_which_were_lacking() -> None:
    page = render_html(example_report(), example_steps(20))
    row = page.split('<section id="places">')[1].split("<tbody>")[1].split("</tr>")[0]
    assert "arm64-no-dotprod" in row
    assert '<td class="strong">3</td>' in row
    assert "was not verified on arm64-dotprod" in page


def test_page_asks_for_nothing_from_elsewhere() -> None:
    page = render_html(example_report(), example_steps(100))
    addresses = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    addresses += re.findall(r"url\(\s*[\"']?([^)\"']+)", page)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in page
    assert "<script" not in page


def test_labels_and_names_are_text_and_not_markup() -> None:
    report = example_report()
    attack = "<script>alert(1)</script>\"'"
    report["labels"][0] = report["per_class"][0]["label"] = report["notes"][0] = attack
    report["teacher"]["source"] = report["pipeline"]["name"] = attack
    report["gate"]["failures"] = [attack]
    page = render_html(report, [])
    assert "<script" not in page
    assert text_of(page).count(attack) >= 5


def test_metric_names_are_text_where_the_charts_name_them() -> None:
    report = example_report()
    report["main_metric"] = name = 'a"><script>'
    for holder in (
        report["teacher"],
        report["student"],
        *report["artifacts"],
        *report["training"]["epochs"],
    ):
        holder["metrics"] = {name: 0.9}
    assert "<script" not in render_html(report, example_steps(5))


def test_contract_keys_alone_are_enough() -> None:
    report = {key: value for key, value in example_report().items() if key in CONTRACT_KEYS}
    report["gate"] = {"failures": []}
    report["teacher"] = {
        key: report["teacher"][key]
        for key in ("source", "fingerprint", "parameters", "bytes", "metrics")
    }
    report["student"] = {key: report["student"][key] for key in ("layers", "parameters", "metrics")}
    text = text_of(render_html(report, []))
    assert "98.0%" in text
    assert "Undefined" not in text and "None" not in text


@pytest.mark.parametrize("key", sorted(set(example_report()) - set(CONTRACT_KEYS)))
def test_each_optional_key_may_be_absent_or_null(key: str) -> None:
    report = example_report()
    report[key] = None
    page = render_html(report, [])
    assert Balance(page).open == []
    del report[key]
    assert render_html(report, []) == page


def test_run_without_artifacts_is_judged_by_its_student() -> None:
    report = example_report() | {"artifacts": []}
    text = text_of(render_html(report, []))
    assert "The student keeps 98.5% of the teacher’s accuracy at about 1/2 of its size." in text


@pytest.mark.parametrize("latency", [{}, None, {"p50": None, "p95": None}])
def test_artifacts_that_were_not_timed_are_shown_without_times(latency: object) -> None:
    report = example_report()
    for artifact in report["artifacts"]:
        artifact |= {"latency_ms": latency, "teacher_latency_ms": latency, "speedup": None}
    text = text_of(render_html(report, []))
    assert "about 1/6 of its size." in text
    assert "p95" not in text and "its speed" not in text


def test_same_report_gives_the_same_bytes_and_is_not_changed() -> None:
    report, steps = example_report(), example_steps(300)
    before = copy.deepcopy((report, steps))
    assert render_html(report, steps) == render_html(report, steps)
    assert (report, steps) == before


def test_long_training_with_many_classes_stays_small() -> None:
    page = render_html(example_report(classes=151), example_steps(10_000))
    assert len(page.encode()) < 400_000
    assert text_of(page).count("intent_") >= 151


@pytest.mark.parametrize("classes", [2, 9, 20, 21])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_page_is_balanced_and_no_id_stands_twice(classes: int, steps: int) -> None:
    page = Balance(render_html(example_report(classes), example_steps(steps)))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_confusion_matrix_of_many_classes_becomes_its_worst_pairs() -> None:
    labels = [f"class {i}" for i in range(21)]
    confusion = [[90 if i == j else 0 for j in range(21)] for i in range(21)]
    confusion[3][5], confusion[7][1] = 10, 30
    report = example_report() | {"labels": labels, "confusion": confusion}
    assert confused_pairs(report) == [
        {"label": "class 7", "answer": "class 1", "rows": 30, "share": 0.25},
        {"label": "class 3", "answer": "class 5", "rows": 10, "share": 0.1},
    ]
    page = render_html(report, [])
    assert "most often taken for another" in page
    assert 'class="heat"' not in page


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ({}, "Total loss = 5 × distillation + 2 × task + 1 × cosine, at temperature 2."),
        ({"soft": "mse"}, "Total loss = 5 × distillation + 2 × task + 1 × cosine."),
        (
            {"cosine": 0.0, "relation": 0.5},
            "Total loss = 5 × distillation + 2 × task + 0.5 × relation, at temperature 2.",
        ),
        (
            {"task": {"from": 0.0, "to": 2.0}, "distillation": 0.0},
            "Total loss = (0 to 2) × task + 1 × cosine.",
        ),
    ],
)
def test_page_says_what_the_total_loss_is_the_sum_of(losses: dict[str, Any], says: str) -> None:
    report = example_report()
    report["losses"] |= losses
    assert says in text_of(render_html(report, example_steps(5)))


def test_passwords_in_addresses_are_hidden() -> None:
    report = example_report()
    report["pipeline"]["tracking"] = {"uri": report["tracking_uri"]}
    page = render_html(report, [])
    assert "hunter2" not in page
    assert "***@mlflow.example.org" in page


def test_written_page_is_the_rendered_page(tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    write_html(example_report(), example_steps(10), path)
    assert path.read_text(encoding="utf-8") == render_html(example_report(), example_steps(10))
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
