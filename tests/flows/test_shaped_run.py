"""A run whose files are shaped as an app asks for them: only what stands behind the files is redone."""

import json
from hashlib import sha256

import numpy as np
import pytest

from distill_core.session import open_session

pytestmark = pytest.mark.integration

ASKED = ("inputs=int32", "answer=probabilities", "length=16", "ort_format=true")
SETTINGS = [part for setting in ASKED for part in ("--set", f"graph.{setting}")]


@pytest.fixture(scope="module")
def shaped(finished_run, run_cli):
    """The output of the finished run, run again with shaped files, and what was made anew."""
    output = finished_run.copy("shaped")
    before = {path.name for path in (output / "stages").iterdir()}
    run_cli("run", finished_run.desk.pipeline_file, "--output", output, *SETTINGS)
    made = {path.name for path in (output / "stages").iterdir()} - before
    return output, {name.partition("-")[0] for name in made}


def test_nothing_before_the_bundles_is_made_anew(shaped, finished_run):
    output, made = shaped
    assert made == {"bundle", "mlflow", "report", "logged"}
    report = json.loads((output / "report.json").read_text())
    for artifact, before in zip(report["artifacts"], finished_run.report["artifacts"], strict=True):
        for name in ("metrics", "retention", "agreement", "latency_ms", "scheme"):
            assert artifact[name] == before[name]
        filled = artifact["filled"]
        assert (filled["length"], filled["texts"], filled["cut"]) == (16, 30, 0)
        assert 0 <= filled["answered_otherwise"] <= 6
        content = (output / artifact["file"]).read_bytes()
        assert (artifact["bytes"], artifact["sha256"]) == (
            len(content),
            sha256(content).hexdigest(),
        )


def test_the_published_file_reads_and_answers_what_was_asked_for(shaped):
    bundle = shaped[0] / "bundles" / "android-arm64"
    assert not (bundle.parent / "plain").exists()
    golden = json.loads((bundle / "manifest.json").read_text())["golden"][0]

    def ask(file, exact=True):
        session = open_session(bundle / "onnx" / file, exact=exact)
        feeds = {
            entry.name: np.array([golden["inputs"][entry.name]], np.int32)
            for entry in session.get_inputs()
        }
        (numbers,) = session.run(["probabilities"], feeds)
        assert numbers.sum() == pytest.approx(1, abs=1e-6)
        return numbers[0]

    ask("model.onnx")
    assert ask("model_quantized.onnx") == pytest.approx(golden["logits"], abs=1e-5)
    plain = ask("model_quantized.onnx", exact=False)
    assert ask("model_quantized.ort") == pytest.approx(plain, abs=1e-5)


def test_a_shaped_bundle_is_verified_and_timed_by_the_commands(shaped, run_cli):
    bundle = shaped[0] / "bundles" / "ios-arm64"
    assert json.loads(run_cli("verify", bundle, "--json").stdout)["passed"]
    timed = json.loads(run_cli("benchmark", bundle, "--json").stdout)
    assert {row["file"] for row in timed["files"]} >= {"fp32"}


def test_a_golden_number_that_is_another_is_named(shaped, run_cli, tmp_path):
    bundle = shaped[0] / "bundles" / "ios-arm64"
    path = bundle / "manifest.json"
    text = path.read_text()
    document = json.loads(text)
    document["golden"][0]["logits"][0] += 0.5
    path.write_text(json.dumps(document))
    said = run_cli("verify", bundle, code=1).stderr
    path.write_text(text)
    assert "golden example 0: a logit differs by 0.5, the tolerance is 0.05" in said
    assert "model_quantized.ort" not in said  # it is held to what the ONNX file answers


def test_an_answer_that_the_head_cannot_give_is_refused_before_a_run(shaped, finished_run, run_cli):
    desk = finished_run.desk
    said = run_cli("check", desk.pipeline_file, "--set", "graph.length=33", code=2).stderr
    assert "graph.length: 33 tokens" in said
    said = run_cli("check", desk.pipeline_file, "--set", "graph.answer=best", code=2).stderr
    assert "graph.answer" in said
    assert "'logits', 'probabilities', 'label' or 'span'" in said
