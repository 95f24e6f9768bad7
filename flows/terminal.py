"""What the commands print."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 140


def print_json(value: Any) -> None:
    """Print a result for a program."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    # A pipe has no width of its own, and rich would fold the table at 80 columns.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f}"


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what a run would do."""
    teacher, student, data = plan["teacher"], plan["student"], plan["data"]
    rows = ", ".join(f"{count} {name}" for name, count in data["rows"].items())
    labels = f", {len(teacher['labels'])} labels" if teacher["labels"] else ""
    print_lines(
        f"{plan['name']}: everything needed is there",
        f"  teacher  {teacher['source']}",
        f"           {teacher['architecture']}, {teacher['layers']} layers, "
        f"{teacher['parameters'] / 1e6:.1f}M parameters{labels}",
        f"  student  {_start(student)}, {student['parameters'] / 1e6:.1f}M parameters, "
        f"{_mb(student['bytes'])} MB in fp32",
        f"  data     {rows}; scored on {data['evaluation_split']}",
        *(f"           {note}" for note in data["notes"]),
        f"  training {plan['steps']} steps",
        f"  gate     retention ≥ {plan['gate']['retention']}, "
        f"quantization drop ≤ {plan['gate']['quantization_drop']}{_flips(plan['gate'])}",
    )
    _table(
        "targets",
        ["target", "runtime", "schemes to try", "expected MB"],
        [
            [t["target"], t["runtime"], ", ".join(t["schemes"]), _mb(t["expected_bytes"])]
            for t in plan["targets"]
        ],
    )


def _flips(gate: Mapping[str, Any]) -> str:
    most = gate["quantization_flips"]
    return "" if most is None else f", changed answers ≤ {most}"


def _start(student: Mapping[str, Any]) -> str:
    """Say what of the teacher a student starts from."""
    said = [f"layers {student['layers']}"]
    if student["layers"] == "search":
        said = [f"{student['count']} layers, to be searched for"]
    if student.get("search"):
        said.append(f"the best of {len(student['search'])} picks")
    if width := student.get("width"):
        said += [f"{width['hidden_size']} wide", f"{width['heads']} heads"]
        said.append(f"{width['intermediate_size']} neurons")
    if student.get("packed_words"):
        said.append(f"words packed {student['packed_words']} the training")
    if "tokens" in student:
        said.append(f"{student['tokens']} of {student['tokens_before']} tokens")
    return ", ".join(said)


def print_lines(*lines: str) -> None:
    """Print plain lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def print_report(report: Mapping[str, Any]) -> None:
    """Print the verdict of a run, and its artifacts beside the teacher."""
    teacher, student, metric = report["teacher"], report["student"], report["main_metric"]
    verdict = "passed" if report["passed"] else "the gate said no"
    difference = report["difference"]
    print_lines(
        f"{report['name']}: {verdict}",
        f"  teacher  {metric} {teacher['metrics'][metric]:.4f}, {teacher['layers']} layers, "
        f"{_mb(teacher['bytes'])} MB",
        f"  student  {metric} {student['metrics'][metric]:.4f}, {_start(student)}, "
        f"{_mb(student['bytes'])} MB",
        f"  retention {report['retention']:.4f}, agreement {report['agreement']:.4f}, difference "
        f"{difference['difference']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}] "
        f"on {report['evaluation_rows']} {report['evaluation_split']} rows",
        *(_baseline_line(baseline, metric) for baseline in report["baselines"]),
        *(f"  note: {note}" for note in report["notes"]),
        *(f"  gate: {failure}" for failure in report["gate"]["failures"]),
    )
    _table(
        f"artifacts; latency of one text on {report['benchmark']['machine']}, 1 thread",
        ["target", metric, "retention", "MB", "smaller", "p50 ms", "p95 ms", "faster", "load ms"],
        [_artifact_row(artifact, teacher["bytes"], metric) for artifact in report["artifacts"]],
    )
    for artifact in report["artifacts"]:
        _print_places(artifact)
    print_lines(f"  MLflow run {report['mlflow_run_id']} at {report['tracking_uri']}")


def _print_places(artifact: Mapping[str, Any]) -> None:
    """Print where a target's file was asked, and what it answers otherwise there."""
    print_lines(
        f"  {artifact['target']} verified on",
        *(f"    {place}" for place in artifact["verified_on"]),
        *(f"  {line}" for line in missing_lines(artifact.get("verifiers_missing", ()))),
    )


def _baseline_line(baseline: Mapping[str, Any], metric: str) -> str:
    above = baseline["student_above"]
    return (
        f"  {baseline['name']:<17}  {metric} {baseline['metrics'][metric]:.4f}; from it to the student "
        f"{above['difference']:+.4f} [{above['low']:+.4f}, {above['high']:+.4f}]"
    )


def _artifact_row(artifact: Mapping[str, Any], teacher_bytes: int, metric: str) -> list[str]:
    latency = artifact["latency_ms"]
    return [
        artifact["target"],
        f"{artifact['metrics'][metric]:.4f}",
        f"{artifact['retention']:.4f}",
        _mb(artifact["bytes"]),
        f"{teacher_bytes / artifact['bytes']:.1f}×",
        f"{latency['p50']:.2f}",
        f"{latency['p95']:.2f}",
        f"{artifact['speedup']:.1f}×",
        f"{artifact['load_ms']:.0f}",
    ]


def print_verification(facts: Mapping[str, Any]) -> None:
    """Print what a verification found."""
    if facts["passed"]:
        print_lines(
            f"{facts['target']}: every file is what was published, and {facts['golden_examples']} golden "
            f"examples are answered alike (largest difference of a logit "
            f"{facts['largest_difference']:.2g}, tolerance {facts['logit_tolerance']:.2g})",
            *(f"  on {place}" for place in facts["verified_on"]),
            f"  {SIGNATURES[facts['signature']]}",
            *missing_lines(facts.get("verifiers_missing", ())),
        )


SIGNATURES = {
    "none": "nobody signed it",
    "not asked for": "a signature is there and was not checked: give --public-key",
    "right": "the key's owner signed it",
}


def missing_lines(verifiers: Sequence[str]) -> list[str]:
    """Say which places of a target a machine lacks, if it does."""
    names = ", ".join(verifiers)
    return [f"  not on {names}: `make verifiers` brings what this machine lacks"] if names else []


def print_benchmark(figures: Mapping[str, Any]) -> None:
    """Print the timings of a bundle's files."""
    machine = figures["machine"]
    _table(
        f"{figures['target']} on {machine['machine']}, {machine['threads']} thread, "
        f"{machine['rounds']} rounds",
        ["file", "MB", "p50 ms", "p95 ms", "p50 of each round", "load ms", "peak MB"],
        [
            [
                row["file"],
                _mb(row["bytes"]),
                f"{row['p50_ms']:.2f}",
                f"{row['p95_ms']:.2f}",
                " ".join(f"{value:.2f}" for value in row["p50_rounds_ms"]),
                f"{row['load_ms']:.0f}",
                f"{row['peak_rss_mb']:.0f}",
            ]
            for row in figures["files"]
        ],
    )


def print_targets(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of targets."""
    _table(
        "targets",
        ["target", "runtime", "provider", "instruction set", "schemes to try"],
        [
            [
                r["name"],
                r["runtime"],
                f"{r['provider']}, speed not measured" if r["provider"] else "CPU",
                r["instruction_set"],
                ", ".join(r["schemes"]),
            ]
            for r in rows
        ],
    )


def print_watch(result: Mapping[str, Any]) -> None:
    """Print whether the teacher changed, and what came of it."""
    state = "changed; the run is finished" if result["changed"] else "unchanged; skipped"
    print_lines(f"{result['name']}: teacher {result['fingerprint'][:16]} {state}")
