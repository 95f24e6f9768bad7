"""The flow: fetch → initialise → distil → evaluate → export → quantize → benchmark → choose →
bundle → verify → publish."""

from pathlib import Path
from typing import Any

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from distill_core.config import Pipeline
from distill_core.errors import GateError
from distill_core.files import taken
from distill_core.schemes import Packing
from distill_core.targets import schemes_of
from tasks.baselines import compare_baselines
from tasks.benchmark import benchmark
from tasks.caching import Stage, prune
from tasks.choose import choose, chosen
from tasks.distill import distil, train_without_teacher
from tasks.evaluate import evaluate
from tasks.export import Original, code_words, export, quantize
from tasks.fetch import fetch_teacher, prepare_data
from tasks.initialise import initialise_student
from tasks.job import Job
from tasks.mend import keep_precision, lacking, mended_files
from tasks.pack import pack_words
from tasks.publish import bundle, publish, signing_key, write_report
from tasks.tracking import LiveLosses, failing, log_results, open_run
from tasks.trim import trim_vocabulary
from tasks.verify import verify


# One worker: no two schemes or targets compete for the cores.
@flow(
    name="distill-and-deploy",
    flow_run_name="{pipeline.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),
)
def distill_and_deploy(pipeline: Pipeline, output: Path) -> dict[str, Any]:
    """Distil the teacher of a pipeline, and publish a verified bundle for each of its targets.

    Args:
        pipeline: one teacher, one data set, one student, and the places where it will run.
        output: a folder for stages, report, student and bundles.

    Returns:
        report.json.

    Raises:
        GateError: the run finished, and a gate said no; the report is written all the same.
    """
    job = Job(pipeline, output.absolute())
    with taken(job.output):
        report = _run(job)
    if not report["passed"]:
        failures = "\n  ".join(report["gate"]["failures"])
        raise GateError(f"{pipeline.name}: the gate said no, nothing was published:\n  {failures}")
    return report


def _run(job: Job) -> dict[str, Any]:
    signing_key(job)  # one that cannot be read is told now, not after the training
    teacher = fetch_teacher(job)
    data = prepare_data(job, teacher)
    run = open_run(job, teacher, data)
    with failing(run):
        start = initialise_student(job, teacher, data)
        live = LiveLosses(run)
        trained = distil(job, teacher, start, data, live)
        packed = (
            pack_words(job, teacher, trained, data, live)
            if job.pipeline.student.packed_words == "after"
            else None
        )
        student = packed or trained
        evaluation = evaluate(job, teacher, student, data)
        untaught = (
            train_without_teacher(job, teacher, start, data) if job.pipeline.baseline else None
        )
        baselines = compare_baselines(job, teacher, data, evaluation, untaught)
        shipped = (
            trim_vocabulary(job, teacher, student, data)
            if job.pipeline.student.vocabulary
            else None
        )
        exported = export(job, teacher, shipped or student, shipped or data)
        original = Original(teacher, exported, evaluation, shipped or data)
        words = _code_words(job, original)
        artifacts = _quantize(job, original, words)
        timings = benchmark(job, teacher, artifacts, data, shipped or data)
        targets = list(job.pipeline.rows)
        choices = choose.map(
            unmapped(job), targets, unmapped(artifacts), unmapped(timings)
        ).result()
        stages = {
            "teacher": teacher,
            "data": data,
            "mlflow": run,
            "student": student,
            "evaluation": evaluation,
            "baselines": baselines,
            "onnx": exported,
            "benchmark": timings,
        }
        asked_for = {"unpacked": packed and trained, "untaught": untaught, "vocabulary": shipped}
        stages |= {name: stage for name, stage in asked_for.items() if stage}
        stages |= {f"words, {p.packs} by {p.vector}": stage for p, stage in words.items()}
        shipped_files = chosen(artifacts, choices)
        bundles = bundle.map(unmapped(job), targets, shipped_files, unmapped(stages)).result()
        verifications = verify.map(
            unmapped(job),
            list({file.key: file for file in shipped_files}.values()),
            unmapped(bundles),
            unmapped(stages),
        ).result()
        report = write_report(job, stages, artifacts, choices, bundles, verifications)
        logged = log_results(job, run, data, student, report, bundles)
        published = publish(job, report, stages, bundles)
    made = [*stages.values(), start, *artifacts, *choices, *bundles, *verifications, report, logged]
    prune(job.output, made)
    return published


def _code_words(job: Job, original: Original) -> dict[Packing, Stage]:
    """Return the words in the codes that schemes pack them in."""
    schemes = schemes_of(job.pipeline.rows)
    packings = list(dict.fromkeys(scheme.packing for scheme in schemes if scheme.packing))
    coded = code_words.map(unmapped(job), packings, unmapped(original)).result()
    return dict(zip(packings, coded, strict=True))


def _quantize(job: Job, original: Original, words: dict[Packing, Stage]) -> list[Stage]:
    """Return the files of all schemes, and those that keep more precision where a target lacks it."""
    schemes = [scheme.name for scheme in schemes_of(job.pipeline.rows)]
    made = quantize.map(unmapped(job), schemes, unmapped(original), unmapped(words)).result()
    mended = keep_precision.map(unmapped(job), lacking(job, made), unmapped(original)).result()
    return [*made, *mended_files(mended)]
