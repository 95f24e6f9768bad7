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
        taught = _teach(job, teacher, start, data, LiveLosses(run))
        student = taught["student"]
        judged = _judge(job, teacher, start, student, data)
        vocabulary = job.pipeline.student.vocabulary
        trimmed = trim_vocabulary(job, teacher, student, data) if vocabulary else None
        exported = export(job, teacher, trimmed or student, trimmed or data)
        original = Original(teacher, exported, judged["evaluation"], trimmed or data)
        words = _code_words(job, original)
        artifacts = _quantize(job, original, words)
        timings = benchmark(job, teacher, artifacts, data, trimmed or data)
        choices = choose.map(
            unmapped(job), list(job.pipeline.rows), unmapped(artifacts), unmapped(timings)
        ).result()
        stages = {"teacher": teacher, "data": data, "mlflow": run, **taught, **judged}
        stages |= {"onnx": exported, "benchmark": timings}
        stages |= {"vocabulary": trimmed} if trimmed else {}
        stages |= {f"words, {p.packs} by {p.vector}": stage for p, stage in words.items()}
        bundles, verifications = _bundle(job, chosen(artifacts, choices), stages)
        report = write_report(job, stages, artifacts, choices, bundles, verifications)
        logged = log_results(job, run, data, student, report, bundles)
        published = publish(job, report, stages, bundles)
    made = [*stages.values(), start, *artifacts, *choices, *bundles, *verifications, report, logged]
    prune(job.output, made)
    return published


def _teach(
    job: Job, teacher: Stage, start: Stage, data: Stage, live: LiveLosses
) -> dict[str, Stage]:
    """Return the student, and what it was before its words were packed, if they are packed after."""
    trained = distil(job, teacher, start, data, live)
    if job.pipeline.student.packed_words != "after":
        return {"student": trained}
    return {"student": pack_words(job, teacher, trained, data, live), "unpacked": trained}


def _judge(job: Job, teacher: Stage, start: Stage, student: Stage, data: Stage) -> dict[str, Stage]:
    """Return what the student is worth beside its teacher, and beside what needs none."""
    evaluation = evaluate(job, teacher, student, data)
    untaught = train_without_teacher(job, teacher, start, data) if job.pipeline.baseline else None
    baselines = compare_baselines(job, teacher, data, evaluation, untaught)
    judged = {"evaluation": evaluation, "baselines": baselines}
    return {**judged, "untaught": untaught} if untaught else judged


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


def _bundle(
    job: Job, files: list[Stage], stages: dict[str, Stage]
) -> tuple[list[Stage], list[Stage]]:
    """Return the bundle of each target, and what each of their files answers where it will run."""
    targets = list(job.pipeline.rows)
    bundles = bundle.map(unmapped(job), targets, files, unmapped(stages)).result()
    different = list({file.key: file for file in files}.values())
    verified = verify.map(unmapped(job), different, unmapped(bundles), unmapped(stages)).result()
    return bundles, verified
