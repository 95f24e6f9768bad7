"""Real parts for the tests of the command line: a fitted teacher, a Prefect server, a finished run."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import yaml

from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import read_dataset
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.student import save_model
from distill_core.teacher import load_model, load_tokenizer
from distill_core.training import distill
from tests.conftest import PATIENCE_S

DISTILL_DEPLOY = Path(sys.executable).with_name("distill-deploy")
CLOSED_PORT = "http://127.0.0.1:9"  # "discard", which nothing listens on
OURS = ("PREFECT_", "MLFLOW_", "HF_", "OMP_")
"""Settings that a developer's shell may hold, and that must not reach the tests."""


PHONE = {"name": "phone", "like": "android-arm64", "schemes": ["int8"], "verifiers": []}
"""A target of one file, which answers on this machine alone, for runs of which more would tell nothing."""


def wait_for(condition, timeout_s: float = PATIENCE_S) -> Any:
    """Return what a condition gives as soon as it is true."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"still not true after {timeout_s} s"
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class CommandLine:
    """The installed command, in an environment of its own."""

    environment: dict[str, str]
    folder: Path
    """Where it is typed."""

    def start(self, *arguments: object, **settings: str | None) -> subprocess.Popen[str]:
        """Start the command; settings are environment variables, None takes one away."""
        environment = {**self.environment, **settings}
        return subprocess.Popen(
            [DISTILL_DEPLOY, *map(str, arguments)],
            cwd=self.folder,
            env={name: value for name, value in environment.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(
        self, *arguments: object, code: int = 0, **settings: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, and check that it ends with this exit code."""
        done = self.end(*arguments, **settings)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def end(self, *arguments: object, **settings: str | None) -> subprocess.CompletedProcess[str]:
        """Run the command, however it ends."""
        with self.start(*arguments, **settings) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: object, **settings: str | None) -> Any:
        """Run the command with --json, and read what it prints."""
        return json.loads(self(*arguments, "--json", **settings).stdout)


@dataclass(frozen=True)
class PrefectServer:
    """A real Prefect server, and what it knows of the runs that wrote to a folder."""

    url: str

    def flow_runs(self, output: Path) -> list[Any]:
        """Return the runs of an output folder, oldest first."""
        from prefect.client.orchestration import SyncPrefectClient

        with SyncPrefectClient(self.url) as client:
            found = client.read_flow_runs()
        mine = [run for run in found if run.parameters.get("output") == str(output)]
        return sorted(mine, key=lambda run: run.created)

    def task_runs(self, output: Path) -> list[Any]:
        """Return the task runs of the last run of an output folder, in the order they started."""
        from prefect.client.orchestration import SyncPrefectClient
        from prefect.client.schemas.filters import FlowRunFilter

        flow_run = self.flow_runs(output)[-1]

        def recorded() -> list[Any]:  # the server writes them down a moment later
            with SyncPrefectClient(self.url) as client:
                found = client.read_task_runs(
                    flow_run_filter=FlowRunFilter(id={"any_": [flow_run.id]})
                )
            done = all(run.state is not None and run.state.is_final() for run in found)
            names = {run.name for run in found}
            return sorted(found, key=lambda run: run.start_time) if done and LAST in names else []

        return wait_for(recorded)

    def states(self, output: Path) -> dict[str, str]:
        """Return the state's name of each task run of the last run, by the task run's name."""
        return {run.name: run.state.name for run in self.task_runs(output)}

    def artifacts(self, output: Path) -> list[Any]:
        """Return the artifacts that the last run of an output folder left for people to read."""
        from prefect.client.orchestration import SyncPrefectClient
        from prefect.client.schemas.filters import ArtifactFilter

        ids = [run.id for run in self.task_runs(output)]
        with SyncPrefectClient(self.url) as client:
            return client.read_artifacts(
                artifact_filter=ArtifactFilter(task_run_id={"any_": ids}), limit=200
            )


LAST = "prune stages"
"""The task that a run ends with."""


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def running(command: list[object], environment: dict[str, str], health: str) -> Iterator[None]:
    """Keep a server running in the block, from its first healthy answer on."""
    with TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(lambda: _answers(health))
            yield
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory) -> dict[str, str]:
    """An environment that leads nowhere: no home folder, no hub, no server."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {
        **kept,
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes, for language models
        "HF_HOME": str(home / "huggingface"),
        "HF_ENDPOINT": CLOSED_PORT,
        # Layers of width 32 gain nothing from a second thread, and lose much on a busy machine.
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash says where it was
    }


@pytest.fixture(scope="session")
def prefect_server(clean_environment) -> Iterator[PrefectServer]:
    """One server for all tests: the embedded one takes seconds to start at every run."""
    port = free_port()
    command = [DISTILL_DEPLOY.with_name("prefect"), "server", "start", "--no-ui", "--port", port]
    url = f"http://127.0.0.1:{port}/api"
    with running(command, clean_environment, f"{url}/health"):
        yield PrefectServer(url)


@pytest.fixture(scope="session")
def run_cli(clean_environment, prefect_server, tmp_path_factory) -> CommandLine:
    """The command, with the Prefect server of the tests."""
    environment = {**clean_environment, "PREFECT_API_URL": prefect_server.url}
    return CommandLine(environment, tmp_path_factory.mktemp("typed-here"))


@pytest.fixture(scope="session")
def lone_cli(clean_environment, tmp_path_factory) -> CommandLine:
    """The command with nothing configured, for what must not need a server."""
    return CommandLine(clean_environment, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def tiny_teacher(tiny_bert, sentiment, tmp_path_factory) -> Path:
    """The BERT of 4 layers, trained until it gets every validation sentence right."""
    folder = tmp_path_factory.mktemp("tiny-teacher")
    head = SequenceClassification(("negative", "positive"))
    splits = read_dataset(DataSource(source=str(sentiment)), head, seed=0)
    tokenize(splits, head, load_tokenizer(tiny_bert), max_length=32, folder=folder / "rows")
    rows = open_tokenized(folder / "rows")
    settings = TrainingSettings(epochs=5, batch_size=8, precision="fp32")
    job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
    trained = distill(load_model(tiny_bert), None, job, listen=lambda record: None)
    assert max(epoch.metrics["accuracy"] for epoch in trained.epochs) > 0.9
    save_model(trained.model, tiny_bert, folder / "model")
    return folder / "model"


@dataclass
class Desk:
    """A user's own copy of teacher, data and pipeline file, to change and to break."""

    folder: Path
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def teacher(self) -> Path:
        """A transformers folder."""
        return self.folder / "teacher"

    @property
    def data(self) -> Path:
        """Train and validation, parquet."""
        return self.folder / "data"

    @property
    def output(self) -> Path:
        """Where runs go."""
        return self.folder / "runs" / "tiny"

    @property
    def pipeline_file(self) -> Path:
        """Where `write` puts the pipeline file."""
        return self.folder / "pipeline.yaml"

    def write(self) -> Path:
        """Write the pipeline file, and return its path."""
        self.pipeline_file.write_text(yaml.safe_dump(self.document, sort_keys=False))
        return self.pipeline_file


@pytest.fixture(scope="session")
def make_desk(tiny_teacher, sentiment):
    """Return a function that lays a teacher, data and a pipeline file into an empty folder."""

    def make(folder: Path) -> Desk:
        document = {
            "name": "tiny",
            "teacher": {"source": "teacher"},
            "data": {"source": "data", "max_length": 32, "augment": 0},
            "training": {
                "epochs": 4,
                "batch_size": 16,
                "learning_rate": 0.001,
                "precision": "fp32",
            },
            "targets": ["android-arm64", "ios-arm64"],  # which share a file
            # 30 rows decide here, so a single one is 0.03.
            "gate": {"retention": 0.8, "quantization_drop": 0.2},
        }
        desk = Desk(folder, document)
        shutil.copytree(tiny_teacher, desk.teacher)
        shutil.copytree(sentiment, desk.data)
        desk.write()
        return desk

    return make


@pytest.fixture
def desk(make_desk, tmp_path) -> Desk:
    """A desk of this test's own."""
    return make_desk(tmp_path)


@dataclass(frozen=True)
class FinishedRun:
    """What a run left; read it only, or work on a copy."""

    desk: Desk
    output: Path
    report: dict[str, Any]
    printed: str

    def copy(self, name: str) -> Path:
        """Return a copy of the output, beside it, so that both share the MLflow store."""
        return Path(shutil.copytree(self.output, self.output.with_name(name)))


@pytest.fixture(scope="session")
def finished_run(make_desk, run_cli, tmp_path_factory) -> FinishedRun:
    """One complete run, for all tests that only look."""
    desk = make_desk(tmp_path_factory.mktemp("finished"))
    done = run_cli("run", desk.pipeline_file, "--output", desk.output)
    report = json.loads((desk.output / "report.json").read_text())
    return FinishedRun(desk, desk.output, report, done.stdout)
