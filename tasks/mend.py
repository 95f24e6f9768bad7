"""Task: where no scheme of a target loses little enough, keep the matrices that hurt most in fp32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.schemes import SCHEMES
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.export import Original, measure_validation, score_artifact
from tasks.job import Job
from tasks.stages import ONNX, ROWS

KEPT = "kept_fp32"
"""Fact: the products that stayed in fp32."""


@task(name="keep precision", task_run_name="keep precision in {scheme}", cache_policy=NO_CACHE)
def keep_precision(job: Job, scheme: str, original: Original) -> State[Stage]:
    """Make one more file, in 8 bits but for as few matrices as it takes to lose little enough."""
    gate = job.pipeline.gate
    inputs = {
        "onnx": original.exported.key,
        "evaluation": original.evaluation.key,
        "scheme": vars(SCHEMES[scheme]),
        "gate": [gate.quantization_drop, gate.quantization_flips],
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.quantization import QUANTIZED_FILE, quantize_in_part
        from distill_core.quantization.calibration import calibration_rows

        train = open_tokenized(original.data.folder / ROWS)["train"]

        def within(file: Path) -> bool:
            return gate.allows(measure_validation(file, original))

        kept = quantize_in_part(
            original.exported.folder / ONNX,
            SCHEMES[scheme],
            calibration_rows(train).to_list(),
            within,
            folder,
        )
        facts = {"scheme": f"{scheme}-mixed", "base": scheme, KEPT: kept}
        if not kept:
            return facts
        return {**facts, **score_artifact(folder / QUANTIZED_FILE, original)}

    stage = run_stage(job.output, "mended", inputs, build)
    publish_facts(job.pipeline.name, stage, scheme)
    return as_state(stage)


def lacking(job: Job, artifacts: Sequence[Stage]) -> list[str]:
    """Return the 8-bit schemes of those targets that no file loses little enough for.

    Args:
        job: the run.
        artifacts: of all schemes.
    """
    within = {
        entry.facts["scheme"]
        for entry in artifacts
        if job.pipeline.gate.allows(entry.facts["validation"])
    }
    schemes = [target.schemes for target in job.pipeline.rows]
    first = [
        next((scheme.name for scheme in row if scheme.stored == "8 bits"), None)
        for row in schemes
        if within.isdisjoint(scheme.name for scheme in row)
    ]
    return [name for name in dict.fromkeys(first) if name]


def mended_files(mended: Sequence[Stage]) -> list[Stage]:
    """Return the files that came out."""
    return [stage for stage in mended if stage.facts[KEPT]]
