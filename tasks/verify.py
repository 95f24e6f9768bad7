"""Task: ask a chosen file for answers on the instruction sets and in the runtimes of its targets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.heads import Head
from distill_core.targets import Target
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import BUNDLE, PLAIN, ROWS, head_of


@task(name="verify", task_run_name="verify {artifact.facts[scheme]}", cache_policy=NO_CACHE)
def verify(
    job: Job, artifact: Stage, bundles: Sequence[Stage], stages: Mapping[str, Stage]
) -> State[Stage]:
    """Count the answers that a file changes where its targets run, as far as this machine has that.

    Bundles of one file hold the same model and tokenizer, so one of them is asked for all.
    """
    from distill_core.verifiers import ROWS as COUNT
    from distill_core.verifiers import find_verifiers, verify_answers

    mine = [made for made in bundles if made.inputs["artifact"] == artifact.key]
    targets = {made.facts["target"] for made in mine}
    wanted = [row.verifiers for row in job.pipeline.rows if row.name in targets]
    names = [name for verifiers in wanted for name in verifiers]
    places, _ = find_verifiers(names)
    inputs = {
        "artifact": artifact.key,
        "student": mine[0].inputs["student"],
        "onnx": stages["onnx"].key,
        "data": stages["data"].key,
        "max_length": job.pipeline.data.max_length,
        "rows": COUNT,
        "places": {name: [place.through, place.made_from] for name, place in places.items()},
    }

    def build(_: Path) -> dict[str, Any]:
        texts = some_texts(head_of(stages["teacher"]), stages["data"], COUNT)
        plain = mine[0].folder / PLAIN
        asked = plain if plain.is_dir() else mine[0].folder / BUNDLE
        answers = verify_answers(asked, places, texts)
        return {"scheme": artifact.facts["scheme"], "answers": answers}

    stage = run_stage(job.output, "verification", inputs, build)
    publish_facts(job.pipeline.name, stage, artifact.facts["scheme"])
    return as_state(stage)


def some_texts(head: Head, data: Stage, count: int) -> list[tuple[str, ...]]:
    """Return texts of the scored rows at even steps through their lengths, in an order that mixes these.

    Args:
        head: knows which columns a model reads.
        data: prepared.
        count: of the rows.
    """
    import numpy as np

    from distill_core.batches import open_tokenized
    from distill_core.benchmark import pick_rows

    rows = open_tokenized(data.folder / ROWS)[data.facts["evaluation_split"]]
    picked = np.random.default_rng(0).permutation(pick_rows(rows["length"][:], count))
    return [head.texts(row) for row in rows.select(picked)]


def verification_of(target: Target, verification: Stage) -> dict[str, Any]:
    """Return what a target's entry in report.json says of the places where its file was asked.

    Args:
        target: its row.
        verification: of the file that it gets.
    """
    from distill_core.verifiers import describe
    from distill_core.verifiers.table import NATIVE

    wanted = target.verifiers
    found = [
        entry for entry in verification.facts["answers"] if entry["verifier"] in (NATIVE, *wanted)
    ]
    there = {entry["verifier"] for entry in found}
    return {
        "verified_on": [describe(entry) for entry in found],
        "verifications": found,
        "verifiers_missing": [name for name in wanted if name not in there],
    }
