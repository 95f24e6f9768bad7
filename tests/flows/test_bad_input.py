"""Wrong input, and servers and disks that fail: one clear message, an exit code, nothing half-made."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient

from tests.flows.conftest import CLOSED_PORT, Desk
from tests.flows.test_tagger import make_tagger

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Mistake:
    """One way to be wrong, and what must be said about it."""

    name: str
    make: Callable[[Desk], object]
    says: tuple[str, ...]
    code: int = 2
    settings: tuple[str, ...] = ()


def _nothing(desk):
    """Leave the desk as it is: the settings are the mistake."""


def _document(**sections):
    def change(desk):
        desk.document.update(sections)
        desk.write()

    return change


def _text(text):
    return lambda desk: desk.pipeline_file.write_text(text)


def _rows(split, change):
    def rewrite(desk):
        path = desk.data / f"{split}.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return rewrite


def _label(row, label):
    def change(table):
        labels = table["label"].to_pylist()
        labels[row] = label
        return table.set_column(1, "label", pa.array(labels))

    return change


def _one_class(table):
    return table.set_column(1, "label", pa.array([1] * len(table)))


def _config(**settings):
    def change(desk):
        path = desk.teacher / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return change


def _pickle(desk):
    weights = desk.teacher / "model.safetensors"
    torch.save({"weight": torch.zeros(1)}, desk.teacher / "pytorch_model.bin")
    weights.unlink()


def _cut_short(desk):
    path = desk.teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5_000])


def _no_tokenizer(desk):
    for path in (*desk.teacher.glob("tokenizer*"), desk.teacher / "vocab.txt"):
        path.unlink()


IN_THE_FILE = [
    Mistake("no file", lambda desk: desk.pipeline_file.unlink(), ("pipeline.yaml", "No such file")),
    Mistake("broken YAML", _text("name: [tiny\nteacher: }"), ("is not YAML", "line 2")),
    Mistake("no mapping", _text("- tiny"), ("is a mapping with at least name, teacher and data",)),
    Mistake("missing key", _text("name: tiny"), ("teacher: is missing", "data: is missing")),
    Mistake(
        "unknown key",
        _document(training={"learning_rat": 1e-3}),
        ("training.learning_rat: unknown key", "did you mean 'learning_rate'?"),
    ),
    Mistake(
        "unknown target",
        _document(targets=["android-arm65"]),
        ("there is no target 'android-arm65'", "android-arm64, android-arm64-legacy"),
    ),
    Mistake("value of another type", _document(training={"epochs": "many"}), ("epochs", "'many'")),
    Mistake(
        "a choice among no texts",
        _nothing,
        ("data", "there are no texts to choose from", "name them in unlabelled"),
        settings=("data.unlabelled_kept=telling",),
    ),
    Mistake("setting without value", _nothing, ("write key.path=value",), settings=("epochs",)),
    Mistake(
        "setting of nothing",
        _nothing,
        ("training.epoch: unknown key", "'epochs'"),
        settings=("training.epoch=1",),
    ),
]
"""Found before anything else is read."""

IN_TEACHER_OR_DATA = [
    Mistake(
        "no data folder",
        lambda desk: shutil.rmtree(desk.data),
        ("data.source: ", "data is not a folder"),
        settings=("data.source=./data",),
    ),
    Mistake(
        "no train file",
        lambda desk: (desk.data / "train.parquet").unlink(),
        ("no train.parquet, train.jsonl or train.csv", "holds validation.parquet"),
    ),
    Mistake(
        "no text column",
        _rows("train", lambda table: table.rename_columns(["sentence", "label"])),
        ("train: no column 'text'; there are sentence, label", "data.columns.text"),
    ),
    Mistake(
        "empty text",
        _rows("train", lambda table: table.set_column(0, "text", pa.array([None, *["x"] * 119]))),
        ("train: column text: row 0 is empty",),
    ),
    Mistake(
        "label out of range",
        _rows("train", _label(7, 2)),
        ("train: column label: row 7 has the label 2", "accepted: 0 to 1"),
    ),
    Mistake("negative label", _rows("validation", _label(3, -1)), ("row 3 has the label -1",)),
    Mistake(
        "empty split",
        _rows("validation", lambda table: table.slice(0, 0)),
        ("validation", "has no rows"),
    ),
    Mistake(
        "one class", _rows("validation", _one_class), ("validation", "all rows have one label")
    ),
    Mistake(
        "rows that are no parquet",
        lambda desk: (desk.data / "train.parquet").write_bytes(b"PAR1 and then nothing"),
        ("train.parquet", "is not parquet: Parquet magic bytes not found"),
    ),
    Mistake(
        "layer out of range",
        _document(student={"layers": [0, 4]}),
        ("student.layers: [0, 4] names layer 4", "accepted: 0 to 3"),
    ),
    Mistake(
        "heads that do not fill the width",
        _document(student={"hidden_size": 30}),
        ("student.hidden_size: 30", "accepted: multiples of 4, up to 32"),
    ),
    Mistake(
        "texts too long",
        _document(data={"source": "data", "max_length": 65}),
        ("data.max_length: 65 tokens, and the teacher reads 64", "accepted: 1 to 64"),
    ),
    Mistake(
        "no teacher folder",
        lambda desk: shutil.rmtree(desk.teacher),
        ("teacher", "is not a folder"),
        settings=("teacher.source=./teacher",),
    ),
    Mistake(
        "unsupported family",
        _config(model_type="gpt2"),
        (
            "teacher/config.json: model_type 'gpt2' is not supported",
            "accepted: encoders like bert, roberta",
        ),
    ),
    Mistake(
        "unsupported head",
        _config(architectures=["BertForPreTraining"]),
        ("BertForPreTraining has no head that can be distilled", "ForSequenceClassification"),
    ),
    Mistake(
        "pickled weights",
        _pickle,
        ("pytorch_model.bin can execute code", "safe_serialization=True"),
    ),
    Mistake(
        "weights cut short", _cut_short, ("teacher/model.safetensors: is damaged or cut short",)
    ),
    Mistake("no tokenizer", _no_tokenizer, ("teacher: no tokenizer here", "accepted: tokenizer")),
    Mistake(
        "no config",
        lambda desk: (desk.teacher / "config.json").unlink(),
        ("teacher/config.json: is missing",),
    ),
]
"""Found by `check`, and by `run` before it trains."""

AT_THE_DOOR = [
    Mistake(
        "hub that cannot be reached",
        _nothing,
        ("teacher.source: ann/teacher is no folder here, and the hub did not answer",),
        code=1,
        settings=("teacher.source=ann/teacher",),
    ),
    Mistake(
        "data set on a hub that cannot be reached",
        _nothing,
        ("data.source: ann/rows: the hub did not answer, and no such folder is here",),
        code=1,
        settings=("data.source=ann/rows",),
    ),
    Mistake(
        "MLflow server that cannot be reached",
        _nothing,
        (f"tracking.uri: {CLOSED_PORT} does not answer", "mlflow server"),
        code=1,
        settings=(f"tracking.uri={CLOSED_PORT}",),
    ),
    Mistake(
        "texts in which the teacher finds nothing",
        lambda desk: make_tagger(desk, lean=1e3),
        ("data.unlabelled: the teacher answers O to every word of its 150 texts", "or null"),
    ),
    Mistake(
        "file where the runs should go",
        lambda desk: (desk.folder / "runs").write_text("mine"),
        ("runs/tiny: cannot be written",),
        code=1,
    ),
    Mistake(
        "file where the stages should go",
        lambda desk: (desk.output.mkdir(parents=True), (desk.output / "stages").write_text("mine")),
        ("runs/tiny/stages: File exists",),
        code=1,
    ),
]
"""Found by a run alone."""


SLOW = ("data set on a hub that cannot be reached", "texts in which the teacher finds nothing")
"""Their neighbours are tested each time: a teacher on that hub, texts of which some are kept."""


def _by_name(mistakes):
    marks = dict.fromkeys(SLOW, pytest.mark.slow)
    return [
        pytest.param(mistake, id=mistake.name, marks=marks.get(mistake.name, ()))
        for mistake in mistakes
    ]


def _settings(mistake):
    return [part for setting in mistake.settings for part in ("--set", setting)]


def _says(done, mistake):
    """Check that there is one message, that it says what it must, and that there is nothing else."""
    assert done.stderr.startswith("distill-deploy: ")
    assert done.stderr.count("distill-deploy: ") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for words in mistake.says:
        assert words in done.stderr


def _nothing_looks_whole(output):
    for name in ("report.json", "report.html", "bundles", "student"):
        assert not (output / name).exists(), name
    assert list(output.rglob("*.partial*")) == []


@pytest.mark.parametrize("mistake", _by_name(IN_THE_FILE))
def test_run_stops_at_a_mistake_in_the_pipeline_file(run_cli, desk, mistake):
    mistake.make(desk)
    arguments = ("run", desk.pipeline_file, "--output", desk.output, *_settings(mistake))
    _says(run_cli(*arguments, code=2), mistake)
    assert not desk.output.exists()


@pytest.mark.parametrize("mistake", _by_name(IN_TEACHER_OR_DATA))
def test_check_finds_a_mistake_in_teacher_or_data(run_cli, desk, mistake):
    mistake.make(desk)
    _says(run_cli("check", desk.pipeline_file, *_settings(mistake), code=2), mistake)


@pytest.mark.parametrize(
    "mistake",
    _by_name(m for m in IN_TEACHER_OR_DATA if m.name == "weights cut short"),
)
def test_run_says_what_check_says(run_cli, desk, mistake):
    mistake.make(desk)
    checked = run_cli("check", desk.pipeline_file, code=2)
    done = run_cli("run", desk.pipeline_file, "--output", desk.output, code=2)
    assert done.stderr == checked.stderr
    _nothing_looks_whole(desk.output)


@pytest.mark.faults
@pytest.mark.parametrize("mistake", _by_name(AT_THE_DOOR))
def test_run_stops_where_a_server_or_the_output_fails(run_cli, desk, mistake):
    mistake.make(desk)
    arguments = ("run", desk.pipeline_file, "--output", desk.output, *_settings(mistake))
    _says(run_cli(*arguments, code=mistake.code), mistake)
    _nothing_looks_whole(desk.output)


@pytest.mark.faults
@pytest.mark.parametrize("command", ["run", "watch"])
def test_prefect_server_that_cannot_be_reached_is_named(run_cli, desk, command):
    url = f"{CLOSED_PORT}/api"
    done = run_cli(
        command, desk.pipeline_file, "--output", desk.output, code=1, PREFECT_API_URL=url
    )
    _says(done, Mistake("", _nothing, (f"PREFECT_API_URL: {url} does not answer", "server start")))
    assert not desk.output.exists()


@pytest.mark.faults
def test_embedded_prefect_server_that_does_not_start_is_named(lone_cli, desk):
    impatient = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0"}
    done = lone_cli("run", desk.pipeline_file, "--output", desk.output, code=1, **impatient)
    said = ("PREFECT_API_URL: is not set", "embedded server does not start", "server start")
    _says(done, Mistake("", _nothing, said))
    assert not desk.output.exists()


def test_training_that_diverges_fails_everywhere_it_is_seen(run_cli, prefect_server, finished_run):
    output = finished_run.copy("diverged")
    command = ("run", finished_run.desk.pipeline_file, "--output", output)
    done = run_cli(*command, "--set", "training.learning_rate=1e30", code=1)
    _says(done, Mistake("", _nothing, ("the loss is nan", "try a lower training.learning_rate")))
    assert prefect_server.flow_runs(output)[-1].state_name == "Failed"
    client = MlflowClient(finished_run.report["tracking_uri"])
    experiment = client.get_experiment_by_name("tiny")
    newest = client.search_runs([experiment.experiment_id], max_results=1)[0]
    assert newest.info.status == "FAILED"
    last_step = int(re.search(r"step (\d+)", done.stderr)[1])
    history = client.get_metric_history(newest.info.run_id, "loss/total")
    assert [metric.step for metric in history] == list(range(1, last_step))


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of some kilobytes; skips where that is not permitted."""
    mounted = []

    def mount(kilobytes):
        folder = tmp_path / f"disk-{kilobytes}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    try:
        yield mount
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _fill(disk, left_kb):
    """Leave so many kilobytes free."""
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(free - 1024 * left_kb, 0)))


@pytest.mark.faults
@pytest.mark.parametrize("fails", [pytest.param("logging", marks=pytest.mark.slow), "publishing"])
def test_full_disk_ends_with_a_message_and_the_run_goes_on_once_there_is_space(
    run_cli, finished_run, small_disk, fails
):
    disk = small_disk(16_000)
    output = disk / "runs" / "tiny"
    output.mkdir(parents=True)
    shutil.copytree(finished_run.output / "stages", output / "stages")
    command = ["run", finished_run.desk.pipeline_file, "--output", output]
    if fails == "logging":
        _fill(disk, left_kb=100)  # MLflow's database takes 1,000
    else:
        command += ["--set", f"tracking.uri={finished_run.report['tracking_uri']}"]
        _fill(disk, left_kb=500)  # the report takes 60, the student 120, the bundles 600
    done = run_cli(*command, code=1)
    _says(done, Mistake("", _nothing, ("the disk is full",)))
    assert (output / "student").exists() == (fails == "publishing")
    assert {path.name for path in output.iterdir()} <= {".lock", "stages", "student"}
    assert list(output.rglob("*.partial*")) == []
    (disk / "ballast").unlink()
    assert run_cli.json(*command)["student"] == finished_run.report["student"]
