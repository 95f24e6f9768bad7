"""How fast a distillation goes on a GPU: SST-2's own, and one of BERT-base's size that fills the card."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.scale import BertShape, make_teacher, write_rows
from tests.bench.speed import measure_speed

TRAINERS = ("plain-trainer", "plain-trainer-bf16")
WAYS = (*TRAINERS, "textbrewer")
BERT_BASE = BertShape(layers=12, width=768, heads=12)
WORDS_A_TEXT = (140, 160)
"""So that every text is cut to 128 tokens."""


def measure_bert_base(tokenizer: Path, rows: int, batch_size: int) -> dict[str, Any]:
    """Train students of BERT-base's size, of random weights and texts, with ours and the `TRAINERS`.

    Args:
        tokenizer: a folder with one.
        rows: of train.
        batch_size: of all.
    """
    with TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "data").mkdir()
        for split, count in (("train", rows), ("validation", 1_000)):
            path = scratch / "data" / f"{split}.parquet"
            write_rows(path, tokenizer, count, len(split), WORDS_A_TEXT)
        teacher = make_teacher(tokenizer, BERT_BASE, scratch / "teacher")
        return measure_speed(teacher, scratch / "data", {}, rows, batch_size, TRAINERS)
