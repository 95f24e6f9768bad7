"""`watch`: a teacher that stays, that changes, and whose run fails; with a real Prefect server."""

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_core.files import write_json
from distill_core.pipeline_file import read_pipeline
from distill_core.teacher import fingerprint
from flows.watch import watch_teacher
from tests.flows.conftest import PHONE, Desk
from tests.flows.serve_fixtures import change

pytestmark = [
    pytest.mark.integration,
    # mlflow, of its own parts, when this process imports them
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]


def _report(desk):
    return json.loads((desk.output / "report.json").read_text())


def _say_it_was_of(desk, teacher):
    """Make the finished run one of another teacher."""
    report = _report(desk)
    report["teacher"]["fingerprint"] = teacher
    write_json(desk.output / "report.json", report)


def _settle(desk, finished_run):
    """Lay a finished run of this teacher and data on a desk."""
    shutil.copytree(finished_run.output, desk.output)
    return desk


@pytest.fixture
def settled_desk(desk, finished_run):
    return _settle(desk, finished_run)


@pytest.fixture(scope="module")
def look(prefect_server):
    """Yield a function that looks at a teacher once, and gives the state it ends in."""

    def look_at(pipeline, output):
        with temporary_settings({PREFECT_API_URL: prefect_server.url}):
            return watch_teacher(pipeline, output, return_state=True)

    yield look_at
    APILogHandler().flush()  # while there is a server to take the last lines


def test_teacher_of_the_last_finished_run_is_skipped(look, settled_desk, prefect_server):
    state = look(read_pipeline(settled_desk.pipeline_file), settled_desk.output)
    now = fingerprint(settled_desk.teacher)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert now[:16] in state.message
    assert state.result() == {"changed": False, "fingerprint": now}
    (run,) = prefect_server.flow_runs(settled_desk.output)
    assert (run.name, run.state.name, run.state.message) == ("watch tiny", "Skipped", state.message)


def test_teacher_that_is_touched_or_moved_or_has_more_files_is_the_same(look, settled_desk):
    for path in settled_desk.teacher.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    (settled_desk.teacher / "training_args.txt").write_text("of no interest to a student")
    settled_desk.teacher.rename(settled_desk.folder / "elsewhere")
    settled_desk.document["teacher"]["source"] = "elsewhere"
    pipeline = read_pipeline(settled_desk.write())
    assert look(pipeline, settled_desk.output).name == "Skipped"


@dataclass
class Week:
    """A teacher that changes while its data is away, and is looked at until all is well."""

    desk: Desk
    first: Any
    failed: list[Any]
    fingerprint_after_failure: str
    mended: Any
    after: Any
    runs: list[Any]
    """Parents and the runs that they started, oldest first."""


@pytest.fixture(scope="module")
def week(make_desk, finished_run, look, prefect_server, tmp_path_factory):
    desk = _settle(make_desk(tmp_path_factory.mktemp("week")), finished_run)
    desk.document["targets"] = [PHONE]
    pipeline = read_pipeline(desk.write())
    # It begins with another teacher, so that the change leads to one whose student is made.
    shutil.copytree(desk.teacher, desk.folder / "new")
    change(desk.teacher)
    _say_it_was_of(desk, fingerprint(desk.teacher))
    first = look(pipeline, desk.output)
    shutil.copytree(desk.folder / "new", desk.teacher, dirs_exist_ok=True)
    away = desk.data.rename(desk.folder / "away")
    failed = [look(pipeline, desk.output) for _ in range(2)]
    known = _report(desk)["teacher"]["fingerprint"]
    away.rename(desk.data)
    mended, after = (look(pipeline, desk.output) for _ in range(2))
    runs = prefect_server.flow_runs(desk.output)
    return Week(desk, first, failed, known, mended, after, runs)


def test_run_that_fails_leaves_the_teacher_to_be_tried_again(week):
    assert [state.name for state in week.failed] == ["Failed", "Failed"]
    assert all(f"{week.desk.data}" in state.message for state in week.failed)
    assert week.first.result()["fingerprint"] == week.fingerprint_after_failure


def test_changed_teacher_is_run_once_and_then_skipped(week):
    now = fingerprint(week.desk.teacher)
    assert week.first.name == "Skipped"
    assert week.first.result()["fingerprint"] != now
    assert week.mended.name == "Completed"
    assert week.mended.result() == {"changed": True, "fingerprint": now}
    assert _report(week.desk)["teacher"]["fingerprint"] == now
    assert week.after.name == "Skipped"


def test_runs_are_subflows_of_their_watch(week):
    names = [(run.name, run.parent_task_run_id is not None) for run in week.runs]
    watch, run = ("watch tiny", False), ("tiny", True)
    assert names == [watch, *(watch, run) * 3, watch]
    states = [run.state.name for run in week.runs]
    assert states == ["Skipped", *["Failed"] * 4, "Completed", "Completed", "Skipped"]


def test_teacher_that_is_away_fails_and_starts_no_run(look, settled_desk, prefect_server):
    pipeline = read_pipeline(settled_desk.pipeline_file)
    shutil.rmtree(settled_desk.teacher)
    state = look(pipeline, settled_desk.output)
    assert state.name == "Failed"
    assert f"teacher.source: {settled_desk.teacher} is not a folder" in state.message
    assert len(prefect_server.flow_runs(settled_desk.output)) == 1


@pytest.fixture
def watch(settled_desk):
    """Return a function that types `watch` for a desk whose last run was of another teacher."""
    _say_it_was_of(settled_desk, "0" * 64)

    def type_it(command, *options, **expected):
        place = ("--output", settled_desk.output)
        return command("watch", settled_desk.pipeline_file, *place, *options, **expected)

    return type_it


def test_command_says_that_the_teacher_changed(run_cli, watch, settled_desk):
    now = fingerprint(settled_desk.teacher)
    done = watch(run_cli)
    assert done.stdout == f"tiny: teacher {now[:16]} changed; the run is finished\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_command_ends_with_1_if_a_gate_says_no_and_asks_no_second_time(
    run_cli, watch, settled_desk
):
    strict = ("--set", "gate.retention=1.5")
    refused = watch(run_cli, *strict, code=1)
    assert refused.stderr.startswith("distill-deploy: tiny: the gate said no")
    assert "Traceback" not in refused.stderr
    now = fingerprint(settled_desk.teacher)
    assert watch(run_cli, *strict).stdout == f"tiny: teacher {now[:16]} unchanged; skipped\n"


@pytest.mark.slow
def test_command_prints_json_and_needs_no_server(lone_cli, settled_desk):
    found = lone_cli.json("watch", settled_desk.pipeline_file, "--output", settled_desk.output)
    now = fingerprint(settled_desk.teacher)
    assert found == {"name": "tiny", "changed": False, "fingerprint": now}
