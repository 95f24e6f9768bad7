"""The gate: what it says no to, and how it says it."""

import pytest

from distill_core.gate import Gate
from distill_core.outcome import describe_artifact, judge

ARTIFACT = {
    "target": "web-wasm",
    "drop": 0.004,
    "flips": 0.02,
    "bytes": 17_600_000,
    "latency_ms": {"p50": 2.5},
}


def test_run_within_all_limits_passes():
    gate = Gate(retention=0.97, max_mb={"web-wasm": 18}, max_ms={"web-wasm": 3})
    assert judge(gate, 0.97, [ARTIFACT]) == []


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Gate(retention=0.995), "retention: the student keeps 0.9900 of the teacher"),
        (Gate(quantization_drop=0.003), "web-wasm: quantization_drop: 0.004 of the main metric"),
        (Gate(quantization_flips=0.01), "web-wasm: quantization_flips: 0.02 of the answers"),
        (Gate(max_mb={"web-wasm": 17}), "web-wasm: max_mb: 17.6 MB, the gate allows 17"),
        (Gate(max_ms={"web-wasm": 2}), "web-wasm: max_ms: 2.5 ms, the gate allows 2"),
    ],
)
def test_each_limit_that_is_passed_is_named_with_its_figures(gate, words):
    (failure,) = judge(gate, 0.99, [ARTIFACT])
    assert words in failure


def test_limits_of_other_targets_do_not_count():
    assert judge(Gate(max_mb={"ios-arm64": 1}), 0.99, [ARTIFACT]) == []


def test_speedup_is_the_teachers_median_over_the_artifacts():
    timing = {
        "p50_ms": 2.0,
        "p95_ms": 3.0,
        "p50_rounds_ms": [2.0],
        "load_ms": 50.0,
        "peak_rss_mb": 90.0,
    }
    quantized = dict.fromkeys(
        (
            "scheme",
            "bytes",
            "sha256",
            "metrics",
            "retention",
            "agreement",
            "drop",
            "flips",
            "fp32_left",
        ),
        0,
    )
    entry = describe_artifact("web-wasm", quantized, timing, timing | {"p50_ms": 11.0})
    assert entry["speedup"] == 5.5
    assert entry["latency_ms"] == {"p50": 2.0, "p95": 3.0}
