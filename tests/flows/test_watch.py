"""`watch`: a teacher that stays, that changes, and whose run fails; with a real Prefect server."""

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_core.files import write_json
from distill_core.pipeline_file import read_pipeline
from distill_core.teacher import fingerprint
from flows.watch import watch_teacher
from tests.flows.conftest import Desk
from tests.flows.serve_fixtures import change, make_quick

pytestmark = pytest.mark.integration


def _report(desk):
    return json.loads((desk.output / "report.json").read_text())


def _after_a_run(desk, finished_run):
    """Lay a finished run of this teacher and data on a desk."""
    shutil.copytree(finished_run.output, desk.output)
    return desk


@pytest.fixture
def settled_desk(desk, finished_run):
    return _after_a_run(desk, finished_run)


@pytest.fixture
def look(prefect_server):
    """Return a function that looks at a desk's teacher once, and gives the state it ends in."""

    def look_at(desk):
        pipeline = read_pipeline(desk.pipeline_file)
        with temporary_settings({PREFECT_API_URL: prefect_server.url}):
            return watch_teacher(pipeline, desk.output, return_state=True)

    return look_at


def test_teacher_of_the_last_finished_run_is_skipped(look, settled_desk, prefect_server):
    state = look(settled_desk)
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
    settled_desk.write()
    assert look(settled_desk).name == "Skipped"


@dataclass
class Week:
    """A teacher that changes while its data is away, and is looked at until all is well."""

    desk: Desk
    before: dict[str, Any]
    """The report of the run before."""
    failed: list[Any]
    report_after_failure: dict[str, Any]
    mended: Any
    after: Any
    runs: list[Any]
    """Parents and the runs that they started, oldest first."""


@pytest.fixture(scope="module")
def week(make_desk, finished_run, prefect_server, tmp_path_factory):
    def look():
        pipeline = read_pipeline(desk.pipeline_file)
        with temporary_settings({PREFECT_API_URL: prefect_server.url}):
            return watch_teacher(pipeline, desk.output, return_state=True)

    desk = _after_a_run(make_quick(make_desk(tmp_path_factory.mktemp("week"))), finished_run)
    before = _report(desk)
    change(desk.teacher)
    away = desk.data.rename(desk.folder / "away")
    failed = [look(), look()]
    report_after_failure = _report(desk)
    away.rename(desk.data)
    mended, after = look(), look()
    runs = prefect_server.flow_runs(desk.output)
    return Week(desk, before, failed, report_after_failure, mended, after, runs)


def test_run_that_fails_leaves_the_teacher_to_be_tried_again(week):
    assert [state.name for state in week.failed] == ["Failed", "Failed"]
    assert all(f"{week.desk.data}: " in state.message for state in week.failed)
    assert week.report_after_failure == week.before


def test_changed_teacher_is_run_once_and_then_skipped(week):
    now = fingerprint(week.desk.teacher)
    assert now != week.before["teacher"]["fingerprint"]
    assert week.mended.name == "Completed"
    assert week.mended.result() == {"changed": True, "fingerprint": now}
    assert _report(week.desk)["teacher"]["fingerprint"] == now
    assert week.after.name == "Skipped"


def test_runs_are_subflows_of_their_watch(week):
    names = [(run.name, run.parent_task_run_id is not None) for run in week.runs]
    watch, run = ("watch tiny", False), ("tiny", True)
    assert names == [watch, run, watch, run, watch, run, watch]
    states = [run.state.name for run in week.runs]
    assert states == ["Failed"] * 4 + ["Completed", "Completed", "Skipped"]


def test_teacher_that_is_away_fails_and_starts_no_run(look, settled_desk, prefect_server):
    shutil.rmtree(settled_desk.teacher)
    state = look(settled_desk)
    assert state.name == "Failed"
    assert f"teacher.source: {settled_desk.teacher} is not a folder" in state.message
    assert len(prefect_server.flow_runs(settled_desk.output)) == 1


def _of_another_teacher(desk):
    """Make the finished run one of another teacher, so that only its report is made anew."""
    report = _report(desk)
    report["teacher"]["fingerprint"] = "0" * 64
    write_json(desk.output / "report.json", report)


def _watch(run_cli, desk, *options, **expected):
    return run_cli("watch", desk.pipeline_file, "--output", desk.output, *options, **expected)


def test_command_prints_what_it_saw(run_cli, settled_desk):
    now = fingerprint(settled_desk.teacher)
    _of_another_teacher(settled_desk)
    changed = _watch(run_cli, settled_desk)
    assert changed.stdout == f"tiny: teacher {now[:16]} changed; the run is finished\n"
    unchanged = _watch(run_cli, settled_desk)
    assert unchanged.stdout == f"tiny: teacher {now[:16]} unchanged; skipped\n"
    assert unchanged.stderr == ""


def test_command_prints_json_without_a_server_too(lone_cli, settled_desk):
    found = lone_cli.json("watch", settled_desk.pipeline_file, "--output", settled_desk.output)
    now = fingerprint(settled_desk.teacher)
    assert found == {"name": "tiny", "changed": False, "fingerprint": now}


def test_command_ends_with_1_if_a_gate_says_no_and_asks_no_second_time(run_cli, settled_desk):
    strict = ("--set", "gate.retention=1.5")
    _of_another_teacher(settled_desk)
    refused = _watch(run_cli, settled_desk, *strict, code=1)
    assert refused.stderr.startswith("distill-deploy: tiny: the gate said no")
    assert "Traceback" not in refused.stderr
    assert "unchanged; skipped" in _watch(run_cli, settled_desk, *strict).stdout
