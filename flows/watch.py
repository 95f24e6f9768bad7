"""Watch a teacher: a run if it changed since the last finished one, a named state if not."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from distill_core.config import Pipeline, TeacherSource
from distill_core.files import read_json
from distill_core.teacher import fingerprint
from flows.distill_and_deploy import distill_and_deploy
from tasks import sources
from tasks.fetch import worth_a_retry

SKIPPED = "Skipped"


@task(
    name="fingerprint teacher",
    task_run_name="fingerprint teacher",
    retries=2,
    retry_delay_seconds=[1, 3],
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def fingerprint_teacher(source: TeacherSource) -> str:
    """Return the teacher's content as it is now, as one digest."""
    return fingerprint(sources.locate(source))


def finished_fingerprint(output: Path) -> str | None:
    """Return the teacher of the last finished run, which report.json names; a run that failed or
    was killed leaves no new one, so its teacher is tried again."""
    path = output / "report.json"
    return read_json(path)["teacher"]["fingerprint"] if path.is_file() else None


@flow(name="watch-teacher", flow_run_name="watch {pipeline.name}")
def watch_teacher(pipeline: Pipeline, output: Path) -> State[dict[str, Any]]:
    """Run a pipeline if its teacher changed since the last finished run.

    Args:
        pipeline: names the teacher.
        output: the folder of the run.
    """
    now, finished = fingerprint_teacher(pipeline.teacher), finished_fingerprint(output)
    if now == finished:
        message = f"teacher {now[:16]} is the one of the last finished run"
        return Completed(name=SKIPPED, message=message, data={"changed": False, "fingerprint": now})
    distill_and_deploy(pipeline, output)
    message = f"teacher {now[:16]} is not the one of the run before; its run is finished"
    return Completed(message=message, data={"changed": True, "fingerprint": now})


def watch_once(pipeline: Pipeline, output: Path) -> dict[str, Any]:
    """Look at the teacher once, and return what was found."""
    return {"name": pipeline.name, **watch_teacher(pipeline, output)}
