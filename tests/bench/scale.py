"""Memory and time against rows: the same small models on 10 thousand, 100 thousand, a million rows.

Memory is what the process owns itself (RssAnon of /proc/self/status): pages of mapped files are the
system's to take back.
"""

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

COUNTS = (10_000, 100_000, 1_000_000)
LABELS = ("even", "odd")
_ROWS_A_PIECE = 50_000
_SAMPLE_EVERY_S = 0.02
_SHARE = 0.1
"""Of the steps, the first and the last, whose rates are compared."""
T = TypeVar("T")


def measure_scale(tokenizer: Path, rows: int) -> dict[str, Any]:
    """Read, tokenize and distil generated rows once, in a fresh process.

    Args:
        tokenizer: a folder with one.
        rows: of train; validation has 1,000.
    """
    command = [sys.executable, "-m", "tests.bench.scale", str(tokenizer), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(tokenizer: Path, rows: int) -> None:
    """Measure, and print the figures as a line of JSON."""
    with TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "data").mkdir()
        for split, count in (("train", rows), ("validation", 1_000)):
            write_rows(scratch / "data" / f"{split}.parquet", tokenizer, count, len(split), (5, 25))
        shape = BertShape(layers=4, width=64, heads=4)
        teacher = make_teacher(tokenizer, shape, scratch / "teacher")
        print(json.dumps({"rows": rows, **_measured(scratch, teacher, rows)}))


@dataclass(frozen=True)
class BertShape:
    """Of a teacher with random weights."""

    layers: int
    width: int
    heads: int


def write_rows(
    path: Path, tokenizer: Path, count: int, seed: int, words_a_text: tuple[int, int]
) -> None:
    """Write texts of random words; their labels tell whether they have an odd number of them.

    Args:
        path: of the parquet file.
        tokenizer: a folder with one, whose words are taken.
        count: of texts.
        seed: decides the words.
        words_a_text: the fewest, and one more than the most.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces = sorted(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"])
    words = [piece for piece in pieces if piece.isascii() and piece.isalpha()]
    draws = np.random.default_rng(seed)
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, _ROWS_A_PIECE):
            lengths = draws.integers(*words_a_text, min(_ROWS_A_PIECE, count - start))
            texts = [
                " ".join(words[i] for i in draws.integers(len(words), size=n)) for n in lengths
            ]
            writer.write_table(pa.table({"text": texts, "label": lengths % 2}, schema))


def make_teacher(tokenizer: Path, shape: BertShape, folder: Path) -> Path:
    """Save a BERT with random weights, which tells odd from even, and return its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from distill_core.student import save_model
    from distill_core.teacher import load_tokenizer

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(load_tokenizer(tokenizer)),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    save_model(BertForSequenceClassification(config), tokenizer, folder)
    return folder


def _measured(scratch: Path, teacher_folder: Path, rows: int) -> dict[str, Any]:
    from distill_core.batches import open_tokenized, tokenize
    from distill_core.config import DataSource, StudentShape, TrainingSettings
    from distill_core.dataset import read_dataset
    from distill_core.job import Job, StepRecord
    from distill_core.layers import pick_layers
    from distill_core.loss_weights import LossWeights
    from distill_core.student import build_student
    from distill_core.teacher import describe, load_model, load_tokenizer
    from distill_core.training import distill

    seen = describe(teacher_folder)
    source = DataSource(source=str(scratch / "data"))
    phases: dict[str, dict[str, float]] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        with _peak_mb() as peak:
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
        phases[name] = {"us_a_row": 1e6 * seconds / rows, "mb": peak()}
        return result

    splits = timed("reading", lambda: read_dataset(source, seen.head, seed=0))
    tokenizer = load_tokenizer(teacher_folder)
    timed(
        "tokenizing",
        lambda: tokenize(splits, seen.head, tokenizer, 64, scratch / "rows"),
    )
    tokenized = open_tokenized(scratch / "rows")
    teacher = load_model(teacher_folder)
    layers = pick_layers(seen.stack.kinds, StudentShape())
    start = build_student(teacher, seen.layer_prefix, layers)
    settings = TrainingSettings(epochs=1, batch_size=128, precision="fp32", dropout=False)
    job = Job(tokenized["train"], tokenized["validation"], seen.head, LossWeights(), settings)
    rates: list[float] = []

    def listen(record: Any) -> None:
        if isinstance(record, StepRecord):
            rates.append(record.rows_per_s)

    timed("training", lambda: distill(start, teacher, job, listen, scratch))
    part = max(int(_SHARE * len(rates)), 1)
    return {
        "phases": phases,
        "first_rows_per_s": statistics.median(rates[:part]),
        "last_rows_per_s": statistics.median(rates[-part:]),
    }


@contextmanager
def _peak_mb() -> Iterator[Callable[[], float]]:
    """Yield what tells, afterwards, the most memory that the process owned, in 10^6 bytes."""
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_EVERY_S):
            samples.append(_owned_mb())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: max(samples, default=_owned_mb())
    finally:
        done.set()
        thread.join()


def _owned_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError("the memory of this system's processes is told otherwise than on Linux")
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
