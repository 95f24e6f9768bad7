"""What a complete run leaves: report, student, bundles, MLflow's and Prefect's records."""

import hashlib
import json
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_core.session import open_session
from distill_core.targets import find_target
from tests.core.signing_keys import write_keys

pytestmark = pytest.mark.integration

TARGETS = ("android-arm64", "ios-arm64")
STAGE_TASKS = (
    "fetch teacher",
    "prepare data",
    "open MLflow run",
    "initialise student",
    "distil",
    "evaluate",
    "compare baselines",
    "export",
    *(f"code words for {packing}" for packing in ("embeddings by 4", "all by 4", "all by 6")),
    *(
        f"quantize to {scheme}"
        for scheme in ("int8", "int8-embeddings-of-4-bits", "int8-of-4-bits", "int8-of-3-bits")
    ),
    "benchmark",
    *(f"choose for {target}" for target in TARGETS),
    *(f"bundle for {target}" for target in TARGETS),
    "verify int8",
    "report",
    "log to MLflow",
)


@pytest.fixture(scope="module")
def validation(finished_run):
    """The texts and labels that the report's scores are of."""
    return pq.read_table(finished_run.desk.data / "validation.parquet").to_pydict()


def _accuracy(logits, labels):
    return float((np.asarray(logits).argmax(axis=-1) == np.asarray(labels)).mean())


FIELDS = {
    *("name", "passed", "gate", "main_metric", "teacher", "student", "retention", "agreement"),
    *("artifacts", "timings_s", "mlflow_run_id", "versions"),
}
ARTIFACT_FIELDS = {
    *("target", "file", "scheme", "bytes", "sha256", "metrics", "retention", "agreement"),
    *(
        "latency_ms",
        "teacher_latency_ms",
        "load_ms",
        "peak_rss_mb",
        "verified_on",
        "candidates",
        "fp32_left",
    ),
    *("verifications", "verifiers_missing"),
}


def test_report_has_the_fields_of_the_contract(finished_run):
    report = finished_run.report
    assert set(report) >= FIELDS
    assert set(report["teacher"]) >= {"source", "fingerprint", "parameters", "bytes", "metrics"}
    assert set(report["student"]) >= {"layers", "parameters", "metrics"}
    for artifact in report["artifacts"]:
        assert set(artifact) >= ARTIFACT_FIELDS
        assert set(artifact["latency_ms"]) == set(artifact["teacher_latency_ms"]) == {"p50", "p95"}
        assert len(artifact["verified_on"]) == len(artifact["verifications"])


def test_each_file_is_asked_on_this_machine_and_where_its_target_says(finished_run):
    for artifact in finished_run.report["artifacts"]:
        asked = {entry["verifier"]: entry for entry in artifact["verifications"]}
        wanted = {"native", *find_target(artifact["target"]).verifiers}
        assert {*asked, *artifact["verifiers_missing"]} == wanted
        for entry in asked.values():
            assert entry["rows"] == 30  # of the whole split
            assert entry["flips_from_native"] == 0


def test_figures_of_the_report_agree_with_each_other(finished_run):
    report = finished_run.report
    metric, teacher, student = report["main_metric"], report["teacher"], report["student"]
    assert report["name"] == "tiny"
    assert report["passed"]
    assert report["gate"]["failures"] == []
    assert student["layers"] == [0, 2]
    assert student["parameters"] < teacher["parameters"]
    assert report["retention"] == student["metrics"][metric] / teacher["metrics"][metric]
    for artifact in report["artifacts"]:
        assert artifact["retention"] == artifact["metrics"][metric] / teacher["metrics"][metric]
        assert artifact["drop"] == student["metrics"][metric] - artifact["metrics"][metric]
        latency, teacher_latency = artifact["latency_ms"], artifact["teacher_latency_ms"]
        assert artifact["speedup"] == teacher_latency["p50"] / latency["p50"]
        assert 0 < latency["p50"] <= latency["p95"]
    assert set(report["timings_s"]) >= {"student", "evaluation", "onnx", "artifact", "benchmark"}
    assert {"torch", "transformers", "onnxruntime", "python"} <= set(report["versions"])


def test_report_holds_what_needs_no_transformer(finished_run):
    floors = {baseline["name"]: baseline for baseline in finished_run.report["baselines"]}
    assert set(floors) == {"tf-idf", "static embeddings"}
    for floor in floors.values():
        assert floor["metrics"]["accuracy"] > 0.9  # one word decides
        assert f"{floor['name']} reaches accuracy" in " ".join(finished_run.report["notes"])


@pytest.mark.slow
def test_baseline_is_the_same_student_taught_by_labels_alone(finished_run, run_cli):
    output = finished_run.copy("with-baseline")
    made_before = {path.name for path in (output / "stages").iterdir()}
    run_cli("run", finished_run.desk.pipeline_file, "--output", output, "--set", "baseline=true")
    report = json.loads((output / "report.json").read_text())
    untaught = report["baselines"][-1]
    assert untaught["name"] == "labels alone"
    assert untaught["metrics"]["accuracy"] > 0.5
    made = {path.name for path in (output / "stages").iterdir()} - made_before
    kinds = {name.partition("-")[0] for name in made}
    assert kinds == {"untaught", "baselines", "mlflow", "report", "logged"}
    assert report["student"] == finished_run.report["student"]


def test_files_are_as_large_and_as_the_report_says(finished_run):
    for artifact in finished_run.report["artifacts"]:
        content = (finished_run.output / artifact["file"]).read_bytes()
        assert len(content) == artifact["bytes"]
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"]


def test_student_folder_loads_in_transformers_and_scores_as_reported(finished_run, validation):
    folder = finished_run.output / "student"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(validation["text"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**encoded).logits
    reported = finished_run.report["student"]
    assert _accuracy(logits, validation["label"]) == reported["metrics"]["accuracy"]
    assert sum(parameter.numel() for parameter in model.parameters()) == reported["parameters"]
    assert model.config.num_hidden_layers == len(reported["layers"])
    assert not list(folder.glob("*.bin"))


@pytest.mark.parametrize("target", TARGETS)
def test_bundle_has_the_layout_that_transformers_js_and_optimum_read(finished_run, target):
    bundle = finished_run.output / "bundles" / target
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert files >= {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "manifest.json",
        "README.md",
    }
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["target"] == target
    assert manifest["teacher_fingerprint"] == finished_run.report["teacher"]["fingerprint"]
    assert {entry["path"] for entry in manifest["files"]} == files - {"manifest.json"}


def test_bundle_scores_as_reported_with_nothing_but_its_own_files(finished_run, validation):
    bundle = finished_run.output / "bundles" / "ios-arm64"
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # bytes as a phone has them
    session = onnxruntime.InferenceSession(bundle / "onnx" / "model_quantized.onnx", options)
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    names = [entry.name for entry in session.get_inputs()]
    logits = []
    for text in validation["text"]:  # one at a time, as a phone does
        encoded = tokenizer(text, return_tensors="np")
        logits.append(session.run(None, {name: encoded[name] for name in names})[0][0])
    metrics = finished_run.report["artifacts"][1]["metrics"]
    assert _accuracy(logits, validation["label"]) == metrics["accuracy"]


@pytest.mark.parametrize("file", ["model.onnx", "model_quantized.onnx"])
def test_files_read_texts_as_long_as_the_manifest_says_and_no_longer(finished_run, file):
    bundle = finished_run.output / "bundles" / "ios-arm64"
    longest = json.loads((bundle / "manifest.json").read_text())["max_length"]
    session = onnxruntime.InferenceSession(bundle / "onnx" / file)

    def ask(tokens):
        ids = np.ones((1, tokens), dtype=np.int64)
        return session.run(None, {entry.name: ids for entry in session.get_inputs()})[0]

    assert np.isfinite(ask(longest)).all()
    with pytest.raises(Fail):
        ask(longest + 1)


def test_run_leaves_nothing_half_written(finished_run):
    left = {path.name for path in finished_run.output.iterdir() if not path.name.startswith(".")}
    assert left == {"report.json", "report.html", "steps.jsonl", "student", "bundles", "stages"}
    assert list(finished_run.output.rglob("*.partial*")) == []
    page = (finished_run.output / "report.html").read_text()
    assert "<html" in page
    assert 'src="http' not in page


@pytest.fixture(scope="module")
def mlflow_client(finished_run):
    assert (
        finished_run.report["tracking_uri"] == f"sqlite:///{finished_run.output.parent}/mlflow.db"
    )
    return MlflowClient(finished_run.report["tracking_uri"])


@pytest.fixture(scope="module")
def mlflow_run(mlflow_client, finished_run):
    return mlflow_client.get_run(finished_run.report["mlflow_run_id"])


def test_mlflow_run_is_finished_and_says_what_came_out(mlflow_client, mlflow_run):
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_client.get_experiment(mlflow_run.info.experiment_id).name == "tiny"
    assert mlflow_run.data.tags["passed"] == "true"
    assert "**Passed**" in mlflow_run.data.tags["mlflow.note.content"]


def test_mlflow_has_the_pipeline_file_as_parameters(mlflow_run, finished_run):
    parameters = mlflow_run.data.params
    assert parameters["training.learning_rate"] == "0.001"
    assert parameters["losses.temperature"] == "2.0"
    assert parameters["teacher.source"] == str(finished_run.desk.teacher)


@pytest.mark.parametrize("loss", ["distillation", "task", "cosine", "total"])
def test_mlflow_has_each_loss_of_every_step_once(mlflow_client, mlflow_run, finished_run, loss):
    history = mlflow_client.get_metric_history(mlflow_run.info.run_id, f"loss/{loss}")
    written = (finished_run.output / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in written]
    training = finished_run.report["training"]
    assert len(steps) == training["steps"] == 8 * len(training["epochs"])  # 120 rows in sixteens
    values = [{**step["losses"], "total": step["total"]}[loss] for step in steps]
    assert [(m.step, m.value) for m in history] == list(enumerate(values, start=1))


def test_mlflow_has_the_validation_of_every_epoch(mlflow_client, mlflow_run, finished_run):
    history = mlflow_client.get_metric_history(mlflow_run.info.run_id, "validation/accuracy")
    epochs = finished_run.report["training"]["epochs"]
    assert [m.value for m in history] == [epoch["metrics"]["accuracy"] for epoch in epochs]


def test_mlflow_has_the_figures_of_teacher_student_and_targets(mlflow_run, finished_run):
    report, metrics = finished_run.report, mlflow_run.data.metrics
    for owner in ("teacher", "student"):
        assert metrics[f"{owner}/accuracy"] == report[owner]["metrics"]["accuracy"]
        assert metrics[f"{owner}/bytes"] == report[owner]["bytes"]
    for artifact in report["artifacts"]:
        target = artifact["target"]
        for name in ("bytes", "retention", "load_ms", "peak_rss_mb"):
            assert metrics[f"{target}/{name}"] == artifact[name]
        assert metrics[f"{target}/accuracy"] == artifact["metrics"]["accuracy"]
        assert metrics[f"{target}/latency_ms/p50"] == artifact["latency_ms"]["p50"]
        assert metrics[f"{target}/teacher_latency_ms/p95"] == artifact["teacher_latency_ms"]["p95"]


def test_mlflow_names_the_data_sets(mlflow_run, finished_run):
    inputs = mlflow_run.inputs.dataset_inputs
    assert {entry.dataset.name for entry in inputs} == {"train", "validation"}
    rows = {
        entry.dataset.name: tag.value for entry in inputs for tag in entry.tags if tag.key == "rows"
    }
    assert rows == {"train": "120", "validation": "30"}
    assert str(finished_run.desk.data) in inputs[0].dataset.source


def test_mlflow_has_report_and_bundles(mlflow_client, mlflow_run, finished_run, tmp_path):
    run_id = mlflow_run.info.run_id
    assert {"report.json", "report.html", "bundles"} <= {
        entry.path for entry in mlflow_client.list_artifacts(run_id)
    }
    report = mlflow_client.download_artifacts(run_id, "report.json", str(tmp_path))
    assert json.loads(Path(report).read_text()) == finished_run.report
    for target in TARGETS:
        bundle = mlflow_client.download_artifacts(run_id, f"bundles/{target}", str(tmp_path))
        published = finished_run.output / "bundles" / target
        for path in published.rglob("*.onnx"):
            copy = tmp_path / bundle / path.relative_to(published)
            assert copy.read_bytes() == path.read_bytes()


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # of MLflow's own, at its import
@pytest.mark.parametrize("target", TARGETS)
def test_mlflow_model_has_a_signature_and_answers_as_the_bundle(
    mlflow_client, mlflow_run, finished_run, target
):
    models = mlflow_client.search_logged_models([mlflow_run.info.experiment_id])
    mine = [model for model in models if model.source_run_id == mlflow_run.info.run_id]
    model = next(model for model in mine if model.name == f"onnx-{target}")
    mlflow.set_tracking_uri(finished_run.report["tracking_uri"])
    try:
        loaded = mlflow.pyfunc.load_model(model.model_uri)
    finally:
        mlflow.set_tracking_uri(None)
    assert loaded.metadata.signature.outputs.input_names() == ["logits"]
    bundle = finished_run.output / "bundles" / target
    manifest = json.loads((bundle / "manifest.json").read_text())
    inputs = [entry["name"] for entry in manifest["inputs"]]
    assert loaded.metadata.signature.inputs.input_names() == inputs
    golden = manifest["golden"][0]
    feeds = {name: np.array([golden["inputs"][name]]) for name in inputs}
    # As plain onnxruntime does, which an x86 without VNNI lets saturate where phones do not.
    plain = open_session(bundle / "onnx" / "model_quantized.onnx", exact=False)
    (expected,) = plain.run(["logits"], feeds)
    np.testing.assert_allclose(loaded.predict(feeds)["logits"], expected, atol=1e-5)
    np.testing.assert_array_equal(expected[0].argmax(), np.argmax(golden["logits"]))


def test_prefect_has_every_task_run_by_a_readable_name(prefect_server, finished_run):
    states = prefect_server.states(finished_run.output)
    assert list(states) == [*STAGE_TASKS, "publish", "prune stages"]
    assert set(states.values()) == {"Completed"}


def test_prefect_run_is_completed_and_shows_what_it_was_told(prefect_server, finished_run):
    (flow_run,) = prefect_server.flow_runs(finished_run.output)
    assert flow_run.state_name == "Completed"
    assert flow_run.name == "tiny"
    assert flow_run.parameters["pipeline"]["teacher"]["source"] == str(finished_run.desk.teacher)


def test_prefect_has_a_readable_artifact_of_every_stage(prefect_server, finished_run):
    names = {run.id: run.name for run in prefect_server.task_runs(finished_run.output)}
    artifacts = {names[a.task_run_id]: a for a in prefect_server.artifacts(finished_run.output)}
    assert set(artifacts) == set(STAGE_TASKS)
    for artifact in artifacts.values():
        assert artifact.type == "markdown"
        assert "## Result" in artifact.data
        assert "## Inputs" in artifact.data
    assert "| metrics.accuracy |" in artifacts["quantize to int8"].data
    assert "### candidates" in artifacts["choose for ios-arm64"].data
    assert str(finished_run.desk.teacher) in artifacts["fetch teacher"].data


@pytest.mark.slow
def test_bundles_are_signed_where_a_key_is_given(run_cli, prefect_server, finished_run, tmp_path):
    private, public = write_keys(tmp_path)
    output = finished_run.copy("signed")
    key = f"bundle.signing_key={private}"
    run_cli("run", finished_run.desk.pipeline_file, "--output", output, "--set", key)
    assert prefect_server.states(output)["benchmark"] == "Cached"
    for made in (output / "bundles").iterdir():
        assert "was not checked: give --public-key" in run_cli("verify", made).stdout
        assert "owner signed it" in run_cli("verify", made, "--public-key", public).stdout
    _, foreign = write_keys(tmp_path, bytes(32))
    done = run_cli("verify", made, "--public-key", foreign, code=1)
    assert "manifest.json was not signed by this key" in done.stderr
    run_cli("verify", made, "--public-key", private, code=2)
    run_cli("run", finished_run.desk.pipeline_file, "--set", "bundle.signing_key=none.pem", code=2)
    everything = b"".join(path.read_bytes() for path in output.rglob("*.json"))
    assert b"PRIVATE KEY" not in everything
