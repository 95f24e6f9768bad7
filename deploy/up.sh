#!/bin/sh
# Start a Prefect server and an MLflow server on this machine, and stop both with Ctrl-C.
set -eu
data=${DISTILL_DEPLOY_DATA:-runs/servers}
mkdir -p "$data/artifacts"
export PREFECT_HOME="$data/prefect"
.venv/bin/prefect server start --host 127.0.0.1 --port 4200 &
prefect=$!
# Its jobs are for language models: eight processes of 240 MB that a pipeline never asks for anything.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
.venv/bin/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
    --backend-store-uri "sqlite:///$data/mlflow.db" --artifacts-destination "$data/artifacts" &
mlflow=$!
trap 'kill $prefect $mlflow 2>/dev/null; wait' INT TERM EXIT
echo "Prefect: http://127.0.0.1:4200   export PREFECT_API_URL=http://127.0.0.1:4200/api"
echo "MLflow:  http://127.0.0.1:5000   tracking: {uri: http://127.0.0.1:5000}"
wait
