"""What each way of quantizing costs: ours beside optimum's own presets, on one student."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

from distill_core.batches import open_tokenized
from distill_core.benchmark import Subject, as_facts, pick_rows, time_models
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.quantization import QUANTIZED_FILE, calibration_rows, quantize
from distill_core.schemes import SCHEMES
from distill_core.scoring import score_file
from distill_core.targets import TARGETS, schemes_of
from tests.bench.harness import latest_stage

PRESETS = {
    f"optimum-{name}{'-per-channel' if per_channel else ''}": (name, per_channel)
    for name in ("arm64", "avx2", "avx512_vnni")
    for per_channel in (False, True)
}
WAYS = (*(scheme.name for scheme in schemes_of(TARGETS.values())), *PRESETS)


def measure_scheme(name: str, main_job: Callable[[int], Any]) -> Mapping[str, Any]:
    """Quantize the main job's student in one way; score it, and time it beside fp32.

    Args:
        name: one of `WAYS`.
        main_job: makes the student, or finds it made.
    """
    from tests.bench.cells import WORK

    main_job(0)
    stages = WORK / "sst2-seed0" / "stages"
    onnx, data, evaluation = (latest_stage(stages, kind) for kind in ("onnx", "data", "evaluation"))
    rows = open_tokenized(data / "rows")["validation"]
    with TemporaryDirectory() as folder:
        calibration = calibration_rows(open_tokenized(data / "rows")["train"]).to_list()
        file = _quantize(name, onnx / "model.onnx", calibration, Path(folder))
        head = SequenceClassification(("negative", "positive"))
        logits = np.load(evaluation / "logits.npz")
        facts = score_file(file, head, rows, logits["teacher"], logits["student"])
        subjects = [Subject("int8", "onnx", file), Subject("fp32", "onnx", onnx / "model.onnx")]
        timings = time_models(subjects, rows.select(pick_rows(rows["length"][:])).to_list())
    return {**facts, "timings": as_facts(timings)}


def _quantize(name: str, model: Path, rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    if name in SCHEMES:
        return quantize(model, SCHEMES[name], rows, folder)
    preset, per_channel = PRESETS[name]
    configuration = getattr(AutoQuantizationConfig, preset)(
        is_static=False, per_channel=per_channel
    )
    ORTQuantizer(model).quantize(configuration, folder)
    return folder / QUANTIZED_FILE
