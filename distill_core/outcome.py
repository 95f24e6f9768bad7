"""Put the figures of a run together, and judge them by the gate."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill_core.config import Pipeline
from distill_core.gate import Gate

SCHEMA_VERSION = 1


def judge(gate: Gate, retention: float, artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the gate says no to, a sentence each; nothing means that the run passed.

    Args:
        gate: the limits.
        retention: main metric of the student / that of the teacher.
        artifacts: `target`, `drop`, `flips`, `bytes` and `latency_ms` of each.
    """
    failures = []
    if retention < gate.retention:
        failures.append(
            f"retention: the student keeps {retention:.4f} of the teacher, the gate asks for "
            f"{gate.retention}; give it more text of the kind it will read (data.unlabelled), train longer, "
            "keep more layers, or lower gate.retention"
        )
    for artifact in artifacts:
        failures += judge_artifact(gate, artifact)
    return failures


def judge_artifact(gate: Gate, artifact: Mapping[str, Any]) -> list[str]:
    """Return what the gate says no to in a file.

    Args:
        gate: the limits.
        artifact: `target`, `drop`, `flips`, `bytes` and `latency_ms`.
    """
    target = artifact["target"]
    limits = (
        ("quantization_drop", artifact["drop"], gate.quantization_drop, "of the main metric"),
        ("quantization_flips", artifact["flips"], gate.quantization_flips, "of the answers"),
        ("max_mb", artifact["bytes"] / 1e6, gate.max_mb.get(target), "MB"),
        ("max_ms", artifact["latency_ms"]["p50"], gate.max_ms.get(target), "ms"),
    )
    return [
        f"{target}: {name}: {value:.4g} {unit}, the gate allows {limit}"
        for name, value, limit, unit in limits
        if limit is not None and value > limit
    ]


def describe_artifact(
    target: str,
    quantized: Mapping[str, Any],
    timing: Mapping[str, Any],
    teacher_timing: Mapping[str, Any],
) -> dict[str, Any]:
    """Return an artifact's entry in report.json, but for `file` and where it was verified."""
    latency, teacher_latency = _latency(timing), _latency(teacher_timing)
    return {
        "target": target,
        **{name: quantized[name] for name in _QUANTIZED_FACTS},
        "latency_ms": latency,
        "teacher_latency_ms": teacher_latency,
        "speedup": teacher_latency["p50"] / latency["p50"],
        "p50_rounds_ms": timing["p50_rounds_ms"],
        "teacher_p50_rounds_ms": teacher_timing["p50_rounds_ms"],
        "load_ms": timing["load_ms"],
        "teacher_load_ms": teacher_timing["load_ms"],
        "peak_rss_mb": timing["peak_rss_mb"],
        "teacher_peak_rss_mb": teacher_timing["peak_rss_mb"],
    }


_QUANTIZED_FACTS = (
    "scheme",
    "bytes",
    "sha256",
    "metrics",
    "retention",
    "agreement",
    "drop",
    "flips",
    "fp32_left",
)


def _latency(timing: Mapping[str, Any]) -> dict[str, float]:
    return {"p50": timing["p50_ms"], "p95": timing["p95_ms"]}


def build_report(
    pipeline: Pipeline,
    facts: Mapping[str, Mapping[str, Any]],
    artifacts: Sequence[Mapping[str, Any]],
    timings_s: Mapping[str, float],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return report.json.

    Args:
        pipeline: the pipeline file.
        facts: of the stages teacher, data, student, evaluation, baselines, benchmark and mlflow, and
            vocabulary, if it was trimmed.
        artifacts: entries of `describe_artifact`, with `file`, `candidates`, `operator_coverage`,
            `verified_on`, `verifications` and `verifiers_missing`.
        timings_s: seconds that each stage took when it was made.
        versions: of Python and the libraries.
    """
    evaluation, student = facts["evaluation"], facts["student"]
    vocabulary = facts.get("vocabulary", {})
    failures = judge(pipeline.limits, evaluation["retention"], artifacts)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": pipeline.name,
        "passed": not failures,
        "gate": {"limits": pipeline.limits.model_dump(mode="json"), "failures": failures},
        "main_metric": evaluation["main_metric"],
        "evaluation_split": facts["data"]["evaluation_split"],
        "evaluation_rows": evaluation["rows"],
        "notes": [
            *facts["data"]["notes"],
            *facts["baselines"]["notes"],
            *vocabulary.get("notes", ()),
            *_note_providers(artifacts),
        ],
        "labels": facts["teacher"]["labels"],
        "teacher": {**facts["teacher"], "metrics": evaluation["teacher"]},
        "student": {
            **{name: student[name] for name in _START_FACTS if name in student},
            **{name: vocabulary[name] for name in _VOCABULARY_FACTS if name in vocabulary},
            "metrics": evaluation["student"],
        },
        **{name: evaluation[name] for name in _EVALUATION_FACTS},
        "baselines": facts["baselines"]["baselines"],
        "training": {name: student[name] for name in _TRAINING_FACTS},
        "losses": pipeline.losses.model_dump(),
        "artifacts": list(artifacts),
        "benchmark": facts["benchmark"]["machine"],
        "timings_s": dict(timings_s),
        "mlflow_run_id": facts["mlflow"]["run_id"],
        "tracking_uri": facts["mlflow"]["uri"],
        "versions": dict(versions),
        "pipeline": pipeline.model_dump(mode="json"),
    }


def _note_providers(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each file that something else than the CPU is to run."""
    notes = []
    for artifact in artifacts:
        found = artifact.get("operator_coverage")
        if found:
            fixed = found["fixed_shapes"]
            notes.append(
                f"{artifact['target']}: {found['provider']} takes {fixed['taken']} of {fixed['nodes']} "
                f"operators in {fixed['parts']} parts, with shapes fixed to {found['tokens']} tokens, and "
                f"{found['dynamic_shapes']['taken']} of {found['dynamic_shapes']['nodes']} as the file is; "
                "latencies are of the CPU, since its speed cannot be measured here"
            )
    return notes


_START_FACTS = ("layers", "width", "packed_words", "parameters", "bytes", "search")
"""width of a student narrower than its teacher, search of one whose layers were searched for."""
_VOCABULARY_FACTS = ("tokens", "tokens_before", "covered_rows", "parameters", "bytes")
"""Of a student whose vocabulary was trimmed; its metrics are of before, the artifacts' of after."""
_EVALUATION_FACTS = ("retention", "agreement", "difference", "per_class", "confusion")
_TRAINING_FACTS = (
    "steps",
    "epochs",
    "best_epoch",
    "precision",
    "attention",
    "step_ms",
    "training_s",
    "teacher_outputs_kept",
)
