"""Teacher, student and artifacts side by side, as the report shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Model:
    """The teacher, the student or an artifact. None is what was not measured."""

    name: str
    detail: str
    """Of its numbers: fp32, or the scheme of quantization."""
    metrics: Mapping[str, float]
    size_bytes: int | None = None
    retention: float | None = None
    agreement: float | None = None
    smaller: float | None = None
    """Bytes of the teacher / bytes of this."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """p50 and p95, or empty."""
    faster: float | None = None
    """Median latency of the teacher, timed beside this one / median latency of this."""
    load_ms: float | None = None
    peak_rss_mb: float | None = None
    verified_on: Sequence[str] = ()


def teacher_model(report: Mapping[str, Any]) -> Model:
    """Return the teacher, with the medians of what was measured of it beside each artifact."""

    def middle(key: str) -> float | None:
        values = [artifact[key] for artifact in report["artifacts"] if artifact.get(key)]
        return median(values) if values else None

    latencies = [_measured(artifact.get("teacher_latency_ms")) for artifact in report["artifacts"]]
    names = dict.fromkeys(name for latency in latencies for name in latency)
    return Model(
        "Teacher",
        "fp32",
        report["teacher"]["metrics"],
        report["teacher"]["bytes"],
        latency_ms={
            name: median(latency[name] for latency in latencies if name in latency)
            for name in names
        },
        load_ms=middle("teacher_load_ms"),
        peak_rss_mb=middle("teacher_peak_rss_mb"),
    )


def student_model(report: Mapping[str, Any]) -> Model:
    """Return the student as it was trained, before its export."""
    student, teacher = report["student"], report["teacher"]
    size_bytes = student.get("bytes")
    return Model(
        "Student",
        "fp32",
        student["metrics"],
        size_bytes,
        report["retention"],
        report["agreement"],
        smaller=teacher["bytes"] / size_bytes if size_bytes else None,
    )


def artifact_models(report: Mapping[str, Any]) -> list[Model]:
    """Return what the run would ship, a file for each target."""
    return [_artifact_model(artifact, report["teacher"]) for artifact in report["artifacts"]]


def _artifact_model(artifact: Mapping[str, Any], teacher: Mapping[str, Any]) -> Model:
    latency_ms = _measured(artifact.get("latency_ms"))
    teacher_ms = _measured(artifact.get("teacher_latency_ms"))
    faster = artifact.get("speedup")
    if not faster and "p50" in latency_ms and "p50" in teacher_ms:
        faster = teacher_ms["p50"] / latency_ms["p50"]
    return Model(
        artifact["target"],
        artifact["scheme"],
        artifact["metrics"],
        artifact["bytes"],
        artifact["retention"],
        artifact["agreement"],
        teacher["bytes"] / artifact["bytes"],
        latency_ms,
        faster,
        artifact.get("load_ms"),
        artifact.get("peak_rss_mb"),
        _verified_on(artifact),
    )


def _verified_on(artifact: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the verifiers, which a table of their own describes, or the lines there are."""
    names = [entry["verifier"] for entry in artifact.get("verifications") or ()]
    return names or artifact.get("verified_on") or ()


def _measured(figures: Mapping[str, float | None] | None) -> dict[str, float]:
    return {name: figure for name, figure in (figures or {}).items() if figure}


def least_favourable(models: Sequence[Model]) -> Model:
    """Return a model that is as bad in each figure as the worst of several there.

    Args:
        models: one or more.
    """
    weakest = min(models, key=lambda model: model.retention or 0)
    sized = [model for model in models if model.size_bytes]
    largest = max(sized, key=lambda model: model.size_bytes or 0, default=weakest)
    timed = [model for model in models if model.faster]
    slowest = min(timed, key=lambda model: model.faster or 0, default=weakest)
    return Model(
        "Least favourable",
        weakest.detail,
        weakest.metrics,
        largest.size_bytes,
        weakest.retention,
        min(model.agreement or 0 for model in models),
        largest.smaller,
        slowest.latency_ms,
        slowest.faster,
    )
