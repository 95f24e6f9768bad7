"""MLflow: the only file that logs to it."""

import getpass
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.errors import SourceUnreachable
from distill_core.files import read_json
from distill_core.manifest import TensorEntry, read_manifest
from tasks.artifacts import flatten, publish_facts
from tasks.caching import STAGES, Stage, as_state, run_stage
from tasks.fetch import worth_a_retry
from tasks.figures import describe_outcome, result_metrics
from tasks.job import Job
from tasks.stages import BUNDLE, REPORT, REPORT_PAGE, read_steps

if TYPE_CHECKING:  # mlflow takes seconds to import, and a re-run that changes nothing does without
    from mlflow import MlflowClient
    from mlflow.types import Schema

    from distill_core.job import StepRecord
    from distill_core.training import EpochRecord

BATCH = 1_000
"""Metrics a request may hold (MLflow REST API, "Log Batch")."""
SEND_EVERY_S = 5.0
_LAST = "loss/total"
"""Of a step's figures it is sent last, so that where it is the others are."""


def tracking_uri(job: Job) -> str:
    """Return the MLflow server of the pipeline file, or the sqlite store beside the runs."""
    return job.pipeline.tracking.uri or f"sqlite:///{job.output.parent / 'mlflow.db'}"


def open_client(uri: str) -> "MlflowClient":
    """Return a client of a tracking store.

    Raises:
        SourceUnreachable: a server that does not answer within seconds; MLflow's own client
            would try for minutes.
    """
    import httpx
    from mlflow import MlflowClient

    if uri.startswith(("http://", "https://")):
        try:
            httpx.get(f"{uri.rstrip('/')}/health", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            raise SourceUnreachable(
                f"tracking.uri: {uri} does not answer ({error}); start it with `mlflow server`, or set "
                "tracking.uri: null for a local store"
            ) from None
    return MlflowClient(tracking_uri=uri)


@task(name="open MLflow run", task_run_name="open MLflow run", cache_policy=NO_CACHE)
def open_run(job: Job, teacher: Stage, data: Stage) -> State[Stage]:
    """Open the MLflow run of these inputs, or find the one that an earlier, unfinished run opened."""
    pipeline = job.pipeline
    inputs = {
        "pipeline": pipeline.model_dump(mode="json", exclude={"schedule"}),
        "teacher": teacher.key,
        "data": data.key,
        "code": {name: code.digest() for name, code in STAGES.items()},
        "uri": tracking_uri(job),
    }

    def build(_: Path) -> dict[str, Any]:
        client = open_client(tracking_uri(job))
        run_id = _create_run(client, job)
        for name, value in flatten(pipeline.model_dump(mode="json", exclude={"schedule"})):
            client.log_param(run_id, name, value)
        return {"uri": tracking_uri(job), "run_id": run_id, "experiment": pipeline.name}

    stage = run_stage(job.output, "mlflow", inputs, build)
    publish_facts(pipeline.name, stage)
    return as_state(stage)


def _create_run(client: "MlflowClient", job: Job) -> str:
    name = job.pipeline.name
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        experiment_id = experiment.experiment_id
    elif tracking_uri(job).startswith("sqlite:"):
        artifacts = (job.output.parent / "mlartifacts").as_uri()
        experiment_id = client.create_experiment(name, artifact_location=artifacts)
    else:
        experiment_id = client.create_experiment(name)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "distill-deploy"}
    run = client.create_run(experiment_id, run_name=f"{name} {started}", tags=tags)
    return str(run.info.run_id)


@dataclass
class LiveLosses:
    """Sends the losses of every step to MLflow while the training runs."""

    run: Stage
    _pending: list["StepRecord | EpochRecord"] = field(default_factory=list)
    _sent_at: float = 0.0

    @contextmanager
    def sending(self) -> Iterator[Callable[["StepRecord | EpochRecord"], None]]:
        """Yield a listener for a training; a server that goes away does not stop it."""
        try:
            yield self._listen
        finally:  # where a training fails, its last losses are the ones to look at
            self._send()

    def _listen(self, record: "StepRecord | EpochRecord") -> None:
        self._pending.append(record)
        if time.monotonic() - self._sent_at > SEND_EVERY_S:
            self._send()

    def _send(self) -> None:
        records, self._pending = self._pending, []
        self._sent_at = time.monotonic()
        try:
            rows = [vars(record) for record in records]
            log_training(self.run, rows)
        except Exception as error:  # log_results sends what is missing
            get_run_logger().warning("MLflow did not take the losses: %s", error)


def log_training(run: Stage, records: Sequence[Mapping[str, Any]]) -> None:
    """Log steps and validations of a training.

    A figure has the time at which it arose, so that sending it twice leaves it there once.
    """
    from mlflow.entities import Metric

    client = open_client(run.facts["uri"])
    metrics = []
    for record in records:
        if "metrics" in record:
            named = {f"validation/{name}": value for name, value in record["metrics"].items()}
        else:
            named = {
                f"training/{name}": record[name]
                for name in ("learning_rate", "rows_per_s", "epoch")
            }
            named |= {f"loss/{name}": value for name, value in record["losses"].items()}
            named[_LAST] = record["total"]
        metrics += [
            Metric(name, value, record["timestamp_ms"], record["step"])
            for name, value in named.items()
        ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run.facts["run_id"], metrics[start : start + BATCH])


def untold_steps(run: Stage, steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that MLflow was not told of, or not wholly, while they were taken.

    What it is told again it looks for figure by figure: half a minute for 3,000 steps.
    """
    history = open_client(run.facts["uri"]).get_metric_history(run.facts["run_id"], _LAST)
    told = {metric.step for metric in history}
    return [step for step in steps if step["step"] not in told]


@task(
    name="log to MLflow",
    task_run_name="log to MLflow",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def log_results(
    job: Job, run: Stage, data: Stage, student: Stage, report: Stage, bundles: Sequence[Stage]
) -> State[Stage]:
    """Log everything that the run found out: figures, report, bundles, and the ONNX model."""
    inputs = {
        "run": run.key,
        "report": report.key,
        "bundles": [bundle.key for bundle in bundles],
        "registered_model": job.pipeline.tracking.registered_model,
    }

    def build(_: Path) -> dict[str, Any]:
        client = open_client(run.facts["uri"])
        log_training(run, [*untold_steps(run, read_steps(student)), *student.facts["epochs"]])
        figures = read_json(report.folder / REPORT)
        metrics = result_metrics(figures)
        for name, value in metrics.items():
            client.log_metric(run.facts["run_id"], name, value)
        for name, value in (
            ("passed", str(figures["passed"]).lower()),
            ("teacher_fingerprint", figures["teacher"]["fingerprint"]),
            ("mlflow.note.content", describe_outcome(figures)),  # the run's description
        ):
            client.set_tag(run.facts["run_id"], name, value)
        with _active(run):
            _log_files(job, data, report, bundles)
        return {"run_id": run.facts["run_id"], "uri": run.facts["uri"], "metrics": metrics}

    stage = run_stage(job.output, "logged", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


@contextmanager
def _active(run: Stage) -> Iterator[None]:
    """Make a run the active one of MLflow's fluent functions, and finished afterwards."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.facts["uri"])
    try:
        with mlflow.start_run(run_id=run.facts["run_id"]):
            yield
    finally:
        mlflow.set_tracking_uri(before)


def _log_files(job: Job, data: Stage, report: Stage, bundles: Sequence[Stage]) -> None:
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource

    source = LocalArtifactDatasetSource(data.facts["source"])
    for split, rows in data.facts["rows"].items():
        dataset = MetaDataset(source, name=split, digest=data.facts["fingerprint"][:16])
        mlflow.log_input(dataset, context=split, tags={"rows": str(rows)})
    for name in (REPORT, REPORT_PAGE):
        mlflow.log_artifact(str(report.folder / name))
    if not report.facts["passed"]:
        return  # what the gate said no to must not be picked up from here either
    for number, bundle in enumerate(bundles):
        mlflow.log_artifacts(str(bundle.folder / BUNDLE), f"bundles/{bundle.facts['target']}")
        registered = job.pipeline.tracking.registered_model if number == 0 else None
        _log_model(bundle, registered)


def _log_model(bundle: Stage, registered_model: str | None) -> None:
    """Log a target's ONNX file with its signature, so that MLflow can serve it."""
    import mlflow
    import onnx
    from mlflow.models import ModelSignature

    manifest = read_manifest(bundle.folder / BUNDLE)
    mlflow.onnx.log_model(
        onnx.load(bundle.folder / BUNDLE / manifest.model),
        name=f"onnx-{manifest.target}",
        signature=ModelSignature(_schema(manifest.inputs), _schema(manifest.outputs)),
        registered_model_name=registered_model,
        onnx_execution_providers=["CPUExecutionProvider"],  # what it was quantized for
        # Named, since MLflow would otherwise load the model in another process to guess them.
        pip_requirements=[f"onnxruntime=={manifest.versions['onnxruntime']}"],
    )


def _schema(tensors: Sequence[TensorEntry]) -> "Schema":
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    return Schema(
        [
            TensorSpec(
                np.dtype(tensor.dtype),
                tuple(length if isinstance(length, int) else -1 for length in tensor.shape),
                tensor.name,
            )
            for tensor in tensors
        ]
    )


@contextmanager
def failing(opened: State[Stage]) -> Iterator[None]:
    """Mark the MLflow run as failed if the block raises.

    Args:
        opened: what `open_run` returned. Prefect turns a state into its data for tasks alone.
    """
    try:
        yield
    except BaseException:
        try:
            run = opened.result()
            open_client(run.facts["uri"]).set_terminated(run.facts["run_id"], "FAILED")
        except Exception as error:
            get_run_logger().warning("MLflow could not be told that the run failed: %s", error)
        raise
