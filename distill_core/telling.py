"""Which texts that nobody labelled a teacher has something to say on."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill_core.batches import model_inputs
from distill_core.errors import DataError
from distill_core.heads import Head

_BATCH_SIZE = 64
_TEXTS_A_CALL = 10_000


def telling_texts(
    texts: Dataset,
    teacher: PreTrainedModel,
    head: Head,
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
) -> tuple[Dataset, list[str]]:
    """Return the texts in which the teacher finds something, and a note on those that it leaves out.

    For more texts than a training should read. A student of WNUT-17's teacher that read them alone came
    nearer to it than one that read as many tokens of any of the texts; where they were few, one that read
    all of the texts was nearer still (CHANGELOG.md, 2026-11-29).

    Args:
        texts: one column, `text`.
        teacher: on any device.
        head: of tokens, which may find nothing.
        tokenizer: the teacher's; its special tokens are no words.
        max_length: longer texts are cut to this many tokens, the special ones included.

    Raises:
        DataError: it finds nothing in any of them.
    """
    encode = partial(
        tokenizer, truncation=True, max_length=max_length, return_special_tokens_mask=True
    )
    told = np.concatenate(
        [
            _find(teacher, head, encode(texts[start : start + _TEXTS_A_CALL]["text"]))
            for start in range(0, len(texts), _TEXTS_A_CALL)
        ]
    )
    if not told.any():
        raise DataError(
            f"data.unlabelled: the teacher answers {head.empty_class} to every word of its {len(texts)} "
            "texts, so that none is telling; accepted: texts in which there is something to find, "
            "data.unlabelled_kept: all, or null"
        )
    if told.all():
        return texts, []
    note = (
        f"unlabelled: in {int((~told).sum())} of {len(texts)} texts the teacher answers "
        f"{head.empty_class} to every word, and they were left out"
    )
    return texts.select(np.flatnonzero(told)), [note]


@torch.inference_mode()
def _find(
    teacher: PreTrainedModel, head: Head, encoded: Mapping[str, Sequence[Sequence[int]]]
) -> Bool[np.ndarray, " texts"]:
    empty = head.labels.index(str(head.empty_class))
    found = np.zeros(len(encoded["input_ids"]), dtype=bool)
    for numbers in _batches([len(ids) for ids in encoded["input_ids"]]):
        batch = {
            name: torch.tensor([values[number] for number in numbers], device=teacher.device)
            for name, values in encoded.items()
        }
        answers = teacher(**model_inputs(teacher, batch)).logits.argmax(dim=-1)
        words = ~batch["special_tokens_mask"].bool()
        found[numbers] = ((answers != empty) & words).any(dim=1).cpu().numpy()
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the numbers of texts of one length: padded ones took 42 s where these take 29, on two cores."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, alike in groupby(order, key=lengths.__getitem__):
        numbers = list(alike)
        yield from (numbers[at : at + _BATCH_SIZE] for at in range(0, len(numbers), _BATCH_SIZE))
