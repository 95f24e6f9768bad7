"""`serve` with a real Prefect server: what it registers, how it runs, how it stops."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

from distill_core.config import Pipeline
from distill_core.errors import ConfigError
from distill_core.pipeline_file import read_pipeline
from flows.serve import deployments, serve_pipelines
from tests.conftest import PATIENCE_S
from tests.flows.conftest import CLOSED_PORT, free_port, wait_for
from tests.flows.serve_fixtures import Person, change, make_quick, serving

pytestmark = pytest.mark.integration

NAMES = (
    "distill-and-deploy/first",
    "watch-teacher/first-watch",
    "distill-and-deploy/second",
    "watch-teacher/second-watch",
)
CRON, WATCH = "0 3 29 2 *", "0 4 29 2 *"
"""Schedules that start nothing while tests run."""
PIPELINE = Pipeline.model_validate(
    {"name": "any", "teacher": {"source": "/teacher"}, "data": {"source": "/data"}}
)


@pytest.fixture(scope="module")
def person(prefect_server):
    return Person(prefect_server)


def _desk(make_desk, folder, name, **schedule):
    folder.mkdir()
    desk = make_desk(folder)
    desk.document |= {"name": name, "schedule": schedule}
    desk.write()
    return desk


@dataclass
class Day:
    """What happened while two pipelines were served."""

    files: list[Path]
    folder: Path
    """Where `serve` was typed."""
    greeting: list[str]
    deployments: dict[str, Any]
    asked: list[Any]
    """A run and two watches of `first`, asked for at once, when they were over."""
    stopped: Any
    """The run that was going when the signal came."""
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def day(make_desk, run_cli, person, finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("day")
    output, endless_output = run_cli.folder / "runs" / "first", folder / "endless"
    for place in (output, endless_output):  # what need not be made anew here
        shutil.copytree(finished_run.output / "stages", place / "stages")
    desks = [
        _desk(make_desk, folder / "first", "first", cron=CRON),
        _desk(make_desk, folder / "second", "second", watch=WATCH),
    ]
    files = [desk.pipeline_file for desk in desks]
    endless = read_pipeline(
        files[0],
        ["training.max_steps=1000000", "training.epochs=1000000"],
    ).model_dump(mode="json")
    with serving(run_cli, *files) as served:
        registered = {name: person.deployment(name) for name in NAMES}
        asked = person.wait_for_end(
            person.ask_for(NAMES[0]), person.ask_for(NAMES[1]), person.ask_for(NAMES[1])
        )
        run = person.ask_for(NAMES[0], pipeline=endless, output=str(endless_output))
        wait_for(lambda: list(endless_output.glob("stages/.student-*")))
        time.sleep(1)  # so that it is among its steps
        code, out, err = served.stop(signal.SIGINT)
    return Day(
        files,
        run_cli.folder,
        served.greeting,
        registered,
        asked,
        person.look_at(run),
        code,
        out,
        err,
    )


def test_each_pipeline_has_a_deployment_and_one_that_watches(day):
    assert day.greeting[0].startswith("serving until stopped, one run at a time; Prefect: http://")
    assert [line.split()[0] for line in day.greeting[1:]] == list(NAMES)
    assert {name: found.name for name, found in day.deployments.items()} == {
        name: name.partition("/")[2] for name in NAMES
    }


def test_schedules_are_those_of_the_file_in_utc(day):
    found = [
        [(entry.schedule.cron, entry.schedule.timezone, entry.active) for entry in it.schedules]
        for it in day.deployments.values()
    ]
    assert found == [[(CRON, "UTC", True)], [], [], [(WATCH, "UTC", True)]]
    assert not any(deployment.paused for deployment in day.deployments.values())


def test_parameters_are_the_pipeline_file_and_an_absolute_folder(day):
    parameters = day.deployments["distill-and-deploy/first"].parameters
    assert Pipeline.model_validate(parameters["pipeline"]) == read_pipeline(day.files[0])
    assert parameters["output"] == str(day.folder / "runs" / "first")
    assert Path(parameters["output"]).is_absolute()


def test_form_of_a_run_has_every_key_with_its_help(day):
    schema = day.deployments["distill-and-deploy/first"].parameter_openapi_schema
    assert schema["required"] == ["pipeline", "output"]
    pipeline = schema["definitions"]["Pipeline"]
    assert set(pipeline["properties"]) == set(Pipeline.model_fields)
    assert (
        "peak"
        in schema["definitions"]["TrainingSettings"]["properties"]["learning_rate"]["description"]
    )


@pytest.mark.parametrize(
    ("section", "key", "value"), [("training", "epochs", 0), ("training", "epoch", 3)]
)
def test_server_refuses_a_run_whose_parameters_are_wrong(day, person, section, key, value):
    wrong = read_pipeline(day.files[0]).model_dump(mode="json")
    wrong[section][key] = value
    with pytest.raises(PrefectHTTPStatusError, match="409 Conflict"):
        person.ask_for(NAMES[0], pipeline=wrong)


def test_run_completes_and_leaves_its_report_where_serve_was_typed(day):
    assert day.asked[0].state.name == "Completed"
    assert day.asked[0].name == "first"
    report = json.loads((day.folder / "runs" / "first" / "report.json").read_text())
    assert report["name"] == "first"
    assert report["teacher"]["source"] == str(day.files[0].parent / "teacher")


def test_runs_wait_for_each_other_and_none_is_lost(day):
    times = sorted((run.start_time, run.end_time) for run in day.asked)
    assert all(end <= start for (_, end), (start, _) in pairwise(times))
    assert len(times) == 3


def test_watches_that_waited_for_a_run_start_no_second_one(day, prefect_server):
    assert [run.state.name for run in day.asked[1:]] == ["Skipped", "Skipped"]
    output = day.folder / "runs" / "first"
    assert len(prefect_server.flow_runs(output)) == 3


def test_signal_cancels_the_run_that_is_going_and_pauses_the_schedules(day, person):
    assert day.code == 0
    assert day.stopped.state.name == "Cancelled"
    assert day.stopped.state.message == "Runner is shutting down."
    assert all(person.deployment(name).paused for name in NAMES)


def test_console_says_what_became_of_each_run_and_nothing_else(day):
    said = [line[20:] for line in day.out.splitlines()]
    skipped = day.asked[1].state.message
    assert said == [
        "first: Running",
        "first: Completed",
        *["watch first: Running", f"watch first: Skipped: {skipped}"] * 2,
        "first: Running",
        "first: Cancelling: Runner is shutting down.",
    ]
    # Each a validation: no bar where there is no terminal.
    assert {line[:8] for line in day.err.splitlines() if line} <= {"  epoch "}
    assert "\x1b" not in day.out + day.err


DEAF = """
import time, weakref
from prefect import flow
from flows.serve import heed_termination

class Thing: pass

def wait(_):
    print("inside", flush=True)
    time.sleep(600)

@flow(on_running=[heed_termination])
def work():
    thing = Thing()
    reference = weakref.ref(thing, wait)
    del thing  # calls wait, whose exceptions Python drops
    print("went on", flush=True)
    time.sleep(600)

work()
"""


def test_signal_that_comes_where_python_drops_exceptions_ends_the_run(run_cli):
    command = [sys.executable, "-c", DEAF]
    environment = {**run_cli.environment, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout.readline() == "inside\n"
        run.terminate()
        out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == -signal.SIGTERM
    assert out == "went on\n"
    assert "Exception ignored" not in err


def _register(person, desk, **schedule):
    desk.document["schedule"] = schedule
    with temporary_settings({PREFECT_API_URL: person.server.url}):
        for deployment in deployments(read_pipeline(desk.write()), desk.output):
            deployment.apply()


def test_server_makes_runs_due_at_their_hour_in_utc(desk, person):
    desk.document["name"] = "nightly"
    _register(person, desk, cron="0 3 * * *")
    run = wait_for(lambda: person.planned("distill-and-deploy/nightly"))[0]
    due = run.expected_start_time
    assert (due.hour, due.minute, due.utcoffset().total_seconds()) == (3, 0, 0)


def test_schedule_that_left_the_file_is_gone_after_the_next_serve(desk, person):
    desk.document["name"] = "changed"
    found = []
    for schedule in ({"cron": "0 5 * * *", "watch": "0 4 * * *"}, {"cron": None}):
        _register(person, desk, **schedule)
        for name in ("distill-and-deploy/changed", "watch-teacher/changed-watch"):
            found.append([it.schedule.cron for it in person.deployment(name).schedules])
    assert found == [["0 5 * * *"], ["0 4 * * *"], [], []]


def test_sigterm_stops_at_once_and_without_a_word(run_cli, desk, person):
    desk.document |= {"name": "idle", "schedule": {"cron": "0 3 * * *"}}
    with serving(run_cli, desk.write()) as served:
        assert not person.deployment("distill-and-deploy/idle").paused
        assert served.stop(signal.SIGTERM) == (0, "", "")
    assert person.deployment("distill-and-deploy/idle").paused


def test_server_is_started_where_none_is_configured_and_goes_with_serve(lone_cli, desk):
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with serving(lone_cli, desk.write(), PREFECT_SERVER_API_PORT=str(port)) as served:
        assert f"Prefect: http://127.0.0.1:{port}\n" in served.greeting[0]
        (server,) = psutil.Process(served.process.pid).children()
        with SyncPrefectClient(url) as client:
            assert client.read_deployment_by_name("distill-and-deploy/tiny").name == "tiny"
        assert served.stop(signal.SIGINT) == (0, "", "")
    assert not server.is_running()


def test_port_that_is_taken_is_said_where_no_server_is_configured(prefect_server, tmp_path):
    port = int(prefect_server.url.split(":")[2].removesuffix("/api"))
    message = f"127.0.0.1:{port} is taken.* export PREFECT_API_URL={prefect_server.url}"
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_API_PORT: port}),
        pytest.raises(ConfigError, match=message),
    ):
        serve_pipelines([(PIPELINE, tmp_path)])


def test_server_that_does_not_answer_ends_serve_with_one_message(lone_cli, desk):
    url = f"{CLOSED_PORT}/api"
    done = lone_cli("serve", desk.write(), code=1, PREFECT_API_URL=url)
    assert done.stderr.startswith(f"distill-deploy: PREFECT_API_URL: {url} does not answer")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.faults
@pytest.mark.slow
def test_server_that_goes_away_for_good_ends_serve_with_one_message(lone_cli, desk):
    settings = {"PREFECT_SERVER_API_PORT": str(free_port()), "PREFECT_CLIENT_MAX_RETRIES": "0"}
    with serving(lone_cli, desk.write(), **settings) as served:
        (server,) = psutil.Process(served.process.pid).children()
        server.kill()
        code = served.process.wait(timeout=PATIENCE_S)
        _, _, err = served.stop()
    assert code == 1
    assert "does not answer any more" in err
    assert "Traceback" not in err


def test_two_pipelines_of_one_name_are_wrong_input(tmp_path):
    with pytest.raises(ConfigError, match="name: any is the name of two pipelines"):
        serve_pipelines([(PIPELINE, tmp_path), (PIPELINE, tmp_path)])


@pytest.mark.slow
def test_watch_fires_by_itself_when_its_minute_comes(make_desk, run_cli, prefect_server, tmp_path):
    desk = make_quick(_desk(make_desk, tmp_path / "desk", "minutely", watch="* * * * *"))
    output = run_cli.folder / "runs" / "minutely"

    def watches():
        runs = [run for run in prefect_server.flow_runs(output) if run.deployment_id]
        return [run.state.name for run in runs if run.state.is_final()]

    with serving(run_cli, desk.pipeline_file) as served:
        wait_for(lambda: "Completed" in watches())
        wait_for(lambda: "Skipped" in watches())
        change(desk.teacher)
        wait_for(lambda: watches().count("Completed") == 2)
        code, out, _ = served.stop()
    assert code == 0
    assert "is not the one of the run before" in out
