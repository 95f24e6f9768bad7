"""Task: choose the file that a target gets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.targets import Target
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job

if TYPE_CHECKING:
    from distill_core.selection import Candidate


@task(name="choose", task_run_name="choose for {target.name}", cache_policy=NO_CACHE)
def choose(job: Job, target: Target, artifacts: Sequence[Stage], benchmark: Stage) -> State[Stage]:
    """Choose among the files of a target's schemes by what was measured of them."""
    named = {artifact.facts["scheme"]: artifact for artifact in artifacts}
    names = [scheme.name for scheme in target.schemes]
    mended = [entry for entry in artifacts if entry.facts.get("base") in names]
    tried = [*(named[name] for name in names), *mended]
    gate = job.pipeline.limits_unshaped
    inputs = {
        "target": target.name,
        "artifacts": [artifact.key for artifact in tried],
        "benchmark": benchmark.key,
        "gate": gate.model_dump(mode="json"),
    }

    def build(_: Path) -> dict[str, Any]:
        from distill_core import selection

        wasm = benchmark.facts["wasm_timings"] if target.in_wasm else {}
        candidates = [_candidate(entry, benchmark, wasm.get(entry.key)) for entry in tried]
        return selection.choose(candidates, gate, target.name).facts(candidates)

    stage = run_stage(job.output, "choice", inputs, build)
    publish_facts(job.pipeline.name, stage, target.name)
    return as_state(stage)


def _candidate(artifact: Stage, benchmark: Stage, in_wasm: Mapping[str, Any] | None) -> "Candidate":
    from distill_core.selection import Candidate

    timing = benchmark.facts["timings"][artifact.key]
    return Candidate(
        scheme=artifact.facts["scheme"],
        key=artifact.key,
        sha256=artifact.facts["sha256"],
        drop=artifact.facts["validation"]["drop"],
        flips=artifact.facts["validation"]["flips"],
        distance=artifact.facts["validation"]["distance"],
        bytes=artifact.facts["bytes"],
        **{name: timing[name] for name in ("p50_ms", "load_ms", "peak_rss_mb")},
        wasm_p50_ms=in_wasm["p50_ms"] if in_wasm else None,
    )


def chosen(artifacts: Sequence[Stage], choices: Sequence[Stage]) -> list[Stage]:
    """Return the artifact of each choice."""
    keyed = {artifact.key: artifact for artifact in artifacts}
    return [keyed[choice.facts["key"]] for choice in choices]
