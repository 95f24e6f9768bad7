"""Commands that run one part alone: check, verify, benchmark and report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_core.config import Pipeline
from distill_core.errors import BundleError, VerificationError
from distill_core.files import read_json
from tasks import sources

if TYPE_CHECKING:
    from distill_core.manifest import Manifest


def check_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """Check teacher and data of a pipeline, and return the plan.

    Raises:
        InputError: something in the file, the teacher or the data is wrong.
        SourceUnreachable: a hub does not answer.
    """
    from distill_core.dataset import read_dataset
    from distill_core.plan import make_plan

    folder = sources.locate(pipeline.teacher)
    teacher = sources.describe_teacher(pipeline.teacher, folder, pipeline.task)
    splits = read_dataset(pipeline.data, teacher.head, pipeline.training.seed)
    return make_plan(pipeline, teacher, splits)


def verify_bundle(bundle: Path, everywhere: bool, public_key: Path | None = None) -> dict[str, Any]:
    """Check a bundle on this machine, and if asked for where its target will run it.

    Args:
        bundle: the folder.
        everywhere: whether to ask the target's verifiers for the golden examples too, as far as this machine
            has them.
        public_key: the PEM file of who must have signed it; None does not ask.

    Raises:
        BundleError: the folder is no bundle.
        ConfigError: the key cannot be read.
        VerificationError: its manifest is broken, and not what the key signed.
    """
    from distill_core.manifest import MANIFEST, SIGNATURE
    from distill_core.signing import read_public_key, signature_problem
    from distill_core.verification import as_facts, verify

    key = read_public_key(public_key) if public_key else None
    problem = signature_problem(bundle, key) if key and (bundle / MANIFEST).is_file() else None
    try:
        found = verify(bundle)
    except BundleError:
        if problem:
            raise VerificationError(f"{bundle}: not what was published:\n  {problem}") from None
        raise
    facts = dict(as_facts(found))
    facts["signature"] = "not asked for" if (bundle / SIGNATURE).is_file() else "none"
    if key:
        facts["signature"] = "wrong" if problem else "right"
        facts["problems"] = [*facts["problems"], *([problem] if problem else [])]
        facts["passed"] = not facts["problems"]
    if everywhere and facts["passed"]:
        facts |= _ask_everywhere(bundle, found.manifest, facts)
    return facts


def _ask_everywhere(bundle: Path, manifest: "Manifest", facts: Mapping[str, Any]) -> dict[str, Any]:
    from distill_core.verifiers import VERIFIERS, find_verifiers, golden_problems

    # What loads a bundle by itself, as transformers.js does, wants its files plain.
    wanted = [
        name for name in manifest.verifiers if manifest.plain or not VERIFIERS[name].loads_bundle
    ]
    places, missing = find_verifiers(wanted)
    verified_on, problems = golden_problems(bundle, places)
    return {
        "passed": not problems,
        "problems": problems,
        "verified_on": [*facts["verified_on"], *verified_on],
        "verifiers_missing": missing,
    }


def benchmark_bundle(bundle: Path) -> dict[str, Any]:
    """Time a bundle's artifact beside its own fp32 file, on the texts of its golden examples.

    Raises:
        BundleError: the folder is no bundle.
    """
    from distill_core.benchmark import Subject, as_facts, describe_machine, time_models
    from distill_core.manifest import read_manifest

    manifest = read_manifest(bundle)
    subjects = [
        Subject(manifest.scheme, "onnx", bundle / manifest.model),
        Subject("fp32", "onnx", bundle / "onnx" / "model.onnx"),
    ]
    for subject in subjects:
        if not subject.path.is_file():
            raise BundleError(f"{subject.path}: is missing")
    timings = time_models(subjects, [golden.inputs for golden in manifest.golden])
    sizes = {subject.name: subject.path.stat().st_size for subject in subjects}
    return {
        "target": manifest.target,
        "machine": describe_machine(),
        "files": [
            {"file": name, "bytes": sizes[name], **figures}
            for name, figures in as_facts(timings).items()
        ],
    }


def read_report(output: Path) -> dict[str, Any]:
    """Read report.json of a run, and write report.html anew beside it.

    Raises:
        BundleError: the folder holds no report.
    """
    from distill_core.report import write_html

    path = output / "report.json"
    if not path.is_file():
        raise BundleError(
            f"{output}: no report.json; accepted: the output folder of a finished run"
        )
    try:
        report: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise BundleError(f"{path}: is not JSON: {error}") from None
    steps = output / "steps.jsonl"
    lines = steps.read_text(encoding="utf-8").splitlines() if steps.is_file() else []
    write_html(report, [json.loads(line) for line in lines], output / "report.html")
    return report
