"""Benchmark: fresh processes, interleaved, honest summaries. Nothing here asserts a time."""

import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.benchmark import (
    ROUNDS,
    Subject,
    as_facts,
    describe_machine,
    pick_rows,
    time_models,
)
from distill_core.errors import RunError
from distill_core.verifiers import wasm_timer
from tests.core.family_models import save_small


@pytest.fixture(scope="module")
def timings(exported, tiny_bert, rows):
    chosen = rows["validation"].select(range(4)).to_list()
    subjects = [Subject("torch", "torch", tiny_bert), Subject("onnx", "onnx", exported)]
    return time_models(subjects, chosen)


def test_each_subject_gets_a_timing_of_every_round(timings):
    assert set(timings) == {"torch", "onnx"}
    for timing in timings.values():
        assert len(timing.p50_rounds_ms) == ROUNDS
        assert 0 < timing.p50_ms <= timing.p95_ms
        assert min(timing.p50_rounds_ms) <= timing.p50_ms <= max(timing.p50_rounds_ms)


def test_peak_memory_is_of_the_fresh_process_and_not_of_this_one(timings):
    # A consumer of the ONNX file never loads torch, which alone takes more than that.
    assert timings["onnx"].peak_rss_mb < 150 < timings["torch"].peak_rss_mb


def test_what_times_a_file_imports_its_runtime_alone():
    # Whatever else it imported would be counted as the consumer's memory.
    code = (
        "import distill_core.session, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"numpy", "onnxruntime"} <= imported
    assert not imported & {
        "pyarrow",
        "datasets",
        "torch",
        "transformers",
        "pandas",
        "scipy",
        "onnx",
    }


def test_facts_are_plain_values(timings):
    assert as_facts(timings)["onnx"]["p50_ms"] == timings["onnx"].p50_ms
    assert describe_machine()["threads"] == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("onnx", "onnxruntime cannot load it"), ("torch", "config.json: is missing")],
)
def test_model_that_cannot_be_loaded_is_named_with_the_reason(kind, reason, tmp_path, rows):
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a model") if kind == "onnx" else broken.mkdir()
    with pytest.raises(RunError, match=rf"benchmark of mine \(.*broken\) failed: .*{reason}"):
        time_models([Subject("mine", kind, broken)], rows["validation"].select([0]).to_list())


def test_a_model_is_not_given_segments_that_it_does_not_read(tokenizer, tmp_path, rows):
    model = save_small("distilbert", "ForSequenceClassification", tokenizer, tmp_path)
    row = rows["validation"].select([0]).to_list()
    assert "token_type_ids" in row[0]
    assert time_models([Subject("mine", "torch", model)], row, rounds=1)["mine"].p50_ms > 0


def test_a_file_is_timed_in_wasm_as_it_is_natively(exported, tmp_path, rows):
    timer = wasm_timer()
    if timer is None:
        pytest.skip("no onnxruntime-web: `make verifiers` brings it")
    chosen = rows["validation"].select(range(2)).to_list()
    # 600 MB of this process, which are none of the one that it starts.
    ballast = np.ones(75_000_000)
    timing = time_models([Subject("web", "onnx", exported)], chosen, timer.before)["web"]
    del ballast
    assert len(timing.p50_rounds_ms) == ROUNDS
    assert 0 < timing.p50_ms <= timing.p95_ms
    assert timing.load_ms > 0
    assert 20 < timing.peak_rss_mb < 600
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(RunError, match=r"benchmark of mine \(.*broken.onnx\) failed: .*protobuf"):
        time_models([Subject("mine", "onnx", broken)], chosen, timer.before)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300), st.integers(2, 50))
def test_picked_rows_span_the_lengths(lengths, count):
    picked = [lengths[number] for number in pick_rows(lengths, count)]
    assert picked == sorted(picked)
    assert len(picked) == min(count, len(lengths))
    assert (picked[0], picked[-1]) == (min(lengths), max(lengths)) or len(picked) == 1


def test_picked_rows_have_the_median_length_of_all():
    lengths = list(range(1, 102))
    assert statistics.median(lengths[n] for n in pick_rows(lengths, 5)) == 51
