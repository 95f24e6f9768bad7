"""Students that are searched for, or narrower than their teacher, through the command line."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.integration


SETTINGS = ("--set", "student.layers=search", "--set", "student.intermediate_size=40")


@pytest.fixture(scope="module")
def searched(run_cli, finished_run):
    """A run like the finished one, with fewer neurons, that looks for its layers itself."""
    output = finished_run.copy("searched")
    done = run_cli("run", finished_run.desk.pipeline_file, "--output", output, *SETTINGS)
    return output, json.loads((output / "report.json").read_text()), done.stdout


def test_report_shows_every_pick_that_was_tried(searched):
    output, report, printed = searched
    table = report["student"]["search"]
    assert len(table) == 6  # 2 of 4 layers
    assert table[0]["layers"] == report["student"]["layers"]
    assert [row["steps"] for row in table] == [100] * 4 + [25] * 2
    assert f"layers {report['student']['layers']}, the best of 6 picks" in printed
    page = (output / "report.html").read_text()
    assert "Which layers were tried" in page
    assert page.count(">alternate<") == 1


def test_a_narrower_student_is_shipped(searched, finished_run):
    output, report, printed = searched
    student = report["student"]
    assert student["width"]["intermediate_size"] == 40
    assert "32 wide, 4 heads, 40 neurons" in printed
    assert "32, 4 heads, 40 neurons a layer" in (output / "report.html").read_text()
    assert student["parameters"] < finished_run.report["student"]["parameters"]
    loaded = AutoModelForSequenceClassification.from_pretrained(output / "student")
    assert loaded.num_parameters() == student["parameters"]
    for artifact in report["artifacts"]:
        assert (output / artifact["file"]).is_file()


def test_prefect_shows_the_picks_beside_the_students_start(searched, prefect_server):
    output, report, _ = searched
    names = {run.id: run.name for run in prefect_server.task_runs(output)}
    artifacts = {names[a.task_run_id]: a.data for a in prefect_server.artifacts(output)}
    section = artifacts["initialise student"].split("### search")[1]
    for row in report["student"]["search"]:
        assert f"| {row['layers']} |" in section


def test_longer_training_does_not_search_again(searched, run_cli, prefect_server, finished_run):
    output, report, _ = searched
    command = ("run", finished_run.desk.pipeline_file, "--output", output, *SETTINGS)
    longer = run_cli.json(*command, "--set", "training.epochs=5")
    assert prefect_server.states(output)["initialise student"] == "Cached"
    assert longer["student"]["search"] == report["student"]["search"]


def test_check_says_what_is_searched_for_and_how_wide_it_will_be(run_cli, finished_run):
    shape = ("student.layers=search", "student.hidden_size=24", "student.heads=3")
    settings = [part for setting in shape for part in ("--set", setting)]
    file = finished_run.desk.pipeline_file
    printed = run_cli("check", file, *settings).stdout
    assert "2 layers, to be searched for, 24 wide, 3 heads, 64 neurons" in printed
    assert run_cli.json("check", file, *settings)["student"]["layers"] == "search"
