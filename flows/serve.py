"""Serve pipelines: Prefect deployments with their schedules, run by this process."""

from collections.abc import Sequence
from pathlib import Path

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import EntrypointType

from distill_core.config import Pipeline
from flows.distill_and_deploy import distill_and_deploy
from flows.watch import watch_teacher


def deployments(pipeline: Pipeline, output: Path) -> list[RunnerDeployment]:
    """Return the deployments of a pipeline: NAME runs it, NAME-watch looks at its teacher."""
    schedule = pipeline.schedule
    return [
        flow.to_deployment(
            name=name,
            cron=cron,
            parameters={
                "pipeline": pipeline.model_dump(mode="json"),
                "output": str(output),
            },
            description=flow.__doc__,
            tags=["distill-deploy", pipeline.name],
            # By module name, so that it is found whatever folder Prefect starts the run in.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for flow, name, cron in (
            (distill_and_deploy, pipeline.name, schedule.cron),
            (watch_teacher, f"{pipeline.name}-watch", schedule.watch),
        )
    ]


def serve_pipelines(pipelines: Sequence[tuple[Pipeline, Path]]) -> None:
    """Register pipelines with Prefect and run what their schedules ask for, until stopped.

    One run at a time: runs side by side would slow each other and spoil each other's timings.
    """
    made = [deployment for pair in pipelines for deployment in deployments(*pair)]
    serve(*made, limit=1)
