"""Serve pipelines: Prefect deployments with their schedules, run by this process."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from signal import pthread_kill
from threading import Timer, main_thread
from typing import Any

import httpx
from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import APILogHandler
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)
from prefect.states import State

from distill_core.config import Pipeline
from distill_core.errors import ConfigError, SourceUnreachable
from flows.distill_and_deploy import distill_and_deploy
from flows.terminal import print_lines
from flows.watch import watch_teacher

STOPPING = (signal.SIGINT, signal.SIGTERM)
SERVER_START_TIMEOUT_S = 120.0
SERVER_STOP_TIMEOUT_S = 20.0


def serve_pipelines(pipelines: Sequence[tuple[Pipeline, Path]]) -> None:
    """Register pipelines with Prefect and run what their schedules ask for, until stopped.

    One run at a time: runs side by side would slow each other and spoil each other's timings. What
    becomes due meanwhile waits. SIGINT and SIGTERM cancel the run that is going, and pause the
    schedules until the next `serve`.

    Args:
        pipelines: each with the folder of its runs.

    Raises:
        ConfigError: two pipelines have one name; or no server is configured, and the port of the
            one to be started here is taken.
        SourceUnreachable: the server does not answer, or not any more.
    """
    names = Counter(pipeline.name for pipeline, _ in pipelines)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"name: {twice[0]} is the name of two pipelines; give each its own")
    made = [deployment for pair in pipelines for deployment in deployments(*pair)]
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    # An interrupt comes this far before there is a runner to be stopped, or as the second one.
    with suppress(KeyboardInterrupt), _server() as url:
        try:
            asyncio.run(_serve(made, url))
        except httpx.TransportError as error:  # for minutes, through all of Prefect's retries
            raise SourceUnreachable(
                f"PREFECT_API_URL: {url} does not answer any more ({error}), so no run can be started; "
                "see to it, then serve again"
            ) from None
        APILogHandler().flush()  # its last lines, while there is a server to take them


def deployments(pipeline: Pipeline, output: Path) -> list[RunnerDeployment]:
    """Return the deployments of a pipeline: NAME runs it, NAME-watch looks at its teacher."""
    made = []
    for flow, attribute, name, cron in (
        (run_pipeline, "run_pipeline", pipeline.name, pipeline.schedule.cron),
        (watch_pipeline, "watch_pipeline", f"{pipeline.name}-watch", pipeline.schedule.watch),
    ):
        deployment = flow.to_deployment(
            name=name,
            # None would leave the schedule of an earlier `serve` where it is.
            schedules=[Cron(cron, timezone="UTC")] if cron else [],
            parameters={"pipeline": pipeline.model_dump(mode="json"), "output": str(output)},
            description=(flow.description or "").partition("\n\n")[0],
            tags=["distill-deploy", pipeline.name],
        )
        # By module name, so that it is found whatever folder Prefect starts the run in.
        deployment.entrypoint = f"{__name__}.{attribute}"
        made.append(deployment)
    return made


def _say(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Print what became of a run: all that a person at the terminal needs of Prefect's log."""
    message = f": {state.message}" if state.message else ""
    _print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {flow_run.name}: {state.name}{message}")


def _print(*lines: str) -> None:
    """Print lines at once: a log file or a pipe would keep them back until there are many."""
    print_lines(*lines)
    sys.stdout.flush()


def heed_termination(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Make this process end at Prefect's signal, wherever in the run the signal comes.

    Prefect turns it into an exception. Python drops an exception that is raised in a weakref's
    callback or in `__del__`, prints it, and the run would go on until it is killed; so ask again.
    """

    def ask_again(dropped: "sys.UnraisableHookArgs") -> None:
        if isinstance(dropped.exc_value, TerminationSignal):
            # In this very thread, or a call that waits there would go on waiting.
            Timer(0.1, pthread_kill, (main_thread().ident, dropped.exc_value.signal)).start()
        else:
            sys.__unraisablehook__(dropped)

    sys.unraisablehook = ask_again


_SAYING: dict[str, Any] = {
    "on_running": [_say, heed_termination],
    **{f"on_{event}": [_say] for event in ("completion", "failure", "crashed", "cancellation")},
}
run_pipeline = distill_and_deploy.with_options(**_SAYING)
watch_pipeline = watch_teacher.with_options(**_SAYING)


class _Runner(Runner):
    """Prefect's runner, which stops on SIGINT as on SIGTERM, and ends its runs first.

    That of 3.8.8 kills a run that is going and leaves it marked Running for ever; on SIGTERM it
    also calls `stop`, which in a running event loop returns a coroutine that nobody awaits.
    """

    _asked_to_stop = False

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """Cancel the run that is going, and leave `start`; the second time, leave at once."""
        if self._asked_to_stop:
            raise KeyboardInterrupt
        self._asked_to_stop = True
        if self.started:
            self.execute_in_background(self.astop)

    async def __aenter__(self) -> "_Runner":
        """Start; and stop at once if that was asked for while the deployments were registered."""
        await super().__aenter__()
        if self._asked_to_stop:
            self.execute_in_background(self.astop)
        return self


async def _serve(made: Sequence[RunnerDeployment], url: str) -> None:
    runner = _Runner(limit=1, pause_on_shutdown=True)
    for number in STOPPING:
        signal.signal(number, runner.handle_sigterm)
    for deployment in made:
        await runner.aadd_deployment(deployment)
    _print(
        f"serving until stopped, one run at a time; Prefect: {url.removesuffix('/api')}",
        *(f"  {deployment.full_name}  {_when(deployment)}" for deployment in made),
    )
    await runner.start()


def _when(deployment: RunnerDeployment) -> str:
    schedules = [entry.schedule.cron for entry in deployment.schedules or ()]
    return f"{schedules[0]} (UTC)" if schedules else "when asked to"


@contextmanager
def _server() -> Iterator[str]:
    """Yield the address of the Prefect server; where none is configured, of one that runs meanwhile.

    The embedded server that does for a single run has neither a scheduler nor pages to look at.
    """
    if configured := PREFECT_API_URL.value():
        yield configured
        return
    host, port = PREFECT_SERVER_API_HOST.value(), PREFECT_SERVER_API_PORT.value()
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise ConfigError(
                f"PREFECT_API_URL: is not set, and {host}:{port} is taken, so that no Prefect server can "
                f"be started there; if it is one, export PREFECT_API_URL=http://{host}:{port}/api, "
                "otherwise run `prefect server start --port …` and set PREFECT_API_URL"
            )
    url = f"http://{host}:{port}/api"
    # In a session of its own: Ctrl-C must not take it away before the runner has said goodbye.
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(process, url)
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    finally:
        process.terminate()
        try:
            process.wait(SERVER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # a page that somebody left open
            process.kill()
            process.wait()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + SERVER_START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.2)
    raise SourceUnreachable(
        f"PREFECT_API_URL: is not set, and the Prefect server started at {url} does not answer; run "
        "`prefect server start` to see why, and set PREFECT_API_URL"
    )
