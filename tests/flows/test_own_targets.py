"""Rows of one's own and execution providers, by the command line, from the pipeline file to the bundle."""

import json
import shutil

import pytest

pytestmark = pytest.mark.integration

KIOSK = {
    "name": "kiosk",
    "like": "linux-x86-64",
    "schemes": ["int8-reduced-range", "fp16"],
    "verifiers": [],
    "max_mb": 12,
}
QNN = {"name": "npu", "like": "android-qnn", "verifiers": []}


@pytest.fixture(scope="module")
def output(finished_run):
    return finished_run.copy("own")


@pytest.fixture(scope="module")
def command(finished_run):
    """The finished run, again, for a row of one's own and for a target with an execution provider."""
    targets = f"targets={json.dumps([KIOSK, QNN])}"
    settings = (targets, "gate.quantization_drop=0.9", "gate.max_ms={kiosk: 1000}")
    sets = [part for setting in settings for part in ("--set", setting)]
    return "run", finished_run.desk.pipeline_file, *sets


@pytest.fixture(scope="module")
def own(run_cli, command, output):
    """Its report, and what it printed."""
    printed = run_cli(*command, "--output", output).stdout
    return json.loads((output / "report.json").read_text()), printed


def test_a_row_of_ones_own_gets_a_bundle_of_its_schemes(own, output):
    report, printed = own
    kiosk = report["artifacts"][0]
    assert kiosk["target"] == "kiosk"
    assert [entry["scheme"] for entry in kiosk["candidates"]] == KIOSK["schemes"]
    assert kiosk["operator_coverage"] is None
    manifest = json.loads((output / "bundles" / "kiosk" / "manifest.json").read_text())
    assert (manifest["target"], manifest["runtime"]) == ("kiosk", "onnxruntime")
    assert report["gate"]["limits"]["max_mb"] == {"kiosk": 12}
    assert "kiosk" in printed


def test_the_report_tells_what_a_provider_takes(own):
    report, _ = own
    artifact = report["artifacts"][1]
    assert artifact["scheme"] == "int8-static"
    found = artifact["operator_coverage"]
    assert (found["provider"], found["tokens"]) == ("QNN", 32)
    assert found["fixed_shapes"]["taken"] > found["dynamic_shapes"]["taken"]
    assert any(note.startswith("npu: QNN takes ") for note in report["notes"])


@pytest.mark.slow
def test_a_limit_of_a_row_is_one_of_the_gate(own, run_cli, command, output):
    tight = json.dumps([{**KIOSK, "max_mb": 0.001}, QNN])
    done = run_cli(*command, "--output", output, "--set", f"targets={tight}", code=1)
    assert "kiosk: max_mb: " in done.stderr


@pytest.mark.slow
def test_a_file_that_an_apps_shape_would_make_too_large_is_not_chosen(
    own, run_cli, command, output
):
    """fp16 is nearer to the student, and within the limit until its answers become probabilities."""
    report, _ = own
    _, near = report["artifacts"][0]["candidates"]
    limit = (near["bytes"] + 100) / 1e6
    again = shutil.copytree(output, output.with_name("own-shaped"))
    targets = json.dumps([{**KIOSK, "schemes": ["all-4-bits", "fp16"], "max_mb": limit}])
    shape = "graph={inputs: int32, answer: probabilities}"
    run_cli(*command, "--output", again, "--set", f"targets={targets}", "--set", shape)
    artifact = json.loads((again / "report.json").read_text())["artifacts"][0]
    assert artifact["scheme"] == "all-4-bits"
    assert artifact["candidates"][1]["verdict"].startswith("kiosk: max_mb: ")


@pytest.mark.slow
def test_json_is_all_that_is_printed_where_a_file_is_calibrated(
    own, run_cli, command, output, finished_run
):
    report, _ = own
    mine = _artifacts(output) - _artifacts(finished_run.output)
    again = shutil.copytree(output, output.with_name("own-as-json"))
    for name in _artifacts(again):
        shutil.rmtree(again / "stages" / name)
    assert run_cli.json(*command, "--output", again)["name"] == report["name"]
    assert _artifacts(again) == mine


def _artifacts(output):
    return {path.name for path in (output / "stages").glob("artifact-*")}


def test_the_table_of_targets_tells_the_provider(lone_cli):
    rows = {row["name"]: row for row in lone_cli.json("targets")}
    assert rows["android-arm64"]["provider"] is None
    assert rows["ios-coreml"]["provider"] == "CoreML"
    assert "not measured" in lone_cli("targets", COLUMNS="200").stdout


def test_a_wrong_row_is_wrong_input(lone_cli, desk):
    desk.document["targets"] = [{**KIOSK, "like": "linux"}]
    error = lone_cli("check", desk.write(), code=2).stderr
    assert "targets.0: like: there is no target 'linux'; accepted: android-arm64" in error
