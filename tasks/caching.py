"""Stages addressed by the content of their inputs: what was made once is not made again.

A stage is a folder `OUTPUT/stages/NAME-KEY` that appears only when it is whole. Its key digests
everything that decides its content: the slice of the pipeline file it reads, the keys of the
stages it builds on, the source of the core modules that make it, and the libraries they call.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from distill_core.files import file_digest, new_folder, read_json, value_digest, write_json

RECORD = "stage.json"


@dataclass(frozen=True)
class Code:
    """What makes a stage, beside its inputs."""

    modules: tuple[str, ...]
    """Of distill_core, if they name no other package."""
    libraries: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return one digest over the modules' source and the libraries' versions."""
        sources = {name: [file_digest(file) for file in _sources(name)] for name in self.modules}
        return value_digest([sources, {name: version(name) for name in self.libraries}])


_READ = (".py", ".mjs", ".j2")
"""Ends of files that decide what a stage holds."""

_TORCH = ("torch", "transformers")
_ONNX = ("onnx", "onnxruntime", "optimum-onnx")

_TRAINING = (
    "training",
    "schedule",
    "step",
    "teaching",
    "job",
    "checkpoint",
    "objective",
    "parts",
    "teacher_outputs",
    "forward",
    "first_token",
    "projections",
    "layers",
    "losses",
    "layer_losses",
    "focal",
    "soft_targets",
    "optimization",
    "mode",
    "unlabelled",
    "batches",
    "width",
    "families",
    "heads",
)

_CODING = (
    "vocabulary",
    *(f"distill_core.quantization.{name}" for name in ("words", "coded", "books", "codebook")),
)

_QUANTIZED = Code(
    (
        "quantization",
        "schemes",
        "scoring",
        "vocabulary",
        "footprint",
        "evaluation",
        "runtime",
        "session",
        "batches",
        "distill_core.graph.table",
        "heads",
    ),
    (*_ONNX, "numpy", "scipy"),
)

STAGES = {
    "embedded": Code(("embedded", *_TRAINING), (*_TORCH, "accelerate", "numpy", "scikit-learn")),
    "teacher": Code(("teacher", "weight_files", "families", "heads", "pooling")),
    "data": Code(
        (
            "data_files",
            "columns",
            "labels",
            "dataset",
            "unlabelled",
            "telling",
            "augmentation",
            "duplicates",
            "batches",
            "heads",
        ),
        (*_TORCH, "datasets", "tokenizers", "scikit-learn"),
    ),
    "start": Code(
        (
            "student",
            "teacher",
            "weight_files",
            "axes",
            "importance",
            "pruning",
            "search",
            "evaluation",
            *_CODING,
            *_TRAINING,
        ),
        (*_TORCH, "accelerate", "scipy"),
    ),
    "student": Code(_TRAINING, (*_TORCH, "accelerate")),
    "packed": Code(("packed_training", *_CODING, *_TRAINING), (*_TORCH, "accelerate", "scipy")),
    "untaught": Code(_TRAINING, (*_TORCH, "accelerate")),
    "baselines": Code(("baselines", "evaluation", "heads"), (*_TORCH, "scikit-learn")),
    "evaluation": Code(("evaluation", "scoring", "heads"), (*_TORCH, "scikit-learn")),
    "vocabulary": Code(
        (
            "vocabulary",
            "spelling",
            "tokenizer_file",
            "trimming",
            "evaluation",
            "scoring",
            "distill_core.quantization.calibration",
            "dataset",
            "batches",
            "heads",
        ),
        (*_TORCH, "tokenizers"),
    ),
    "onnx": Code(
        (
            "export",
            "positions",
            "runtime",
            "session",
            "distill_core.graph.table",
            "distill_core.graph.first_token",
            "distill_core.graph.probed",
            "distill_core.graph.sizes",
        ),
        (*_TORCH, *_ONNX),
    ),
    "words": Code((*_CODING, "distill_core.quantization.tables"), (*_ONNX, "numpy", "scipy")),
    "artifact": _QUANTIZED,
    "mended": _QUANTIZED,
    "benchmark": Code(
        ("benchmark", "benchmark_worker", "processor", "session", "verifiers"),
        ("torch", "onnxruntime"),
    ),
    "choice": Code(("selection", "outcome", "targets")),
    "bundle": Code(
        (
            "bundle",
            "cards",
            "golden",
            "sensitivity",
            "filling",
            "graph",
            "manifest",
            "verification",
            "signing",
            "providers",
            "runtime",
            "session",
            "targets",
            "heads",
        ),
        ("tokenizers", "onnxruntime"),
    ),
    "verification": Code(
        ("processor", "verifiers", "manifest", "verification", "runtime", "session", "heads"),
        ("onnxruntime", "tokenizers", "transformers"),
    ),
    "mlflow": Code(()),
    "report": Code(("report", "charts", "comparison", "outcome")),
    "logged": Code(("tasks.tracking", "tasks.figures")),
}
"""Table: stage → what a change of must make it anew."""


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str
    key: str
    folder: Path
    facts: dict[str, Any]
    """What is known of it, JSON-able."""
    inputs: dict[str, Any]
    seconds: float
    """How long it took when it was made."""
    cached: bool
    """Whether it was there already."""


def run_stage(
    output: Path,
    name: str,
    inputs: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
) -> Stage:
    """Return a stage, made now if it is not there.

    Args:
        output: the run's folder.
        name: a row of `STAGES`.
        inputs: all that decides the content, JSON-able; keys of other stages stand for them.
        build: fills an empty folder and returns the facts.
    """
    key = _key(name, inputs)
    folder = output / "stages" / f"{name}-{key[:16]}"
    cached = (folder / RECORD).is_file()
    if not cached:
        start = time.perf_counter()
        with new_folder(folder) as draft:
            facts = build(draft)
            seconds = round(time.perf_counter() - start, 3)
            record = {"key": key, "inputs": inputs, "facts": facts, "seconds": seconds}
            write_json(draft / RECORD, record)
    record = read_json(folder / RECORD)
    return Stage(name, key, folder, record["facts"], record["inputs"], record["seconds"], cached)


def unfinished_folder(output: Path, name: str, inputs: Mapping[str, Any]) -> Path:
    """Make the folder where a stage that takes long keeps what lets it go on after a kill.

    The same inputs find it again; it goes when a run is finished.
    """
    key = _key(name, inputs)
    folder = output / "stages" / f".{name}-{key[:16]}.unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(name: str, inputs: Mapping[str, Any]) -> str:
    return value_digest({"inputs": inputs, "code": STAGES[name].digest()})


@task(name="prune stages", task_run_name="prune stages", cache_policy=NO_CACHE)
def prune(output: Path, used: Iterable[Stage], spare: int = 3) -> None:
    """Remove stages that a finished run did not use, but for the newest few of each kind.

    Args:
        output: the run's folder.
        used: the stages of the run.
        spare: how many unused ones of each kind to keep, for a change that is taken back.
    """
    for folder in (output / "stages").glob(".*.unfinished"):
        shutil.rmtree(folder)
    kept = {stage.folder for stage in used}
    unused: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in (output / "stages").iterdir():
        if folder not in kept and folder.name.partition("-")[0] in STAGES:
            unused[folder.name.partition("-")[0]].append(folder)
    for folders in unused.values():
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[spare:]:
            shutil.rmtree(folder)


def as_state(stage: Stage) -> State[Stage]:
    """Return the Prefect state of a stage: Cached when nothing had to be done."""
    if stage.cached:
        return Completed(name="Cached", message=f"{stage.folder.name} was there", data=stage)
    return Completed(message=f"{stage.folder.name} in {stage.seconds} s", data=stage)


def _sources(module: str) -> list[Path]:
    """Return the source of a module with its template, or all in a folder, templates and scripts included."""
    name = module if "." in module else f"distill_core.{module}"
    package, *path = name.split(".")
    spec = find_spec(package)  # of the whole name, it would import the packages on the way to it
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(name)
    place = Path(next(iter(spec.submodule_search_locations)), *path)
    if place.is_dir():
        return sorted(file for file in place.iterdir() if file.suffix in _READ)
    source = place.with_suffix(".py")
    if not source.is_file():
        raise ModuleNotFoundError(name)
    return [source, *sorted(source.parent.glob(f"{source.stem}.*.j2"))]
