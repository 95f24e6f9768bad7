"""What MLflow is told of a training, while it runs and at its end."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from tasks.caching import Stage
from tasks.tracking import log_training, untold_steps

STEPS: list[dict[str, Any]] = [
    {
        "step": number,
        "epoch": 1,
        "losses": {"task": 2.0 / number, "cosine": 1.0 / number},
        "total": 3.0 / number,
        "learning_rate": 0.1 * number,
        "rows_per_s": 10.0,
        "timestamp_ms": 1_000 * number,
    }
    for number in range(1, 6)
]


@pytest.fixture
def run(tmp_path: Path) -> Stage:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("tiny", artifact_location=str(tmp_path))
    facts = {"uri": uri, "run_id": client.create_run(experiment).info.run_id}
    return Stage("mlflow", "0" * 64, tmp_path, facts, {}, 0.0, cached=False)


def test_what_mlflow_did_not_take_while_the_training_ran_is_sent_at_its_end(run: Stage) -> None:
    assert untold_steps(run, STEPS) == STEPS
    log_training(run, [*STEPS[:1], *STEPS[3:4]])
    lacking = untold_steps(run, STEPS)
    assert [step["step"] for step in lacking] == [2, 3, 5]
    log_training(run, lacking)
    assert untold_steps(run, STEPS) == []
    client = MlflowClient(run.facts["uri"])
    for name in ("loss/task", "loss/cosine", "loss/total", "training/learning_rate"):
        history = client.get_metric_history(run.facts["run_id"], name)
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]


def test_a_step_of_which_mlflow_has_a_part_is_sent_again(run: Stage) -> None:
    client, name = MlflowClient(run.facts["uri"]), "training/learning_rate"
    step = STEPS[1]
    part = Metric(name, step["learning_rate"], step["timestamp_ms"], step["step"])
    client.log_batch(run.facts["run_id"], [part])
    assert untold_steps(run, STEPS) == STEPS
    log_training(run, STEPS)
    history = client.get_metric_history(run.facts["run_id"], name)
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]
