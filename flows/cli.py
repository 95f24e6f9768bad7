"""The command line. torch, prefect and mlflow are imported inside the commands that need them."""

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distill_core.errors import DistillDeployError
from flows import stopping
from flows.prefect_server import check_server, start_embedded_server

app = typer.Typer(
    name="distill-deploy",
    help="Distil a fine-tuned BERT-like teacher, and ship the student as verified ONNX bundles.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Of Python's garbage collector. With its own 700, a quarter of the 19 seconds that torch, transformers,
Prefect and MLflow take to import went into looking through what they keep (two cores of Zen 3)."""

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file.", metavar="PIPELINE.yaml")]
PipelineFiles = Annotated[
    list[Path], typer.Argument(help="The pipeline files.", metavar="PIPELINE.yaml …")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value of the file.", metavar="KEY.PATH=VALUE"),
]
Bundle = Annotated[Path, typer.Argument(help="OUTPUT/bundles/TARGET.", metavar="BUNDLE")]
Everywhere = Annotated[
    bool,
    typer.Option(
        "--everywhere",
        help="Also ask the emulators and runtimes of `make verifiers`; takes minutes.",
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(help="PEM file of the ed25519 key that must have signed the bundle."),
]
RunFolder = Annotated[Path, typer.Argument(help="What an earlier run left.", metavar="OUTPUT")]
Output = Annotated[Path | None, typer.Option(help="Where results go; runs/NAME by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def main() -> None:
    """Run the command line; a mistake ends with one message and its exit code, not a traceback."""
    atexit.register(
        stopping.leave_if_stopped
    )  # the first to be registered is the last to be called
    _set_up_libraries()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app()
    except DistillDeployError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        _fail(_explain(error), 1)
    finally:
        gc.freeze()  # or Python, as it ends, looks through all that the libraries keep: seconds
        stopping.end()


def _explain(error: Exception) -> str:
    """Return a message for an error of the machine; one that no person can act on is raised again."""
    from distill_core.files import is_disk_full

    if is_disk_full(error):
        return "the disk is full; free some space and run the same command again, which goes on"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; is it yours to read and write?"
    raise error


def _fail(message: str, exit_code: int) -> None:
    sys.stderr.write(f"distill-deploy: {message}\n")
    sys.exit(exit_code)


@app.command()
def run(
    pipeline_file: PipelineFile,
    settings: Settings = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Run the whole flow now; a re-run does only what changed."""
    from distill_core.pipeline_file import read_pipeline

    pipeline = read_pipeline(pipeline_file, settings or ())
    _get_ready_for_prefect()
    _run(pipeline, _output(output, pipeline.name), as_json)


@app.command()
def check(pipeline_file: PipelineFile, settings: Settings = None, as_json: Json = False) -> None:
    """Check pipeline file, teacher and data, and print the plan; nothing is trained."""
    from distill_core.pipeline_file import read_pipeline
    from flows.checking import check_pipeline
    from flows.terminal import print_json, print_plan

    plan = check_pipeline(read_pipeline(pipeline_file, settings or ()))
    (print_json if as_json else print_plan)(plan)


@app.command()
def demo(output: Output = None, as_json: Json = False) -> None:
    """Do the whole job on an embedded teacher and text, offline, in minutes."""
    _get_ready_for_prefect()
    from flows.demo import make_demo

    folder = _output(output, "demo")
    _run(make_demo(folder), folder, as_json)


@app.command()
def serve(pipeline_files: PipelineFiles) -> None:
    """Register pipelines with Prefect: their schedules and their watches, until stopped."""
    from distill_core.pipeline_file import read_pipeline

    pipelines = [read_pipeline(path) for path in pipeline_files]
    check_server()
    from flows.serve import serve_pipelines

    serve_pipelines([(pipeline, _output(None, pipeline.name)) for pipeline in pipelines])


@app.command()
def watch(
    pipeline_file: PipelineFile,
    settings: Settings = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Look at the teacher once, and start a run if it changed."""
    from distill_core.pipeline_file import read_pipeline
    from flows.terminal import print_json, print_watch

    pipeline = read_pipeline(pipeline_file, settings or ())
    _get_ready_for_prefect()
    from flows.watch import watch_once

    result = watch_once(pipeline, _output(output, pipeline.name))
    (print_json if as_json else print_watch)(result)


@app.command()
def verify(
    bundle: Bundle,
    everywhere: Everywhere = False,
    public_key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Re-check a bundle: hashes, tokenizer, and the golden examples."""
    from distill_core.errors import VerificationError
    from flows.checking import verify_bundle
    from flows.terminal import print_json, print_verification

    facts = verify_bundle(bundle, everywhere, public_key)
    (print_json if as_json else print_verification)(facts)
    if not facts["passed"]:
        raise VerificationError(
            f"{bundle}: not what was published:\n  " + "\n  ".join(facts["problems"])
        )


@app.command()
def benchmark(bundle: Bundle, as_json: Json = False) -> None:
    """Time a bundle's artifact beside its own fp32 file, in fresh processes."""
    from flows.checking import benchmark_bundle
    from flows.terminal import print_benchmark, print_json

    (print_json if as_json else print_benchmark)(benchmark_bundle(bundle))


@app.command()
def report(output: RunFolder, as_json: Json = False) -> None:
    """Print the report of a run, and write its page anew."""
    from flows.checking import read_report
    from flows.terminal import print_json, print_report

    (print_json if as_json else print_report)(read_report(output))


@app.command()
def targets(as_json: Json = False) -> None:
    """Print the table of targets."""
    from dataclasses import asdict

    from distill_core.targets import TARGETS
    from flows.terminal import print_json, print_targets

    rows = [
        {**asdict(target), "schemes": [scheme.name for scheme in target.schemes]}
        for target in TARGETS.values()
    ]
    (print_json if as_json else print_targets)(rows)


def _output(output: Path | None, name: str) -> Path:
    return (output or Path("runs", name)).absolute()


def _run(pipeline: Any, output: Path, as_json: bool) -> None:
    from flows.distill_and_deploy import distill_and_deploy
    from flows.terminal import print_json, print_report

    report = distill_and_deploy(pipeline, output)
    (print_json if as_json else print_report)(report)


def _get_ready_for_prefect() -> None:
    stopping.stop_at_signals()
    check_server()
    wait_for_server = start_embedded_server()
    import flows.distill_and_deploy  # noqa: F401 - seconds, in which the server starts

    wait_for_server()


def _set_up_libraries() -> None:
    """Keep the libraries' log lines, notices and progress bars out of the terminal, and Prefect patient.

    The log still goes to Prefect's server. Libraries read these settings when they are imported;
    what the user has set stays.
    """
    for name, value in (
        ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL"),
        ("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL"),
        ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        # Of Prefect's 20 seconds, a busy machine of two cores takes more.
        ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        # A download may take minutes, which a person wants to see; a log file does not.
        ("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),  # which is where --json goes
        # What these log as errors they raise as well, and main() says it once.
        ("DATASETS_VERBOSITY", "critical"),
        ("MLFLOW_LOGGING_LEVEL", "CRITICAL"),
    ):
        os.environ.setdefault(name, value)
