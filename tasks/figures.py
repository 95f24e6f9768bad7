"""What MLflow shows of a report: its numbers as metrics, its outcome as the description of a run."""

from collections.abc import Mapping
from typing import Any

from tasks.artifacts import flatten, markdown_table

ARTIFACT_FIGURES = (
    "bytes",
    "retention",
    "agreement",
    "drop",
    "flips",
    "latency_ms",
    "teacher_latency_ms",
    "speedup",
    "load_ms",
    "peak_rss_mb",
)


def describe_outcome(report: Mapping[str, Any]) -> str:
    """Return the outcome of a run as Markdown: verdict, failures, a line for each target."""
    lines = [
        f"**{'Passed' if report['passed'] else 'The gate said no'}**: the student keeps "
        f"{report['retention']:.4f} of the teacher's {report['main_metric']}.",
        *(f"- {failure}" for failure in report["gate"]["failures"]),
        "",
        *markdown_table(
            [
                {
                    "target": artifact["target"],
                    "retention": artifact["retention"],
                    "MB": artifact["bytes"] / 1e6,
                    "p50 ms": artifact["latency_ms"]["p50"],
                    "faster": artifact["speedup"],
                }
                for artifact in report["artifacts"]
            ]
        ),
    ]
    return "\n".join(lines)


def result_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return every number of a report that MLflow should chart.

    MLflow draws what stands before a slash as one section of charts.
    """
    named = {
        "teacher": {**report["teacher"]["metrics"], "bytes": report["teacher"]["bytes"]},
        "student": {**report["student"]["metrics"], "bytes": report["student"]["bytes"]},
        "student_to_teacher": {
            "retention": report["retention"],
            "agreement": report["agreement"],
            **report["difference"],
        },
        "baselines": {
            baseline["name"].replace(" ", "_"): {
                **baseline["metrics"],
                "student_above": baseline["student_above"]["difference"],
            }
            for baseline in report["baselines"]
        },
        "seconds": report["timings_s"],
        **{
            artifact["target"]: {
                **artifact["metrics"],
                **{name: artifact[name] for name in ARTIFACT_FIGURES},
            }
            for artifact in report["artifacts"]
        },
    }
    return {name: float(value) for name, value in flatten(named, "/")}
