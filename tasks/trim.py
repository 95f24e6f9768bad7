"""Task: take the tokens that the data never use out of the student and its tokenizer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from distill_core.heads import Head
from distill_core.teacher import describe, load_model, load_tokenizer
from tasks.artifacts import publish_facts
from tasks.caching import Stage, as_state, run_stage
from tasks.job import Job
from tasks.stages import MODEL, ROWS, STILL_READ, head_of

if TYPE_CHECKING:  # takes a second
    import numpy as np
    from datasets import Dataset


@task(name="trim vocabulary", task_run_name="trim vocabulary", cache_policy=NO_CACHE)
def trim_vocabulary(job: Job, teacher: Stage, student: Stage, data: Stage) -> State[Stage]:
    """Trim the student's vocabulary, and cut the rows that are still read with the new tokenizer."""
    size = job.pipeline.student.vocabulary
    inputs = {"student": student.key, "data": data.key, "vocabulary": size}

    def build(folder: Path) -> dict[str, Any]:
        from distill_core.batches import open_tokenized
        from distill_core.quantization.words import read_words, write_words
        from distill_core.trimming import check_trimmed, trim
        from distill_core.vocabulary import count_tokens, training_rows

        rows, head = open_tokenized(data.folder / ROWS), head_of(teacher)
        before = load_model(student.folder / MODEL)
        counts = count_tokens(training_rows(rows), before.config.vocab_size)
        (folder / MODEL).mkdir()
        kept = trim(student.folder / MODEL, counts, size, folder / MODEL)
        words = read_words(student.folder / MODEL)
        if words:
            write_words(words.pick(kept), folder / MODEL)
        _tokenize_again(job, teacher, folder)
        after, again = load_model(folder / MODEL), open_tokenized(folder / ROWS)
        split = data.facts["evaluation_split"]
        lost = _write_still_read(rows, again, split, head, folder / STILL_READ)
        share = check_trimmed((before, after), (rows[split], again[split]), kept, head)
        described = describe(folder / MODEL, job.pipeline.task)
        return {
            "tokens": len(kept),
            "tokens_before": before.config.vocab_size,
            "covered_rows": share,
            "notes": [
                f"student.vocabulary: {lost} words of the scored texts, which have more tokens now, stand "
                "behind data.max_length; the files are not scored on them"
            ]
            if lost
            else [],
            "parameters": described.parameters,
            "bytes": described.size_bytes,
            "evaluation_split": split,
        }

    stage = run_stage(job.output, "vocabulary", inputs, build)
    publish_facts(job.pipeline.name, stage)
    return as_state(stage)


def _write_still_read(
    rows: Mapping[str, "Dataset"], again: Mapping[str, "Dataset"], split: str, head: Head, to: Path
) -> int:
    """Write which units are read of those that the whole vocabulary reads, where some are not.

    Returns:
        How many of the scored ones are not.
    """
    import numpy as np

    from distill_core.evaluation import read_labels
    from distill_core.scoring import choosing_rows, still_read

    def compare(before: "Dataset", after: "Dataset") -> "np.ndarray":
        return still_read(read_labels(head, before), read_labels(head, after))

    scored = compare(rows[split], again[split])
    choosing = compare(*(choosing_rows(splits["validation"], head) for splits in (rows, again)))
    if not (scored.all() and choosing.all()):
        np.savez(to, teacher=scored, student=scored, student_validation=choosing)
    return int((~scored).sum())


def _tokenize_again(job: Job, teacher: Stage, folder: Path) -> None:
    """Write the rows that are read after the training: scored ones, and a few of train to calibrate by."""
    from distill_core.batches import tokenize
    from distill_core.dataset import read_dataset
    from distill_core.quantization.calibration import spread_rows

    source, seed, head = job.pipeline.data, job.pipeline.training.seed, head_of(teacher)
    splits = read_dataset(source, head, seed)
    few = replace(splits, train=spread_rows(splits.train), unlabelled=None)
    tokenizer = load_tokenizer(folder / MODEL)
    tokenize(few, head, tokenizer, source.max_length, folder / ROWS)
