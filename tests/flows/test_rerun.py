"""A second run: what is made anew, and what is not; after a change, a kill, a move."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from distill_core.verifiers import wasm_timer
from tests.flows.conftest import DISTILL_DEPLOY, PHONE, free_port, running, wait_for

pytestmark = pytest.mark.integration


def _records(output):
    """Return when each finished stage was made."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in output.glob("stages/*/stage.json")
    }


def _report(output):
    return json.loads((output / "report.json").read_text())


def _named(states, name):
    return {task for task, state in states.items() if state == name}


def _working_on(output, stage):
    """Tell whether a run is making this stage at the moment."""
    return list(output.glob(f"stages/.{stage}-*.partial"))


def test_second_run_makes_nothing_anew(run_cli, prefect_server, finished_run):
    output = finished_run.copy("again")
    before, weights = _records(output), output / "student" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    report = run_cli.json("run", finished_run.desk.pipeline_file, "--output", output)
    assert report == finished_run.report
    assert _records(output) == before
    assert weights.stat().st_mtime_ns == made
    states = prefect_server.states(output)
    assert _named(states, "Completed") == {"publish", "prune stages"}
    assert len(_named(states, "Cached")) == len(states) - 2


@pytest.mark.slow
def test_embedded_prefect_server_does_where_none_is_configured(lone_cli, finished_run):
    output = finished_run.copy("embedded")
    report = lone_cli.json("run", finished_run.desk.pipeline_file, "--output", output)
    assert report == finished_run.report


def test_changed_target_redoes_only_what_depends_on_it(run_cli, prefect_server, finished_run):
    output = finished_run.copy("other-target")
    scheme = "int8-reduced-range"
    page = {"name": "page", "like": "web-wasm", "schemes": [scheme], "verifiers": []}
    targets = ("--set", f"targets={json.dumps(['android-arm64', page])}")
    report = run_cli.json("run", finished_run.desk.pipeline_file, "--output", output, *targets)
    states = prefect_server.states(output)
    assert _named(states, "Completed") == {
        "open MLflow run",
        f"quantize to {scheme}",
        "benchmark",
        "choose for android-arm64",  # its files were timed anew, beside the others
        "choose for page",
        "bundle for page",
        f"verify {scheme}",
        "report",
        "log to MLflow",
        "publish",
        "prune stages",
    }
    assert report["student"] == finished_run.report["student"]
    assert [a["scheme"] for a in report["artifacts"]] == ["int8", scheme]
    in_wasm = {
        a["target"]: [c["wasm_p50_ms"] for c in a["candidates"]] for a in report["artifacts"]
    }
    assert not any(in_wasm["android-arm64"])
    assert [time is not None for time in in_wasm["page"]] == [wasm_timer() is not None]
    assert sorted(path.name for path in (output / "bundles").iterdir()) == [
        "android-arm64",
        "page",
    ]


@pytest.fixture(scope="module")
def mlflow_server(clean_environment, tmp_path_factory):
    """The address of a real MLflow server with a store of its own."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [DISTILL_DEPLOY.with_name("mlflow"), "server", "--port", port, "--workers", 1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    files = ["--artifacts-destination", folder / "files"]
    with running([*command, *store, *files], clean_environment, f"{url}/health"):
        yield url


@pytest.mark.slow
def test_teacher_data_and_tracking_that_move_leave_the_student_as_it_is(
    run_cli, prefect_server, mlflow_server, finished_run, tmp_path
):
    output = finished_run.copy("moved")
    teacher = shutil.copytree(finished_run.desk.teacher, tmp_path / "teacher")
    data = shutil.copytree(finished_run.desk.data, tmp_path / "data")
    moved = {
        "teacher.source": teacher,
        "data.source": data,
        "tracking.uri": mlflow_server,
        "tracking.registered_model": "tiny-model",
    }
    settings = [part for key, value in moved.items() for part in ("--set", f"{key}={value}")]
    report = run_cli.json("run", finished_run.desk.pipeline_file, "--output", output, *settings)
    assert _named(prefect_server.states(output), "Completed") == {
        "open MLflow run",
        "report",
        "log to MLflow",
        "publish",
        "prune stages",
    }
    assert report["teacher"]["source"] == str(teacher)
    assert report["teacher"]["fingerprint"] == finished_run.report["teacher"]["fingerprint"]
    client = MlflowClient(mlflow_server)
    run = client.get_run(report["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["student/accuracy"] == report["student"]["metrics"]["accuracy"]
    bundles = client.list_artifacts(run.info.run_id, "bundles")
    assert [entry.path for entry in bundles] == ["bundles/android-arm64", "bundles/ios-arm64"]
    (version,) = client.search_model_versions("name = 'tiny-model'")
    assert version.run_id == run.info.run_id


def test_gate_that_says_no_publishes_nothing_and_leaves_the_last_good_bundles(
    run_cli, finished_run
):
    output = finished_run.copy("refused")
    before = {path: path.read_bytes() for path in output.glob("bundles/*/manifest.json")}
    strict = ("--set", "gate.retention=1.5")
    done = run_cli("run", finished_run.desk.pipeline_file, "--output", output, *strict, code=1)
    assert "the gate said no" in done.stderr
    assert "lower gate.retention" in done.stderr
    assert not _report(output)["passed"]
    assert {path: path.read_bytes() for path in output.glob("bundles/*/manifest.json")} == before


@pytest.mark.faults
def test_second_run_on_an_output_in_use_ends_with_a_clear_message(run_cli, finished_run):
    output = finished_run.copy("in-use")
    before = _records(output)
    command = ("run", finished_run.desk.pipeline_file, "--output", output)
    # Long enough that it still trains when the second command has started, found it, and ended.
    longer = ("training.learning_rate=0.002", "training.epochs=2000")
    settings = (part for setting in longer for part in ("--set", setting))
    with run_cli.start(*command, *settings) as first:
        wait_for(lambda: _working_on(output, "student") or first.poll() is not None)
        done = run_cli(*command, code=1)
        assert first.poll() is None
        first.kill()
    assert done.stderr.count("distill-deploy: ") == 1
    assert f"{output}: another run writes there" in done.stderr
    # Another learning rate trains anew, on the teacher, the rows and the start that were there.
    assert {name.partition("-")[0] for name in _records(output).keys() - before} == {"mlflow"}


@pytest.mark.faults
@pytest.mark.parametrize(
    "stop",
    [
        # The terminal sends Ctrl-C to all processes of the command, `kill` to the one that is named.
        pytest.param(lambda run: os.killpg(run.pid, signal.SIGINT), id="Ctrl-C"),
        pytest.param(lambda run: run.terminate(), id="kill", marks=pytest.mark.slow),
    ],
)
def test_stopped_run_ends_soon_and_tidily_with_its_embedded_server(lone_cli, finished_run, stop):
    output = finished_run.copy(f"stopped-{id(stop)}")
    arguments = (finished_run.desk.pipeline_file, "--output", output)
    before = _records(output)
    with lone_cli.start("run", *arguments, "--set", "training.learning_rate=0.004") as run:
        wait_for(lambda: _working_on(output, "student") or run.poll() is not None)
        stop(run)
        _, printed = run.communicate(timeout=60)  # its server has the pipe too, and must end
    assert run.returncode == 130, printed
    assert printed.count("distill-deploy: ") == 1
    assert "stopped; what is finished will not be made again" in printed
    assert list(output.rglob("*.partial*")) == []
    (opened,) = _records(output).keys() - before
    facts = json.loads((output / "stages" / opened / "stage.json").read_text())["facts"]
    assert MlflowClient(facts["uri"]).get_run(facts["run_id"]).info.status == "FAILED"


@pytest.mark.faults
def test_run_stopped_while_its_embedded_server_starts_leaves_none(lone_cli, desk):
    with lone_cli.start("run", desk.pipeline_file, "--output", desk.output) as run:
        wait_for(lambda: _children(run) or run.poll() is not None)
        run.terminate()
        _, printed = run.communicate(timeout=60)  # its server has the pipe too, and must end
    assert run.returncode == 130
    assert "stopped; what is finished will not be made again" in printed
    assert not desk.output.exists()


def _children(run):
    return [file for file in Path(f"/proc/{run.pid}/task").glob("*/children") if file.read_text()]


@pytest.fixture(scope="module")
def killed_run(run_cli, make_desk, tmp_path_factory):
    """A run of a half-precision teacher, killed while it trains, quantizes and benchmarks; then finished.

    Returns its output, and what was finished at each kill.
    """
    desk = make_desk(tmp_path_factory.mktemp("killed"))
    weights = desk.teacher / "model.safetensors"
    halves = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(halves, weights, metadata={"format": "pt"})
    schemes = ["int8-reduced-range", "int8-embeddings-of-4-bits-reduced-range"]
    desk.document["targets"] = [{**PHONE, "like": "linux-x86-64", "schemes": schemes}]
    command = ("run", desk.write(), "--output", desk.output)
    finished = []
    for stage in ("student", "artifact", "benchmark"):
        with run_cli.start(*command) as process:
            wait_for(
                lambda stage=stage: _working_on(desk.output, stage) or process.poll() is not None
            )
            process.kill()
        assert process.returncode == -signal.SIGKILL, stage
        assert not (desk.output / "report.json").exists()
        finished.append(_records(desk.output))
    run_cli(*command)
    return desk.output, finished


@pytest.mark.faults
def test_killed_run_goes_on_from_the_last_finished_stage(killed_run, prefect_server):
    output, finished = killed_run
    at_the_end = _records(output)
    assert len(at_the_end) == 17  # each stage once
    made = [{name.partition("-")[0] for name in records} for records in finished]
    assert made[0] == {"teacher", "data", "mlflow", "start"}
    assert made[1] == made[0] | {"student", "evaluation", "baselines", "onnx", "words"}
    assert made[2] == made[1] | {"artifact"}
    for records in finished:
        assert records.items() <= at_the_end.items()  # and when it was made, so not again
    states = prefect_server.states(output)
    assert states["distil"] == states["quantize to int8-reduced-range"] == "Cached"
    assert states["benchmark"] == "Completed"


@pytest.mark.faults
def test_killed_run_leaves_no_drafts_in_the_end(killed_run):
    assert list(killed_run[0].rglob("*.partial*")) == []


def test_half_precision_teacher_goes_the_whole_way(killed_run):
    output, _ = killed_run
    report = _report(output)
    assert report["passed"]
    assert report["teacher"]["bytes"] == 4 * report["teacher"]["parameters"]  # as it runs here
    student = load_file(output / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in student.values()} == {torch.float32}
