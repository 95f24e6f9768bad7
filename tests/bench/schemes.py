"""What each way of quantizing costs: ours beside optimum's own presets, on one student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset
from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer
from transformers import PretrainedConfig

from distill_core.batches import open_tokenized
from distill_core.benchmark import Subject, as_facts, pick_rows, time_models
from distill_core.errors import RunError
from distill_core.files import read_json
from distill_core.heads import HEADS, Head
from distill_core.quantization import QUANTIZED_FILE, quantize
from distill_core.quantization.calibration import calibration_rows
from distill_core.quantization.words import read_words
from distill_core.schemes import SCHEMES
from distill_core.scoring import score_file
from distill_core.targets import TARGETS, schemes_of
from distill_core.verifiers import FOLDER, wasm_timer
from distill_core.vocabulary import training_rows, used_tokens
from tests.bench.harness import latest_stage
from tests.bench.jobs import WholeJob, run_job

PRESETS = {
    f"optimum-{name}{'-per-channel' if per_channel else ''}": (name, per_channel)
    for name in ("arm64", "avx2", "avx512_vnni")
    for per_channel in (False, True)
}
WAYS = (*(scheme.name for scheme in schemes_of(TARGETS.values())), *PRESETS)
_SHIPPED = ("android-arm64", "linux-x86-64", "web-wasm")
"""Targets, of whose schemes the others' are made."""
WAYS_ELSEWHERE = (
    *(scheme.name for scheme in schemes_of(TARGETS[name] for name in _SHIPPED)),
    *PRESETS,
)
"""What is tried on students of other tasks."""
WAYS_PACKED = (
    *(name for name in WAYS_ELSEWHERE if "embeddings" in name or name.startswith("int8-of")),
    "optimum-arm64-per-channel",
    "optimum-avx2-per-channel",
)
"""What is tried where words were packed before the training: codebooks, and optimum's best."""


def measure_scheme(name: str, job: WholeJob) -> Mapping[str, Any]:
    """Quantize a job's student in one way; score it, and time it beside fp32, natively and in wasm.

    Args:
        name: one of `WAYS`.
        job: its student is of seed 0, and is made now if it is not there.
    """
    run_job(job)
    stages = job.output() / "stages"
    onnx, data, evaluation = (latest_stage(stages, kind) for kind in ("onnx", "data", "evaluation"))
    rows = open_tokenized(data / "rows")
    scored = rows[read_json(data / "stage.json")["facts"]["evaluation_split"]]
    with TemporaryDirectory() as folder:
        file = _quantize(name, onnx / "model.onnx", rows, Path(folder))
        head, logits = _head(stages), np.load(evaluation / "logits.npz")
        facts = score_file(file, head, scored, logits["teacher"], logits["student"])
        subjects = [Subject("int8", "onnx", file), Subject("fp32", "onnx", onnx / "model.onnx")]
        read = scored.select(pick_rows(scored["length"][:])).to_list()
        return {
            **facts,
            "main_metric": head.main_metric_of(facts["metrics"]),
            "units": len(logits["student"]),
            "timings": as_facts(time_models(subjects, read)),
            "wasm": _time_in_wasm(subjects, read),
        }


def _head(stages: Path) -> Head:
    facts = read_json(latest_stage(stages, "teacher") / "stage.json")["facts"]
    return HEADS[facts["task"]](tuple(facts["labels"]), facts["pooling"])


def _quantize(name: str, model: Path, rows: Mapping[str, Dataset], folder: Path) -> Path:
    if name in SCHEMES:
        calibration = calibration_rows(rows["train"]).to_list()
        used = used_tokens(training_rows(rows))
        return quantize(model, SCHEMES[name], calibration, folder, used, read_words(model.parent))
    preset, per_channel = PRESETS[name]
    configuration = getattr(AutoQuantizationConfig, preset)(
        is_static=False, per_channel=per_channel
    )
    ORTQuantizer(model, PretrainedConfig()).quantize(configuration, folder)
    return folder / QUANTIZED_FILE


def _time_in_wasm(
    subjects: Sequence[Subject], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return what files take in onnxruntime-web, in node; None of those that it does not load."""
    timer = wasm_timer()
    if timer is None:
        raise RuntimeError(f"onnxruntime-web: not under {FOLDER}; run `make verifiers` first")
    try:
        return as_facts(time_models(subjects, rows, timer.before))
    except RunError:
        return None
