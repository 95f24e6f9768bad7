"""Tasks: export the student to ONNX, code its words, and make the file of a scheme of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.schemes import SCHEMES, Packing
from distill_core.targets import OPSET
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import LOGITS, MODEL, ONNX, ROWS, STILL_READ, head_of, training_rows_of

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Original:
    """What the files of all schemes are made of, and measured against."""

    teacher: Stage
    exported: Stage
    """The fp32 file."""
    evaluation: Stage
    data: Stage
    """As the file's own tokenizer cuts it."""


@task(name="export", task_run_name="export", cache_policy=NO_CACHE)
def export(job: Job, teacher: Stage, student: Stage, data: Stage) -> State[Stage]:
    """Write the student as an fp32 ONNX file that answers as it does in PyTorch."""
    longest = job.pipeline.data.max_length
    inputs = {"student": student.key, "opset": OPSET, "max_length": longest}

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.export import export_onnx
        from distill_core.positions import cut_positions
        from distill_core.quantization.words import copy_words
        from distill_core.teacher import load_model

        rows = open_tokenized(data.folder / ROWS)[data.facts["evaluation_split"]]
        model = cut_positions(load_model(student.folder / MODEL), longest)
        copy_words(student.folder / MODEL, folder)
        return export_onnx(model, head_of(teacher), rows, OPSET, folder / ONNX)

    stage = run_stage(job.output, "onnx", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


@task(
    name="code words",
    task_run_name="code words for {packing.packs} by {packing.vector}",
    cache_policy=NO_CACHE,
)
def code_words(job: Job, packing: Packing, original: Original) -> State[Stage]:
    """Put the word embeddings in codes, once for all schemes that pack them alike."""
    exported, data = original.exported, original.data
    inputs = {"onnx": exported.key, "data": data.key, **packing._asdict()}

    def build(folder: Path) -> dict[str, Any]:
        import onnx

        from distill_core.quantization.tables import code_table
        from distill_core.quantization.words import copy_words, read_words, write_words
        from distill_core.vocabulary import used_tokens

        copy_words(exported.folder, folder)
        words = read_words(folder)
        if words is None:
            # Of a trimmed vocabulary all tokens are in use.
            used = None if data.name == "vocabulary" else used_tokens(training_rows_of(data))
            words = code_table(onnx.load(exported.folder / ONNX), used, packing)
            if words:
                write_words(words, folder)
        return {"bytes": words.nbytes if words else 0}

    stage = run_stage(job.output, "words", inputs, build)
    publish_facts(job.pipeline.name, stage, f"{packing.packs} by {packing.vector}")
    return as_state(stage)


@task(name="quantize", task_run_name="quantize to {scheme}", cache_policy=NO_CACHE)
def quantize(
    job: Job, scheme: str, original: Original, words: Mapping[Packing, Stage]
) -> State[Stage]:
    """Make the file of a scheme, score it, and measure on validation rows what it loses."""
    packing = SCHEMES[scheme].packing
    coded = words[packing] if packing else None
    packs_matrices = packing is not None and packing.packs == "all"
    most_bytes = job.pipeline.most_bytes(SCHEMES[scheme]) if packs_matrices else None
    inputs = {
        "onnx": original.exported.key,
        "evaluation": original.evaluation.key,
        "scheme": vars(SCHEMES[scheme]),
        "words": coded.key if coded else None,
        "most_bytes": most_bytes,
    }

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.quantization import quantize
        from distill_core.quantization.calibration import calibration_rows
        from distill_core.quantization.words import read_words

        train = open_tokenized(original.data.folder / ROWS)["train"]
        rows = calibration_rows(train).to_list()
        codes = read_words(coded.folder) if coded else None
        file = quantize(
            original.exported.folder / ONNX, SCHEMES[scheme], rows, folder, codes, most_bytes
        )
        return {"scheme": scheme, **score_artifact(file, original)}

    stage = run_stage(job.output, "artifact", inputs, build)
    publish_facts(job.pipeline.name, stage, scheme)
    return as_state(stage)


def score_artifact(file: Path, original: Original) -> dict[str, Any]:
    """Return what a quantized file is worth on the scored rows, and what it loses on validation rows."""
    from distill_core.batches import open_tokenized
    from distill_core.footprint import fp32_left
    from distill_core.scoring import ask_file, choosing_rows, measure_loss, score_file

    data, head = original.data, head_of(original.teacher)
    splits = open_tokenized(data.folder / ROWS)
    rows = splits[data.facts["evaluation_split"]]
    choosing = choosing_rows(splits["validation"], head)
    answers = ask_file(file, head, rows)
    on_validation = answers if choosing is rows else ask_file(file, head, choosing)
    logits = _read_logits(original)
    return {
        "fp32_left": fp32_left(file),
        **score_file(file, answers, logits["teacher"], logits["student"]),
        "validation": measure_loss(on_validation, logits["student_validation"]),
    }


def measure_validation(file: Path, original: Original) -> dict[str, Any]:
    """Return what a quantized file loses on validation rows."""
    from distill_core.batches import open_tokenized
    from distill_core.scoring import ask_file, choosing_rows, measure_loss

    head = head_of(original.teacher)
    rows = choosing_rows(open_tokenized(original.data.folder / ROWS)["validation"], head)
    return measure_loss(ask_file(file, head, rows), _read_logits(original)["student_validation"])


def _read_logits(original: Original) -> dict[str, "np.ndarray"]:
    """Return what teacher and student say of the units that the file's own tokenizer reads."""
    import numpy as np

    logits: dict[str, np.ndarray] = dict(np.load(original.evaluation.folder / LOGITS))
    file = original.data.folder / STILL_READ
    return (
        {name: logits[name][read] for name, read in np.load(file).items()}
        if file.exists()
        else logits
    )
