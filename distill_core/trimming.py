"""Trim the vocabulary of a model's folder, and prove that covered text is read and answered as before."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Int
from transformers import PreTrainedModel

from distill_core.batches import collate, model_inputs
from distill_core.errors import ExportError
from distill_core.files import read_json
from distill_core.heads import Head
from distill_core.pooling import copy_pooling
from distill_core.teacher import load_model
from distill_core.tokenizer_file import (
    TOKENIZER,
    complete_tokens,
    config_ids,
    renumber,
    write_trimmed,
)
from distill_core.vocabulary import Ids, pick_tokens, trim_model

_COMPARED_ROWS = 32

_ROUNDING = 1e-5
"""Weights that lie elsewhere in memory may be summed in another order by PyTorch: 6e-8 were seen. In
onnxruntime the answers are the same bit for bit."""


def trim(
    folder: Path, counts: Int[np.ndarray, " size"], size: int | Literal["auto"], to: Path
) -> Ids:
    """Write a model with a smaller vocabulary, its tokenizer with it, and return the ids that stay.

    Args:
        folder: of a model whose tokenizer is a tokenizer.json.
        counts: how often each token is used.
        size: auto, or how many tokens stay; a few more, where they are made of others.
        to: an empty folder.

    Raises:
        ConfigError: so few tokens cannot spell every word.
        TeacherError: the tokenizer is of a kind that cannot be trimmed.
    """
    tokenizer, model = read_json(folder / TOKENIZER), load_model(folder)
    kept = complete_tokens(tokenizer, pick_tokens(tokenizer, counts, size))
    trimmed = trim_model(model, kept, config_ids(model.config.to_dict(), kept))
    trimmed.save_pretrained(to, safe_serialization=True)
    write_trimmed(folder, kept, to)
    copy_pooling(folder, to)
    return kept


def covered(rows: Dataset, kept: Ids) -> Bool[np.ndarray, " rows"]:
    """Tell of which rows all tokens stay."""
    stays = np.zeros(int(max(kept)) + 1, dtype=bool)
    stays[kept] = True

    def all_stay(ids: Any) -> bool:
        flat = np.concatenate([np.ravel(part) for part in ids]) if _nested(ids) else np.asarray(ids)
        return bool((flat < len(stays)).all() and stays[flat].all())

    return np.asarray([all_stay(ids) for ids in rows["input_ids"]])


def _nested(ids: Any) -> bool:
    return bool(len(ids)) and not isinstance(ids[0], int)


def check_trimmed(
    models: tuple[PreTrainedModel, PreTrainedModel],
    rows: tuple[Dataset, Dataset],
    kept: Ids,
    head: Head,
) -> float:
    """Check that covered rows have the same tokens and the same answers, and return their share.

    Args:
        models: before and after.
        rows: the same ones, as the tokenizers of both cut them.
        kept: the ids that stay.
        head: reads the answers.

    Raises:
        ExportError: a covered row is cut or answered otherwise.
    """
    numbers, stay = renumber(kept), covered(rows[0], kept)
    same = np.flatnonzero(stay)
    if len(rows[0]) != len(rows[1]):
        # Text that is cut in more pieces may take more windows, and what comes after it other numbers.
        same = same[: int(np.argmin(stay))]
    for number in same.tolist():
        before, after = (split[number]["input_ids"] for split in rows)
        if _renumbered(before, numbers) != after:
            raise ExportError(
                f"student.vocabulary: text {number}, whose tokens all stay, is cut otherwise without "
                "the others"
            )
    for number in same[:_COMPARED_ROWS].tolist():
        before, after = (
            _answer(model, split[number], head) for model, split in zip(models, rows, strict=True)
        )
        if not torch.allclose(before, after, atol=_ROUNDING):
            raise ExportError(
                f"student.vocabulary: text {number}, whose tokens all stay, is answered otherwise: this "
                "family uses token ids for more than their embeddings; accepted: null"
            )
    return float(stay.mean())


def _renumbered(ids: Any, numbers: dict[int, int]) -> Any:
    return [_renumbered(part, numbers) if isinstance(part, list) else numbers[part] for part in ids]


@torch.inference_mode()
def _answer(model: PreTrainedModel, row: dict[str, Any], head: Head) -> torch.Tensor:
    batch = collate([row], model.config.pad_token_id)
    answer = head.run(model, model_inputs(model, batch), batch.get("labels"))
    logits: torch.Tensor = head.read_output(answer, batch["attention_mask"])
    return logits
