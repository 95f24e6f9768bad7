"""Word embeddings as codes that a student learns with, before its files hold them.

They are most of a small student, and of its file. Coded after the training, each error of theirs is one
that nothing makes up for. Coded before it and left alone, they are what the layers learn to read (as Stock et
al. 2020, arXiv:1907.05686, code one layer after another and train those that follow). SST-2, 6 to 3 layers,
seed 0: eight weights in a vector, 2 bits each and 1 in rare rows, keep 12 dB of signal over noise, and the
student as much of its teacher as with embeddings that learn (KL 0.0751 and 0.0761 over 872 texts). With
unlabelled texts `packed_training` does better.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from distill_core.optimization import word_embeddings
from distill_core.quantization.coded import CodedRows, code_rows
from distill_core.schemes import check_packed_words
from distill_core.vocabulary import Ids

WORDS = "coded_words.safetensors"
"""File beside a model's weights."""

_WIDTH = 8
"""Weights in a vector: 2 bits each, and 1 in rare rows."""


def code_words(model: PreTrainedModel, used: Ids) -> CodedRows:
    """Put a model's word embeddings on the grid of a codebook, in place, and return the codes.

    Args:
        model: its table of embeddings is no other layer's too.
        used: ids of the tokens that training texts use.

    Raises:
        ConfigError: the table is so small that files do not pack it.
    """
    table = word_embeddings(model).weight
    check_packed_words(table.numel())
    coded = code_rows(table.detach().numpy(), used, _WIDTH)
    with torch.no_grad():
        table.copy_(torch.from_numpy(coded.weights()))
    return coded


def write_words(words: CodedRows, folder: Path) -> None:
    """Write coded embeddings beside the model that they are of."""
    arrays = {**vars(words), "channels": np.asarray([words.channels], dtype=np.int32)}
    save_file(arrays, folder / WORDS)


def copy_words(source: Path, destination: Path) -> None:
    """Copy coded embeddings from folder to folder, if there are any."""
    if (source / WORDS).exists():
        shutil.copyfile(source / WORDS, destination / WORDS)


def read_words(folder: Path) -> CodedRows | None:
    """Return the coded embeddings in a folder; None where there are none."""
    if not (folder / WORDS).exists():
        return None
    arrays = load_file(folder / WORDS)
    channels = int(arrays.pop("channels")[0])
    return CodedRows(**arrays, channels=channels)
