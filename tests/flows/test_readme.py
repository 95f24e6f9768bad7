"""Every command that the README prints, run as it is printed; long ones in a short slice."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from tests.conftest import PATIENCE_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
SHARED = ROOT.parent / "shared"
PLACES = (
    "{like: android-arm64, name: phone, schemes: [int8], verifiers: [arm64-dotprod]}",
    "{like: web-wasm, name: page, schemes: [int8], verifiers: [chromium-wasm]}",
)
SHORTER = (
    "data.augment=0",
    "training.max_steps=40",
    "gate.retention=0.6",
    f"targets=[{', '.join(PLACES)}]",
)
SLICE = tuple(part for setting in SHORTER for part in ("--set", setting))
"""Less than a hundredth of the training, two of five targets with one of their eight schemes, in two of nine
places: enough to see every stage work, not to reach the gate."""
ROWS = {"train": 4_000, "validation": 400}
"""Of SST-2, in such a run."""
RIGHT = 366
"""Of those validation rows, by plain transformers; of all 872 the 790 that the teacher's page tells."""
PACKED = ("--set", "student.packed_words=after", "--set", "targets=[android-arm64, web-wasm]")
"""Codebooks of real embeddings and matrices, which take minutes."""

needs_real_inputs = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real teacher and SST-2 are not at hand (../shared)"
)


def _printed_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(\.venv/bin/[^`]+|make [a-z-]+)`", README)
    return sorted({re.sub(r"\s+", " ", command) for command in [*lines, *inline] if command})


def _run(*command, cwd=ROOT):
    # One thread, as all tests: another runs beside it, and two that wait for each other take longer than one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def sst2_run(tmp_path_factory):
    """The README's run in a short slice, as report.json and its folder."""
    output = tmp_path_factory.mktemp("runs") / "sst2"
    rows = ("--set", f"data.source={_first_rows(tmp_path_factory.mktemp('rows'))}")
    command = (BIN / "distill-deploy", "run", "deploy/pipelines/sst2.yaml", *SLICE, *rows)
    done = _run(*command, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), output, command


def _first_rows(folder: Path) -> Path:
    for split, rows in ROWS.items():
        file = f"{split}.parquet"
        pq.write_table(pq.read_table(SHARED / "data" / "sst2" / file)[:rows], folder / file)
    return folder


def test_every_printed_command_is_run_by_a_test_of_this_file():
    assert set(_printed_commands()) <= {
        ".venv/bin/distill-deploy check deploy/pipelines/sst2.yaml",
        ".venv/bin/distill-deploy run deploy/pipelines/sst2.yaml",
        ".venv/bin/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db",
        "make bench",
        "make demo",
        "make test",
        "make up",
    }


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        ("demo", ".venv/bin/distill-deploy demo"),
        ("test", ".venv/bin/pytest"),
        ("bench", ".venv/bin/python -m tests.bench"),
        ("up", "sh deploy/up.sh"),
    ],
)
def test_make_targets_install_first_and_then_run_what_tests_run_too(target, recipe):
    done = _run("make", "--dry-run", "--always-make", target)
    lines = done.stdout.splitlines()
    install = next(n for n, line in enumerate(lines) if "-r requirements.lock" in line)
    assert any(recipe in line for line in lines[install:]), done.stdout


@needs_real_inputs
@pytest.mark.integration
def test_check_prints_the_plan_of_the_real_pipeline():
    done = _run(BIN / "distill-deploy", "check", "deploy/pipelines/sst2.yaml")
    assert done.returncode == 0, done.stderr
    assert "layers [0, 2, 4]" in done.stdout
    assert "66983 train, 872 validation" in done.stdout


@needs_real_inputs
@pytest.mark.integration
def test_real_run_ships_every_target_small_and_close_to_the_student(sst2_run):
    report, output, _ = sst2_run
    assert report["passed"]
    assert report["teacher"]["metrics"]["accuracy"] == pytest.approx(RIGHT / ROWS["validation"])
    for artifact in report["artifacts"]:
        assert artifact["drop"] <= 0.01
        assert report["teacher"]["bytes"] / artifact["bytes"] >= 4.5
        assert (output / artifact["file"]).stat().st_size == artifact["bytes"]


@needs_real_inputs
@pytest.mark.slow
@pytest.mark.integration
def test_second_real_run_makes_nothing_anew(sst2_run):
    _, output, command = sst2_run
    weights = output / "stages"
    before = {path: path.stat().st_mtime_ns for path in weights.glob("*/stage.json")}
    assert _run(*command, "--output", output).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in weights.glob("*/stage.json")} == before


@needs_real_inputs
@pytest.mark.slow
@pytest.mark.integration
def test_real_run_with_words_packed_ships_files_a_fifteenth_of_the_teacher(sst2_run, tmp_path):
    done = _run(*sst2_run[2], *PACKED, "--output", tmp_path / "packed", "--json")
    assert done.returncode in (0, 1), (
        done.stderr
    )  # so short a training may lose what the gate allows
    report = json.loads((tmp_path / "packed" / "report.json").read_text())
    assert report["student"]["packed_words"]
    assert len(report["training"]["epochs"]) == 2  # the second when they are packed
    for artifact in report["artifacts"]:
        packed = [entry for entry in artifact["candidates"] if "int8-of-" in entry["scheme"]]
        assert len(packed) == 2
        assert all(report["teacher"]["bytes"] / entry["bytes"] >= 15 for entry in packed)


@needs_real_inputs
@pytest.mark.slow
@pytest.mark.integration
def test_mlflow_ui_opens_the_store_beside_the_runs(sst2_run):
    store = f"sqlite:///{sst2_run[1].parent / 'mlflow.db'}"
    command = [BIN / "mlflow", "ui", "--backend-store-uri", store, "--port", "5987"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            time.sleep(0.5)
            try:
                answer = httpx.post(
                    "http://127.0.0.1:5987/api/2.0/mlflow/experiments/search",
                    json={"max_results": 10},
                )
            except httpx.TransportError:
                continue
            break
        names = [experiment["name"] for experiment in answer.json()["experiments"]]
        assert "sst2" in names
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
@pytest.mark.integration
def test_make_up_starts_both_servers_and_stops_them(tmp_path):
    server = subprocess.Popen(
        ["sh", "deploy/up.sh"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DISTILL_DEPLOY_DATA": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for url in ("http://127.0.0.1:4200/api/health", "http://127.0.0.1:5000/health"):
            assert _answers(url), url
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE_S)
    assert not _answers("http://127.0.0.1:4200/api/health", tries=1)


def _answers(url: str, tries: int = 120) -> bool:
    for _ in range(tries):
        try:
            return httpx.get(url).is_success
        except httpx.TransportError:
            time.sleep(0.5)
    return False
