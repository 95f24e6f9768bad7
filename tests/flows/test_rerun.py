"""A second run: what is made anew, and what is not; after a change, a kill, a move."""

import json
import shutil
import signal

import pytest

from tests.flows.conftest import wait_for

pytestmark = pytest.mark.integration

LEARNING_RATE = ("--set", "training.learning_rate=0.002")


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


def test_embedded_prefect_server_does_where_none_is_configured(lone_cli, finished_run):
    output = finished_run.copy("embedded")
    report = lone_cli.json("run", finished_run.desk.pipeline_file, "--output", output)
    assert report == finished_run.report


def test_changed_target_redoes_only_what_depends_on_it(run_cli, prefect_server, finished_run):
    output = finished_run.copy("other-target")
    targets = ("--set", "targets=[android-arm64, web-wasm]")
    report = run_cli.json("run", finished_run.desk.pipeline_file, "--output", output, *targets)
    states = prefect_server.states(output)
    assert _named(states, "Completed") == {
        "open MLflow run",
        "quantize for web-wasm",
        "benchmark",
        "bundle for web-wasm",
        "report",
        "log to MLflow",
        "publish",
        "prune stages",
    }
    assert report["student"] == finished_run.report["student"]
    assert [a["scheme"] for a in report["artifacts"]] == ["int8", "int8-reduced-range"]
    assert sorted(path.name for path in (output / "bundles").iterdir()) == [
        "android-arm64",
        "web-wasm",
    ]


def test_teacher_and_data_that_move_are_still_the_same(
    run_cli, prefect_server, finished_run, tmp_path
):
    output = finished_run.copy("moved")
    teacher = shutil.copytree(finished_run.desk.teacher, tmp_path / "teacher")
    data = shutil.copytree(finished_run.desk.data, tmp_path / "data")
    moved = ("--set", f"teacher.source={teacher}", "--set", f"data.source={data}")
    report = run_cli.json("run", finished_run.desk.pipeline_file, "--output", output, *moved)
    assert _named(prefect_server.states(output), "Completed") == {
        "open MLflow run",
        "report",
        "log to MLflow",
        "publish",
        "prune stages",
    }
    assert report["teacher"]["source"] == str(teacher)
    assert report["teacher"]["fingerprint"] == finished_run.report["teacher"]["fingerprint"]


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


@pytest.fixture(scope="module")
def killed_run(run_cli, finished_run):
    """A run with another learning rate: killed while it trains, quantizes, benchmarks; then finished.

    Returns its output, and what was finished at each kill.
    """
    output = finished_run.copy("killed")
    command = ("run", finished_run.desk.pipeline_file, "--output", output, *LEARNING_RATE)
    finished = []
    for stage in ("student", "artifact", "benchmark"):
        with run_cli.start(*command) as process:
            wait_for(lambda stage=stage: _working_on(output, stage) or process.poll() is not None)
            process.kill()
        assert process.returncode == -signal.SIGKILL, stage
        finished.append(_records(output))
    run_cli(*command)
    return output, finished


@pytest.mark.faults
def test_killed_run_goes_on_from_the_last_finished_stage(killed_run, prefect_server, finished_run):
    output, finished = killed_run
    at_the_end = _records(output)
    for number, records in enumerate(finished):
        assert records.items() <= at_the_end.items(), f"made again after kill {number}"
    new = [
        sorted({name.partition("-")[0] for name in at_the_end if name not in records})
        for records in (_records(finished_run.output), *finished)
    ]
    assert "student" in new[0]
    assert "student" in new[1]
    assert "student" not in new[2]
    assert "artifact" in new[2]
    assert new[3] == ["benchmark", "bundle", "logged", "report"]
    states = prefect_server.states(output)
    assert states["distil"] == states["quantize for android-arm64"] == "Cached"
    assert states["benchmark"] == "Completed"


@pytest.mark.faults
def test_killed_run_leaves_no_drafts_in_the_end(killed_run):
    assert list(killed_run[0].rglob("*.partial*")) == []


@pytest.mark.faults
def test_killed_run_has_one_mlflow_run(killed_run, finished_run):
    output, _ = killed_run
    opened = set(_records(output)) - set(_records(finished_run.output))
    assert len([name for name in opened if name.startswith("mlflow-")]) == 1
    assert _report(output)["mlflow_run_id"] != finished_run.report["mlflow_run_id"]


def test_changed_learning_rate_trains_another_student(killed_run, finished_run):
    output, _ = killed_run
    files = [folder / "student" / "model.safetensors" for folder in (output, finished_run.output)]
    assert files[0].read_bytes() != files[1].read_bytes()
    assert _report(output)["passed"]


@pytest.mark.faults
def test_second_run_on_an_output_in_use_ends_with_a_clear_message(run_cli, finished_run):
    output = finished_run.copy("in-use")
    command = ("run", finished_run.desk.pipeline_file, "--output", output)
    with run_cli.start(*command, "--set", "training.learning_rate=0.003") as first:
        wait_for(lambda: _working_on(output, "student") or first.poll() is not None)
        done = run_cli(*command, code=1)
        assert first.poll() is None
        first.kill()
    assert done.stderr.count("distill-deploy: ") == 1
    assert f"{output}: another run writes there" in done.stderr
