"""The page about a run, for those who decide on it, trained it or ship it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined

from distill_core.charts import Chart, candidates_chart, training_charts, validation_chart
from distill_core.comparison import (
    Model,
    artifact_models,
    least_favourable,
    student_model,
    teacher_model,
)
from distill_core.files import new_file
from distill_core.loss_weights import LOSSES
from distill_core.selection import SLOWER

TEMPLATE = "report.html.j2"
MOST_CLASSES = 20
"""With more, the confusion matrix does not fit a page, and only its worst pairs are shown."""
METRIC_NAMES = {
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "f1": "F1",
    "mse": "squared error",
    "mrr": "MRR@10",
    "recall_at_1": "recall@1",
    "pseudo_perplexity": "pseudo-perplexity",
}
_NO_SHARES = {"mse", "pseudo_perplexity"}

ADVICE = {
    "quantiz": "The fp32 file beside it (onnx/model.onnx of the bundle) loses nothing to "
    "quantization, if its size will do; or raise gate.quantization_drop or gate.quantization_flips.",
    "retention": "Give the student more text of the kind it will read, which needs no labels "
    "(data.unlabelled), more layers (student.count) or more epochs (training.epochs); or lower "
    "gate.retention, if this is good enough.",
    "max_mb": "Fewer layers (student.count), or narrower ones (student.hidden_size), make a smaller file; "
    "or raise gate.max_mb.",
    "max_ms": "Fewer layers (student.count) and shorter texts (data.max_length) are faster; or "
    "raise gate.max_ms, which is about the machine of the run.",
}
"""A word in a failure → what to do about it; the first that fits."""
OTHER_ADVICE = "Change the pipeline file and run again; what the change leaves alone is not redone."


def render_html(report: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """Return one page that needs nothing from elsewhere; the same report gives the same bytes.

    Args:
        report: what report.json holds. What it leaves out is left out of the page too.
        steps: training's step records as mappings; may be empty.
    """
    student, artifacts = student_model(report), artifact_models(report)
    least = least_favourable(artifacts or [student])
    candidates = _of_targets(report, "candidates")
    template = _environment().get_template(TEMPLATE)
    return template.render(
        report=report,
        teacher=teacher_model(report),
        student=student,
        artifacts=artifacts,
        least=least,
        verdict=verdict(report, least),
        failures=[(text, advice(text)) for text in report["gate"]["failures"]],
        candidates=candidates,
        candidates_chart=candidates_chart(candidates) if candidates else None,
        places=_of_targets(report, "verifications"),
        leftovers=_of_targets(report, "fp32_left"),
        slower=SLOWER,
        charts=_charts(report, steps),
        total_loss=total_loss(report.get("losses") or {}),
        rows_per_s=median(step["rows_per_s"] for step in steps) if steps else None,
        classes=sorted(report.get("per_class") or [], key=lambda row: float(row["f1"])),
        most_classes=MOST_CLASSES,
        heat=heat_rows(report),
        pairs=confused_pairs(report),
        pipeline=_as_yaml(report.get("pipeline")),
    )


def _of_targets(report: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the entries of a list that each artifact has, with its target."""
    return [
        {"target": artifact["target"], **entry}
        for artifact in report["artifacts"]
        for entry in artifact.get(name) or ()
    ]


def write_html(report: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the page of a run: all of it, or nothing."""
    page = render_html(report, steps)
    with new_file(path) as draft:
        draft.write_text(page, encoding="utf-8", newline="\n")


def verdict(report: Mapping[str, Any], least: Model) -> str:
    """Say in a sentence what the student keeps and what it saves.

    Args:
        report: what report.json holds.
        least: the least favourable figures of what is shipped.
    """
    gains = []
    if least.smaller:
        share = f"1/{least.smaller:.0f}" if least.smaller >= 1.5 else f"{1 / least.smaller:.0%}"
        gains.append(f"about {share} of its size")
    if least.faster:
        gains.append(f"{least.faster:.1f}× its speed")
    metric = metric_name(report["main_metric"])
    sentence = f"The student keeps {percent(least.retention)} of the teacher’s {metric}"
    return f"{sentence} at {' and '.join(gains)}." if gains else f"{sentence}."


def total_loss(losses: Mapping[str, Any]) -> str:
    """Say what the total loss is the sum of, with the weights of the pipeline file; '' of no losses."""
    counted = [(name, losses[name]) for name in LOSSES if losses.get(name)]
    terms = " + ".join(
        f"({plain(weight['from'])} to {plain(weight['to'])}) × {name}"
        if isinstance(weight, Mapping)
        else f"{plain(weight)} × {name}"
        for name, weight in counted
    )
    softened = losses.get("soft") != "mse" and losses.get("distillation")
    return f"{terms}, at temperature {plain(losses['temperature'])}" if softened else terms


def advice(failure: str) -> str:
    """Return what to do about a failure of the gate."""
    fitting = (text for word, text in ADVICE.items() if word in failure.lower())
    return next(fitting, OTHER_ADVICE)


def heat_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the confusion matrix with the strength of each cell's colour; none if it is large.

    The strength is the root of the share of the row: few mistakes would be as pale as none.
    """
    confusion, labels = report.get("confusion") or [], _labels(report)
    if len(confusion) > MOST_CLASSES:
        return []

    def cell(i: int, j: int, rows: int) -> dict[str, Any]:
        kind = "zero" if not rows else "right" if i == j else "wrong"
        return {"kind": kind, "rows": rows, "strength": math.sqrt(rows / max(sum(confusion[i]), 1))}

    return [
        {"label": labels[i], "cells": [cell(i, j, rows) for j, rows in enumerate(row)]}
        for i, row in enumerate(confusion)
    ]


def confused_pairs(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the pairs of class and wrong answer with the most rows, and their share of the class."""
    confusion, labels = report.get("confusion") or [], _labels(report)
    pairs = [
        {"label": labels[i], "answer": labels[j], "rows": rows, "share": rows / sum(row)}
        for i, row in enumerate(confusion)
        for j, rows in enumerate(row)
        if i != j and rows
    ]
    return sorted(pairs, key=lambda pair: -int(pair["rows"]))[:MOST_CLASSES]


def _labels(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes in the order of the confusion matrix."""
    names = report.get("labels") or [row["label"] for row in report.get("per_class") or []]
    return names or [f"class {i}" for i in range(len(report.get("confusion") or []))]


def _charts(report: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[Chart]:
    epochs = (report.get("training") or {}).get("epochs")
    metric = report["main_metric"]
    charts = training_charts(steps)
    return [*charts, validation_chart(epochs, metric, metric_name(metric))] if epochs else charts


def _as_yaml(pipeline: Any) -> str:
    if not pipeline:
        return ""
    plain = json.loads(json.dumps(pipeline, default=str))  # YAML knows neither tuples nor paths
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return without_password(text)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=ChainableUndefined,  # reports of older versions and of partial runs lack keys
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (number, metric_value, plain, percent, points, megabytes, duration)
    texts = (metric_name, capital, without_password)
    environment.filters |= {function.__name__: function for function in (*formats, *texts)}
    return environment


def _missing(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def number(value: Any) -> str:
    """Show three digits, or all that stand before the point."""
    if _missing(value):
        return "–"
    decimals = sum(abs(value) < limit for limit in (100, 10, 1))
    return f"{value:,.{decimals}f}"


def plain(value: Any) -> str:
    """Show a number from the pipeline file as it stands there."""
    return "–" if _missing(value) else f"{value:g}"


def percent(value: Any) -> str:
    """Show a share as a percentage."""
    return "–" if _missing(value) else f"{value:.1%}"


def metric_value(value: Any, name: str) -> str:
    """Show a metric: shares as percentages, errors as numbers."""
    return number(value) if name in _NO_SHARES else percent(value)


def points(value: Any) -> str:
    """Show a difference of two shares in percentage points, with its sign."""
    return "–" if _missing(value) else f"{100 * value:+.1f}".replace("-", "−")


def megabytes(size_bytes: Any) -> str:
    """Show bytes in megabytes, of 10^6 bytes."""
    return "–" if _missing(size_bytes) else number(size_bytes / 1e6)


def duration(seconds: Any) -> str:
    """Show seconds as a person says them."""
    if _missing(seconds):
        return "–"
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def metric_name(metric: str) -> str:
    """Call a metric as a text does."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def capital(text: str) -> str:
    """Begin a heading with a capital, and leave the rest."""
    return text[:1].upper() + text[1:]


def without_password(text: Any) -> str:
    """Hide the user and password in addresses: pages get mailed around."""
    return re.sub(r"(?<=//)[^/@\s]+@", "***@", str(text))
