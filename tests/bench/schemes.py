"""What each way of quantizing costs: ours beside optimum's own presets, on one student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from datasets import Dataset
from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer
from transformers import PretrainedConfig

from distill_core.batches import open_tokenized
from distill_core.benchmark import ROUNDS, Subject, as_facts, pick_rows, time_models
from distill_core.errors import RunError
from distill_core.export import export_whole
from distill_core.files import read_json
from distill_core.heads import HEADS, Head
from distill_core.quantization import QUANTIZED_FILE, quantize
from distill_core.quantization.calibration import calibration_rows
from distill_core.quantization.tables import code_table
from distill_core.quantization.words import read_words
from distill_core.schemes import SCHEMES
from distill_core.scoring import ask_file, score_file
from distill_core.targets import OPSET, TARGETS, schemes_of
from distill_core.teacher import load_model
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


WASM_ROUNDS = 9
"""Processes of node that run one file differ by a third."""

SIDE_BY_SIDE = (
    "int8-embeddings-of-4-bits",
    "int8-embeddings-of-4-bits-reduced-range",
    "int8-of-4-bits-reduced-range",
    "optimum-arm64-per-channel",
    "optimum-avx2-per-channel",
)
"""Files that change few answers, and optimum's best for the same processors, timed in one run."""


@dataclass(frozen=True)
class _Student:
    """What a run left of a student, for files to be made of it."""

    stages: Path

    @property
    def model(self) -> Path:
        return latest_stage(self.stages, "onnx") / "model.onnx"

    @cached_property
    def rows(self) -> Mapping[str, Dataset]:
        return open_tokenized(latest_stage(self.stages, "data") / "rows")

    @property
    def scored(self) -> Dataset:
        facts = read_json(latest_stage(self.stages, "data") / "stage.json")["facts"]
        return self.rows[facts["evaluation_split"]]

    @property
    def texts(self) -> list[dict[str, Any]]:
        return self.scored.select(pick_rows(self.scored["length"][:])).to_list()

    @cached_property
    def head(self) -> Head:
        facts = read_json(latest_stage(self.stages, "teacher") / "stage.json")["facts"]
        return HEADS[facts["task"]](tuple(facts["labels"]), facts["pooling"])

    def export_with_optimum(self, folder: Path) -> Path:
        """Return the file that optimum's own quantizer would be given."""
        model = load_model(latest_stage(self.stages, "student", "packed") / "model")
        export_whole(model, self.head, OPSET, folder / "model.onnx", segments=True)
        return folder / "model.onnx"

    def score(self, file: Path) -> dict[str, Any]:
        """Return what a file answers otherwise than the student, and its main metric."""
        logits = np.load(latest_stage(self.stages, "evaluation") / "logits.npz")
        answers = ask_file(file, self.head, self.scored)
        found = score_file(file, answers, logits["teacher"], logits["student"])
        main_metric = self.head.main_metric_of(found["metrics"])
        return {**found, "main_metric": main_metric, "units": len(logits["student"])}


def measure_scheme(name: str, job: WholeJob) -> Mapping[str, Any]:
    """Quantize a job's student in one way; score it, and time it beside fp32, natively and in wasm.

    Args:
        name: one of `WAYS`.
        job: its student is of seed 0, and is made now if it is not there.
    """
    run_job(job)
    student = _Student(job.output() / "stages")
    with TemporaryDirectory() as folder:
        file = _quantize(name, student, Path(folder))
        subjects = [Subject("int8", "onnx", file), Subject("fp32", "onnx", student.model)]
        return {
            **student.score(file),
            "timings": as_facts(time_models(subjects, student.texts)),
            "wasm": _time_in_wasm(subjects, student.texts),
        }


def measure_side_by_side(job: WholeJob) -> Mapping[str, Any]:
    """Quantize a job's student in the ways of `SIDE_BY_SIDE`, and time all files in one run, in turn.

    Args:
        job: its student is of seed 0, and is made now if it is not there.
    """
    run_job(job)
    return compare_files(job.output() / "stages")


def compare_files(stages: Path) -> dict[str, Any]:
    """Return what the files of `SIDE_BY_SIDE` are worth and take, natively and in wasm.

    Args:
        stages: of a run whose student they are made of.
    """
    student = _Student(stages)
    with TemporaryDirectory() as folder:
        files = {}
        for name in SIDE_BY_SIDE:
            Path(folder, name).mkdir()
            files[name] = _quantize(name, student, Path(folder, name))
        subjects = [Subject(name, "onnx", file) for name, file in files.items()]
        native = as_facts(time_models(subjects, student.texts))
        wasm = _time_in_wasm(subjects, student.texts, WASM_ROUNDS) or {}
        return {
            "files": {
                name: {**student.score(file), "timings": native[name], "wasm": wasm.get(name)}
                for name, file in files.items()
            }
        }


def _quantize(name: str, student: _Student, folder: Path) -> Path:
    if name in SCHEMES:
        model, rows = student.model, student.rows
        calibration = calibration_rows(rows["train"]).to_list()
        scheme, words = SCHEMES[name], read_words(model.parent)
        if words is None and scheme.packing:
            used = used_tokens(training_rows(rows))
            words = code_table(onnx.load(model), used, scheme.packing)
        return quantize(model, scheme, calibration, folder, words)
    preset, per_channel = PRESETS[name]
    configuration = getattr(AutoQuantizationConfig, preset)(
        is_static=False, per_channel=per_channel
    )
    exported = student.export_with_optimum(folder)
    ORTQuantizer(exported, PretrainedConfig()).quantize(configuration, folder)
    return folder / QUANTIZED_FILE


def _time_in_wasm(
    subjects: Sequence[Subject], rows: Sequence[Mapping[str, Any]], rounds: int = ROUNDS
) -> dict[str, Any] | None:
    """Return what files take in onnxruntime-web, in node; None of those that it does not load."""
    timer = wasm_timer()
    if timer is None:
        raise RuntimeError(f"onnxruntime-web: not under {FOLDER}; run `make verifiers` first")
    try:
        return as_facts(time_models(subjects, rows, timer.before, rounds))
    except RunError:
        return None
