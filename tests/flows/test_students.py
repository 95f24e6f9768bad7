"""Students that are searched for, narrower than their teacher, or of fewer tokens, by the command line."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

from distill_core.quantization.words import WORDS
from distill_core.teacher import load_tokenizer
from tests.core.family_models import save_small
from tests.flows.conftest import PHONE

pytestmark = pytest.mark.integration


TWO = ("--set", f"targets={json.dumps([PHONE, {**PHONE, 'name': 'tablet', 'like': 'ios-arm64'}])}")
SETTINGS = ("--set", "student.layers=search", "--set", "student.intermediate_size=40", *TWO)


@pytest.fixture(scope="module")
def searched(run_cli, finished_run):
    """A run like the finished one, with fewer neurons, that looks for its layers itself."""
    output = finished_run.copy("searched")
    done = run_cli("run", finished_run.desk.pipeline_file, "--output", output, *SETTINGS)
    return output, json.loads((output / "report.json").read_text()), done.stdout


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_prefect_shows_the_picks_beside_the_students_start(searched, prefect_server):
    output, report, _ = searched
    names = {run.id: run.name for run in prefect_server.task_runs(output)}
    artifacts = {names[a.task_run_id]: a.data for a in prefect_server.artifacts(output)}
    section = artifacts["initialise student"].split("### search")[1]
    for row in report["student"]["search"]:
        assert f"| {row['layers']} |" in section


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_trimmed_vocabulary_is_shipped_without_another_training(
    run_cli, prefect_server, finished_run
):
    output = finished_run.copy("trimmed")
    settings = ("--set", "student.vocabulary=70", "--set", "gate.quantization_drop=1.0", *TWO)
    done = run_cli("run", finished_run.desk.pipeline_file, "--output", output, *settings)
    states = prefect_server.states(output)
    assert states["initialise student"] == states["distil"] == states["evaluate"] == "Cached"
    assert states["trim vocabulary"] == "Completed"
    report = json.loads((output / "report.json").read_text())
    student, before = report["student"], finished_run.report["student"]
    assert (student["tokens"], student["tokens_before"]) == (70, 79)
    assert "70 of 79 tokens" in done.stdout
    assert 0 < student["covered_rows"] < 1
    assert before["parameters"] - student["parameters"] == (79 - 70) * 32
    loaded = AutoModelForSequenceClassification.from_pretrained(output / "student")
    assert loaded.config.vocab_size == 70
    assert len(report["artifacts"]) == 2
    for target in report["artifacts"]:
        bundle = output / "bundles" / target["target"]
        run_cli("verify", bundle)
        vocabulary = json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"]
        assert sorted(vocabulary.values()) == list(range(70))


@pytest.mark.slow
def test_a_vocabulary_that_cannot_spell_is_wrong_input(run_cli, finished_run):
    command = ("run", finished_run.desk.pipeline_file, "--output", finished_run.copy("mute"))
    done = run_cli(*command, "--set", "student.vocabulary=30", code=2)
    assert "student.vocabulary: 30, and 57 tokens must stay" in done.stderr


@pytest.mark.slow
def test_where_every_scheme_loses_too_much_matrices_in_fp32_are_tried(
    run_cli, prefect_server, finished_run
):
    """Words that are not there any more are no matter of precision: here even that does not help."""
    output = finished_run.copy("strict")
    settings = ("--set", "student.vocabulary=70", "--set", "gate.quantization_drop=0")
    done = run_cli("run", finished_run.desk.pipeline_file, "--output", output, *settings, code=1)
    assert "quantization_drop" in done.stderr
    tried = [name for name in prefect_server.states(output) if name.startswith("keep precision")]
    assert tried
    mended = sorted((output / "stages").glob("mended-*"))
    assert len(mended) == len(tried)
    for stage in mended:
        assert json.loads((stage / "stage.json").read_text())["facts"]["kept_fp32"] == []
        assert [file.name for file in stage.iterdir()] == ["stage.json"]


@pytest.mark.slow
def test_words_are_packed_after_a_training_that_is_there_already(
    run_cli, prefect_server, finished_run, tiny_bert, tmp_path
):
    sizes = {"hidden_size": 64, "vocab_size": 8_192}
    tokenizer = load_tokenizer(tiny_bert)
    teacher = save_small("bert", "ForSequenceClassification", tokenizer, tmp_path, **sizes)
    settings = (
        f"teacher.source={teacher}",
        "gate.retention=0.1",
        "gate.quantization_drop=1.0",
        f"targets={json.dumps([PHONE])}",
    )
    given = [part for setting in settings for part in ("--set", setting)]
    command = ("run", finished_run.desk.pipeline_file, *given, "--output", tmp_path / "out")
    plain = run_cli.json(*command)
    packed = run_cli.json(*command, "--set", "student.packed_words=after")
    states = prefect_server.states(tmp_path / "out")
    assert states["initialise student"] == states["distil"] == "Cached"
    assert states["pack words"] == "Completed"
    assert packed["student"]["packed_words"] == "after"
    before, after = plain["training"], packed["training"]
    assert after["epochs"][:4] == before["epochs"]
    assert [epoch["epoch"] for epoch in after["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert after["best_epoch"] in (5, 6)
    assert after["epochs"][-1]["step"] == after["steps"] > before["steps"]
    written = (tmp_path / "out" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == list(range(1, after["steps"] + 1))
    assert {"student", "packed"} <= packed["timings_s"].keys()
    assert "packed after the training" in (tmp_path / "out" / "report.html").read_text()
    check = ("check", *command[1:-2], "--set", "student.packed_words=after")
    assert run_cli.json(*check)["steps"] == after["steps"]
    assert "words packed after the training" in run_cli(*check).stdout
    shorter = ("--set", "training.max_steps=4")
    first = run_cli.json(*command, "--set", "student.packed_words=before", *shorter)
    assert (first["student"]["packed_words"], first["training"]["steps"]) == ("before", 4)
    assert (tmp_path / "out" / "student" / WORDS).is_file()
