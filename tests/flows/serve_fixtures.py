"""A serving process for the tests of `serve` and `watch`, and a person who asks it for runs."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from safetensors.torch import load_file, save_file

from tests.conftest import PATIENCE_S
from tests.flows.conftest import PHONE, CommandLine, Desk, PrefectServer, wait_for

IMPATIENT = {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
"""Prefect asks for scheduled runs every 10 seconds."""


@dataclass(frozen=True)
class Serving:
    """A `distill-deploy serve` that is ready."""

    process: subprocess.Popen[str]
    greeting: list[str]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal, and return exit code, stdout and stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@contextmanager
def serving(
    command: CommandLine, *pipeline_files: Path, **settings: str | None
) -> Iterator[Serving]:
    """Keep `serve` running in the block, from its greeting on."""
    with command.start("serve", *pipeline_files, **{**IMPATIENT, **settings}) as process:
        try:
            greeting = [process.stdout.readline() for _ in range(1 + 2 * len(pipeline_files))]
            yield Serving(process, greeting)
        finally:
            if (
                process.poll() is None
            ):  # a test that failed: the server it may have started must go too
                process.terminate()
                process.communicate(timeout=PATIENCE_S)


@dataclass(frozen=True)
class Person:
    """Asks the server for runs of deployments, and for what became of them."""

    server: PrefectServer

    def deployment(self, name: str) -> Any:
        """Return the deployment of this full name."""
        with SyncPrefectClient(self.server.url) as client:
            return client.read_deployment_by_name(name)

    def ask_for(self, name: str, **parameters: Any) -> Any:
        """Schedule a run for now; parameters replace those that `serve` registered."""
        deployment = self.deployment(name)
        with SyncPrefectClient(self.server.url) as client:
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)

    def planned(self, name: str) -> list[Any]:
        """Return the runs that wait for their time, the next one first."""
        wanted = DeploymentFilter(id={"any_": [self.deployment(name).id]})
        waiting = FlowRunFilter(state={"name": {"any_": ["Scheduled"]}})
        with SyncPrefectClient(self.server.url) as client:
            found = client.read_flow_runs(deployment_filter=wanted, flow_run_filter=waiting)
        return sorted(found, key=lambda run: run.expected_start_time)

    def look_at(self, run: Any) -> Any:
        """Return a run as it is now."""
        with SyncPrefectClient(self.server.url) as client:
            return client.read_flow_run(run.id)

    def wait_for_end(self, *runs: Any) -> list[Any]:
        """Return the runs once all of them are over."""

        def over() -> list[Any]:
            found = [self.look_at(run) for run in runs]
            return found if all(run.state.is_final() for run in found) else []

        return wait_for(over)


def change(teacher: Path) -> None:
    """Move a teacher's weights a little, as a fine-tuning that went on would."""
    path = teacher / "model.safetensors"
    weights = load_file(path)
    moved = {name: tensor + 1e-3 * torch.ones_like(tensor) for name, tensor in weights.items()}
    save_file(moved, path, metadata={"format": "pt"})


def make_quick(desk: Desk) -> Desk:
    """Train four steps for one target, pass whatever comes out, and write the pipeline file."""
    desk.document["training"] |= {"max_steps": 4}
    desk.document["targets"] = [PHONE]
    desk.document["gate"] = {"retention": 0, "quantization_drop": 1}
    desk.write()
    return desk
