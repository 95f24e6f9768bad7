"""Tasks: assemble and verify a target's bundle, write the report, publish both."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.errors import VerificationError
from distill_core.files import copy_tree, file_digest, new_file, new_folder, read_json, write_json
from distill_core.targets import Target
from tasks.artifacts import publish_facts
from tasks.benchmark import TEACHER
from tasks.caching import Stage, as_state, run_stage
from tasks.choose import chosen
from tasks.job import Job
from tasks.stages import (
    BUNDLE,
    MODEL,
    ONNX,
    PLAIN,
    REPORT,
    REPORT_PAGE,
    STEPS,
    head_of,
    read_steps,
)
from tasks.verify import some_texts, verification_of

if TYPE_CHECKING:  # imports torch
    from distill_core.bundle import Artifact, Origin

GOLDEN_ROWS = 12

Stages = Mapping[str, Stage]
"""The stages of a run that every target shares, by name."""


@task(name="bundle", task_run_name="bundle for {target.name}", cache_policy=NO_CACHE)
def bundle(job: Job, target: Target, artifact: Stage, stages: Stages) -> State[Stage]:
    """Assemble a target's bundle, and verify it on this machine."""
    from distill_core.signing import fingerprint, sign

    key = signing_key(job)
    inputs = {
        "name": job.pipeline.name,
        "target": asdict(target),
        "artifact": artifact.key,
        "student": _shipped(stages).key,
        "max_length": job.pipeline.data.max_length,
        "graph": job.pipeline.graph.model_dump(),
        "signed_by": key and fingerprint(key.public_key()),
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core import bundle, providers, verification
        from distill_core.graph.shape import GraphShape

        origin, made = _origin(job, stages), _made(target, artifact)
        texts = some_texts(origin.head, stages["data"], GOLDEN_ROWS)
        (folder / BUNDLE).mkdir()
        bundle.assemble(made, origin, texts, folder / BUNDLE)
        if not origin.graph.plain:
            (folder / PLAIN).mkdir()
            bundle.assemble(made, replace(origin, graph=GraphShape()), texts, folder / PLAIN)
        if key:
            sign(folder / BUNDLE, key)
        found = verification.verify(folder / BUNDLE)
        if not found.passed:
            problems = "\n  ".join(found.problems)
            raise VerificationError(f"the bundle for {target.name} is not right:\n  {problems}")
        file = folder / BUNDLE / found.manifest.model
        covered = target.provider and providers.cover(file, target.provider, origin.tokens)
        return {
            **verification.as_facts(found),
            "bytes": file.stat().st_size,
            "sha256": file_digest(file),
            "filled": found.manifest.filled and found.manifest.filled.model_dump(),
            "operator_coverage": covered,
        }

    stage = run_stage(job.output, "bundle", inputs, build)
    publish_facts(job.pipeline.name, stage, target.name)
    return as_state(stage)


def _origin(job: Job, stages: Stages) -> "Origin":
    from distill_core.bundle import Origin

    return Origin(
        name=job.pipeline.name,
        student=_shipped(stages).folder / MODEL,
        exported=stages["onnx"].folder / ONNX,
        head=head_of(stages["teacher"]),
        max_length=job.pipeline.data.max_length,
        teacher_fingerprint=stages["teacher"].facts["fingerprint"],
        inputs=stages["onnx"].facts["inputs"],
        outputs=stages["onnx"].facts["outputs"],
        graph=job.pipeline.graph,
        asked=_asked(job, stages),
    )


def _asked(job: Job, stages: Stages) -> list[tuple[str, ...]]:
    """Return the texts by which it is measured what a fixed length costs, if there is one."""
    from distill_core.filling import ROWS

    if job.pipeline.graph.length is None:
        return []
    return some_texts(head_of(stages["teacher"]), stages["data"], ROWS)


def _made(target: Target, artifact: Stage) -> "Artifact":
    from distill_core.bundle import Artifact
    from distill_core.quantization import QUANTIZED_FILE

    return Artifact(
        target=target,
        scheme=artifact.facts["scheme"],
        file=artifact.folder / QUANTIZED_FILE,
        metrics=artifact.facts["metrics"],
        retention=artifact.facts["retention"],
        agreement=artifact.facts["agreement"],
    )


def signing_key(job: Job) -> Any:
    """Return the key that bundles are signed with, if there is one.

    Raises:
        ConfigError: it is named, and cannot be read.
    """
    from distill_core.signing import read_private_key

    path = job.pipeline.bundle.signing_key
    return read_private_key(Path(path)) if path else None


def _shipped(stages: Stages) -> Stage:
    """Return the stage whose model the bundles hold."""
    return stages.get("vocabulary", stages["student"])


@task(name="report", task_run_name="report", cache_policy=NO_CACHE)
def write_report(
    job: Job,
    stages: Stages,
    artifacts: Sequence[Stage],
    choices: Sequence[Stage],
    bundles: Sequence[Stage],
    verifications: Sequence[Stage],
) -> State[Stage]:
    """Put all figures together, judge them by the gate, and draw the page."""
    parts = [*stages.values(), *artifacts, *choices, *bundles, *verifications]
    inputs = {
        "stages": [stage.key for stage in parts],
        "pipeline": job.pipeline.model_dump(mode="json"),
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.bundle import versions
        from distill_core.outcome import build_report
        from distill_core.report import write_html

        timings = stages["benchmark"].facts["timings"]
        report = build_report(
            job.pipeline,
            {name: stage.facts for name, stage in stages.items()},
            [
                _artifact_entry(target, shipped, verifications, timings)
                for target, *shipped in zip(
                    job.pipeline.rows, chosen(artifacts, choices), choices, bundles, strict=True
                )
            ],
            _timings(parts),
            versions(),
        )
        write_json(folder / REPORT, report)
        write_html(report, read_steps(stages["student"]), folder / REPORT_PAGE)
        return {name: report[name] for name in ("name", "passed", "gate", "retention", "agreement")}

    stage = run_stage(job.output, "report", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _artifact_entry(
    target: Target,
    shipped: Sequence[Stage],
    verifications: Sequence[Stage],
    timings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what report.json says of a target.

    Args:
        target: its row.
        shipped: its artifact, the choice of it, and the bundle.
        verifications: of all files.
        timings: by artifact.
    """
    from distill_core.outcome import describe_artifact
    from distill_core.quantization import QUANTIZED_FILE

    artifact, choice, made = shipped
    verified = {stage.inputs["artifact"]: stage for stage in verifications}
    return {
        **describe_artifact(target.name, artifact.facts, timings[artifact.key], timings[TEACHER]),
        "bytes": made.facts["bytes"],
        "sha256": made.facts["sha256"],
        "filled": made.facts["filled"],
        "file": f"bundles/{target.name}/onnx/{QUANTIZED_FILE}",
        **verification_of(target, verified[artifact.key]),
        "operator_coverage": made.facts["operator_coverage"],
        "candidates": choice.facts["candidates"],
    }


def _timings(stages: Sequence[Stage]) -> dict[str, float]:
    """Return the seconds of each kind of stage; targets that share a stage count it once."""
    seconds: dict[str, float] = {}
    for stage in {stage.key: stage for stage in stages}.values():
        seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
    return seconds


@task(name="publish", task_run_name="publish", cache_policy=NO_CACHE)
def publish(job: Job, report: Stage, stages: Stages, bundles: Sequence[Stage]) -> dict[str, Any]:
    """Put report, student and bundles where people look for them; the report comes last.

    Where the gate said no, the bundles of the last run that passed stay as they are.
    """
    found: dict[str, Any] = read_json(report.folder / REPORT)
    with new_folder(job.output / "student") as draft:
        copy_tree(_shipped(stages).folder / MODEL, draft)
    if found["passed"]:
        _publish_bundles(job.output / "bundles", bundles)
    steps = stages["student"].folder / STEPS
    for file in (steps, report.folder / REPORT_PAGE, report.folder / REPORT):
        with new_file(job.output / file.name) as draft:
            draft.write_bytes(file.read_bytes())
    return found


def _publish_bundles(folder: Path, bundles: Sequence[Stage]) -> None:
    with new_folder(folder) as draft:
        for made in bundles:
            copy_tree(made.folder / BUNDLE, draft / made.facts["target"])
