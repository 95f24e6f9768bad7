"""The commands as a user types them."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from distill_core.targets import TARGETS
from distill_core.teacher import load_tokenizer
from tests.core.family_models import save_small

pytestmark = pytest.mark.integration

COMMANDS = [
    "run",
    "check",
    "demo",
    "serve",
    "watch",
    "verify",
    "benchmark",
    "report",
    "targets",
]
HEAVY = {"torch", "transformers", "datasets", "prefect", "mlflow", "onnxruntime", "optimum"}


def _imported(run_cli, *arguments):
    """Run the command, and return the packages that it imported."""
    script = shutil.which("distill-deploy", path=sys.exec_prefix + "/bin")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", script, *map(str, arguments)],
        env=run_cli.environment,
        cwd=run_cli.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE))


def test_help_lists_the_commands_that_there_are_and_no_stub(lone_cli):
    listed = lone_cli("--help").stdout.partition("Commands:")[2]
    assert re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE) == COMMANDS


def test_help_imports_no_heavy_library(lone_cli):
    assert _imported(lone_cli, "--help") & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(lone_cli, command):
    assert f"Usage: distill-deploy {command}" in lone_cli(command, "--help").stdout


def test_unknown_command_and_option_are_wrong_input(lone_cli):
    assert "No such command 'sweep'" in lone_cli("sweep", "x.yaml", code=2).stderr
    assert "No such option: --layers" in lone_cli("run", "x.yaml", "--layers", "3", code=2).stderr


def test_targets_are_the_rows_of_the_table(lone_cli):
    printed = lone_cli("targets").stdout
    assert [name for name in TARGETS if name not in printed] == []
    rows = lone_cli.json("targets")
    assert [row["name"] for row in rows] == list(TARGETS)
    assert {"runtime", "instruction_set", "schemes"} <= set(rows[0])


def test_check_prints_the_plan_and_leaves_nothing(lone_cli, desk):
    before = sorted(desk.folder.rglob("*"))
    printed = lone_cli("check", desk.pipeline_file, "--set", "training.max_steps=7").stdout
    for words in ("layers [0, 2]", "120 train, 30 validation", "training 7 steps", "ios-arm64"):
        assert words in printed
    assert sorted(desk.folder.rglob("*")) == before


def test_check_gives_the_plan_as_json(lone_cli, desk):
    plan = lone_cli.json("check", desk.pipeline_file, "--set", "student.layers=top")
    assert plan["student"]["layers"] == [2, 3]
    assert plan["data"]["rows"] == {"train": 120, "validation": 30}
    assert plan["teacher"]["labels"] == ["negative", "positive"]
    assert [target["target"] for target in plan["targets"]] == ["android-arm64", "ios-arm64"]


def test_the_plan_counts_the_steps_of_texts_with_other_words(lone_cli, desk):
    plan = lone_cli.json("check", desk.pipeline_file, "--set", "data.augment=auto")
    # 120 rows in sixteens, four times, and two copies of them once.
    assert plan["steps"] == 4 * 8 + 15
    assert "train: 2 copies of each text" in plan["data"]["notes"][-1]


def test_check_reads_the_tokenizer_of_a_teacher_whose_file_is_to_find_spans(
    lone_cli, tiny_teacher, tmp_path
):
    tokenizer = load_tokenizer(tiny_teacher)
    save_small("bert", "ForQuestionAnswering", tokenizer, tmp_path / "teacher")
    answers = {"text": ["the film"], "answer_start": [0]}
    rows = [
        {"question": "what was good", "context": f"the film was good {n}", "answers": answers}
        for n in range(30)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    document = {
        "name": "spans",
        "teacher": {"source": "teacher"},
        "data": {"source": "data", "max_length": 32},
        "graph": {"answer": "span"},
    }
    (tmp_path / "spans.yaml").write_text(json.dumps(document))
    plan = lone_cli.json("check", tmp_path / "spans.yaml")
    assert plan["teacher"]["task"] == "question-answering"


def test_check_needs_neither_torch_nor_a_server(lone_cli, desk):
    imported = _imported(lone_cli, "check", desk.pipeline_file)
    assert imported & {"torch", "transformers", "prefect", "mlflow", "onnxruntime"} == set()


def test_paths_in_the_file_are_relative_to_the_file(lone_cli, desk):
    assert lone_cli.folder != desk.folder
    assert lone_cli.json("check", desk.pipeline_file)["teacher"]["source"] == str(desk.teacher)


def test_run_prints_the_verdict_and_a_line_for_each_target(finished_run):
    printed = finished_run.printed
    assert "tiny: passed" in printed
    assert "retention" in printed
    targets = ["android-arm64", "ios-arm64"]
    assert re.findall(r"│ (android-arm64|ios-arm64) ", printed) == targets
    assert re.findall(r"(android-arm64|ios-arm64) verified on", printed) == targets
    assert finished_run.report["mlflow_run_id"] in printed


def test_verify_finds_a_published_bundle_right(lone_cli, finished_run):
    bundle = finished_run.output / "bundles" / "ios-arm64"
    assert "every file is what was published" in lone_cli("verify", bundle).stdout
    facts = lone_cli.json("verify", bundle)
    assert facts["passed"]
    assert facts["problems"] == []
    assert facts["golden_examples"] > 12


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("onnx/model_quantized.onnx", "sha256 differs"),
        ("tokenizer.json", "is missing"),
        ("stowaway.bin", "is not in the manifest"),
    ],
)
def test_verify_names_the_file_that_is_not_what_was_published(
    lone_cli, finished_run, tmp_path, name, problem
):
    bundle = shutil.copytree(finished_run.output / "bundles" / "ios-arm64", tmp_path / "bundle")
    file = bundle / name
    if problem == "is missing":
        file.unlink()
    elif file.exists():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(b"?")
    done = lone_cli("verify", bundle, "--json", code=1)
    assert not json.loads(done.stdout)["passed"]
    assert f"{name}: " in done.stderr
    assert problem in done.stderr


def test_benchmark_times_the_artifact_beside_its_fp32_file(lone_cli, finished_run):
    bundle = finished_run.output / "bundles" / "ios-arm64"
    figures = lone_cli.json("benchmark", bundle)
    assert [row["file"] for row in figures["files"]] == ["int8", "fp32"]
    for row in figures["files"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert min(row["load_ms"], row["peak_rss_mb"], row["bytes"]) > 0


def test_report_prints_what_the_run_printed_and_draws_the_page_anew(
    lone_cli, finished_run, tmp_path
):
    output = shutil.copytree(finished_run.output, tmp_path / "tiny")
    page = (output / "report.html").read_text()
    (output / "report.html").unlink()
    assert lone_cli("report", output).stdout == finished_run.printed
    assert (output / "report.html").read_text() == page
    assert lone_cli.json("report", output) == finished_run.report


@pytest.mark.parametrize("command", ["verify", "benchmark", "report"])
def test_folder_of_something_else_is_wrong_input(lone_cli, desk, command):
    assert "accepted: " in lone_cli(command, desk.data, code=2).stderr
