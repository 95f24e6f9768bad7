"""The embedded default: make a teacher and a data set, and write the pipeline file of them."""

from pathlib import Path
from typing import Any

import yaml

from distill_core.config import Pipeline
from distill_core.files import new_file, taken
from distill_core.pipeline_file import read_pipeline
from flows.terminal import print_lines
from tasks.caching import Stage, run_stage

SEED = 0


def make_demo(output: Path) -> Pipeline:
    """Make what a user brings along, a teacher, data and a pipeline file, and read the file.

    From there on the demo is a run like any other.

    Args:
        output: the folder of the run.
    """
    print_lines("making a teacher: which installed library does a docstring come from?")
    with taken(output):
        embedded = run_stage(output, "embedded", {"seed": SEED}, _make_embedded)
    print_lines(_describe(embedded))
    path = output / "pipeline.yaml"
    with new_file(path) as draft:
        draft.write_text(_pipeline_text(embedded), encoding="utf-8")
    return read_pipeline(path)


def _make_embedded(folder: Path) -> dict[str, Any]:
    from distill_core.embedded import make_data, make_teacher
    from tasks.progress import TrainingProgress

    labels = make_data(folder / "data", SEED)
    with TrainingProgress("teacher") as progress:
        facts = make_teacher(folder / "data", folder / "teacher", SEED, progress)
    return {"labels": list(labels), **facts}


def _describe(embedded: Stage) -> str:
    made = "was there already" if embedded.cached else f"made in {embedded.seconds:.0f} s"
    facts = embedded.facts
    return (
        f"  {made}: validation accuracy {facts['accuracy']:.3f} on {len(facts['labels'])} libraries, "
        f"chance {facts['chance']:.3f}"
    )


def _pipeline_text(embedded: Stage) -> str:
    teacher, data = str(embedded.folder / "teacher"), str(embedded.folder / "data")
    document = {
        "name": "demo",
        "teacher": {"source": teacher},
        "data": {"source": data, "max_length": embedded.facts["max_length"]},
        "training": {"epochs": 3, "learning_rate": 5e-4},
        "targets": ["android-arm64", "web-wasm", "linux-x86-64"],
        # Its student keeps 0.976 before it has learnt anything: less would let it pass untrained.
        "gate": {"retention": 0.985},
    }
    return "# distill-deploy run pipeline.yaml\n" + yaml.safe_dump(document, sort_keys=False)
