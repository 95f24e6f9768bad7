"""Teachers and data sets by hub id: the real client against a loopback server that speaks its protocol."""

import json
import shutil

import pytest

from tests.flows.conftest import CommandLine
from tests.tasks.hub_server import running_hub

pytestmark = pytest.mark.integration

TEACHER = ("--set", "teacher.source=ann/teacher")
DATA = ("--set", "data.source=ann/reviews")


@pytest.fixture
def hub(tiny_teacher):
    """A hub with one teacher, tagged v1."""
    with running_hub() as server:
        server.push("models/ann/teacher", tiny_teacher, "v1")
        yield server


@pytest.fixture
def hub_cli(run_cli, hub, tmp_path):
    """The command, with this hub and a cache of its own."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "huggingface")}
    return CommandLine({**run_cli.environment, **settings}, run_cli.folder)


@pytest.fixture
def other_teacher(tiny_teacher, tmp_path):
    """A teacher that differs in one name of its config."""
    folder = shutil.copytree(tiny_teacher, tmp_path / "other-teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "note": "trained longer"}))
    return folder


def test_teacher_on_the_hub_is_the_same_as_the_folder_it_came_from(hub_cli, desk):
    here = hub_cli.json("check", desk.pipeline_file)
    there = hub_cli.json("check", desk.pipeline_file, *TEACHER)
    assert there["teacher"].pop("source") == "ann/teacher"
    assert here["teacher"].pop("source") == str(desk.teacher)
    assert there == here


def test_new_commit_gives_another_fingerprint_and_a_revision_the_old_one(
    hub_cli, hub, desk, other_teacher
):
    old = hub_cli.json("check", desk.pipeline_file, *TEACHER)["teacher"]["fingerprint"]
    commit = hub.push("models/ann/teacher", other_teacher)
    new = hub_cli.json("check", desk.pipeline_file, *TEACHER)["teacher"]["fingerprint"]
    assert new != old
    for revision, expected in (("v1", old), (commit, new)):
        pinned = ("--set", f"teacher.revision={revision}")
        plan = hub_cli.json("check", desk.pipeline_file, *TEACHER, *pinned)
        assert plan["teacher"]["fingerprint"] == expected


def test_files_that_are_not_read_are_not_downloaded(hub_cli, hub, desk, other_teacher):
    (other_teacher / "checkpoint-500").mkdir()
    for name in ("checkpoint-500/model.safetensors", "pytorch_model.bin", "training.log"):
        (other_teacher / name).write_bytes(b"not to be read")
    (other_teacher / "1_Pooling").mkdir()
    (other_teacher / "1_Pooling" / "config.json").write_text("{}")
    hub.push("models/ann/teacher", other_teacher)
    hub_cli("check", desk.pipeline_file, *TEACHER)
    fetched = {request.split()[1].rpartition("/")[2] for request in hub.requests}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= fetched
    assert any("1_Pooling/config.json" in request for request in hub.requests)
    assert fetched & {"pytorch_model.bin", "training.log"} == set()
    assert not any("checkpoint-500" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ["teacher.source=ann/nobody"],
            "teacher.source: ann/nobody is neither a folder here nor a model on the hub",
        ),
        (
            ["teacher.source=ann/teacher", "teacher.revision=v2"],
            "teacher.revision: ann/teacher has no revision 'v2'",
        ),
        (
            ["data.source=ann/nobody"],
            "data.source: ann/nobody is neither a folder here nor a data set on the hub",
        ),
    ],
)
def test_what_is_not_on_the_hub_is_wrong_input(hub_cli, desk, settings, says):
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = hub_cli("check", desk.pipeline_file, *arguments, code=2)
    assert done.stderr.startswith(f"distill-deploy: {says}")


def test_pickled_teacher_is_refused_with_the_command_that_converts_it(
    hub_cli, hub, desk, other_teacher
):
    (other_teacher / "model.safetensors").rename(other_teacher / "pytorch_model.bin")
    hub.push("models/ann/pickled", other_teacher)
    source = ("--set", "teacher.source=ann/pickled")
    done = hub_cli("check", desk.pipeline_file, *source, code=2)
    assert "ann/pickled: pytorch_model.bin can execute code" in done.stderr
    assert "from_pretrained('ann/pickled').save_pretrained(" in done.stderr
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_data_set_on_the_hub_is_read_at_one_commit(hub_cli, hub, desk):
    commit = hub.push("datasets/ann/reviews", desk.data)
    plan = hub_cli.json("check", desk.pipeline_file, *DATA)
    assert plan["data"]["rows"] == {"train": 120, "validation": 30}
    files = [request for request in hub.requests if ".parquet" in request]
    assert files
    assert all(commit in request for request in files)


def test_validation_of_a_data_set_on_the_hub_may_have_another_name(hub_cli, hub, desk):
    parts = desk.folder / "pairs" / "data"
    parts.mkdir(parents=True)
    for split, called in (("train", "train"), ("validation", "validation_matched")):
        shutil.copy(desk.data / f"{split}.parquet", parts / f"{called}-00000-of-00001.parquet")
    hub.push("datasets/ann/reviews", parts.parent)
    plan = hub_cli.json("check", desk.pipeline_file, *DATA)["data"]
    assert (plan["rows"], plan["notes"]) == ({"train": 120, "validation": 30}, [])


@pytest.mark.faults
@pytest.mark.slow
def test_run_waits_for_a_hub_that_is_overloaded_and_watch_sees_no_change(
    hub_cli, hub, prefect_server, finished_run
):
    output = finished_run.copy("hub")
    arguments = (finished_run.desk.pipeline_file, *TEACHER, "--output", output)
    hub.failures_left = 2  # the first try and the second
    report = hub_cli.json("run", *arguments)
    assert report["teacher"]["source"] == "ann/teacher"
    assert report["student"] == finished_run.report["student"]
    fetch = next(run for run in prefect_server.task_runs(output) if run.name == "fetch teacher")
    assert fetch.run_count == 3
    assert fetch.state.name == "Cached"  # by content: it is the teacher that was a folder before

    hub.failures_left = 1
    watched = hub_cli.json("watch", *arguments)
    assert watched["changed"] is False
    assert watched["fingerprint"] == report["teacher"]["fingerprint"]


@pytest.mark.faults
def test_hub_that_is_overloaded_is_not_the_fault_of_the_input(hub_cli, hub, desk):
    hub.failures_left = 1_000
    done = hub_cli("check", desk.pipeline_file, *TEACHER, code=1)
    assert done.stderr.startswith("distill-deploy: teacher.source: ann/teacher is no folder here")
    assert "503" in done.stderr
