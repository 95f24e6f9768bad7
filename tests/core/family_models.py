"""A small real model of every family, with random weights: what the matrix of families runs on."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import SHAPE


@dataclass(frozen=True)
class Small:
    """How to make a small model of a family."""

    prefix: str
    """Of its classes in transformers: Bert, XLMRoberta, …"""
    options: dict[str, Any] = field(default_factory=dict)
    """What its config wants beside the common shape."""
    layers: int = 4


_FEATURES = {"embedding_size": 16}
_ROBERTA = {"max_position_embeddings": 66, "pad_token_id": 1}

SMALL = {
    "bert": Small("Bert"),
    "roberta": Small("Roberta", _ROBERTA),
    "xlm-roberta": Small("XLMRoberta", _ROBERTA),
    "camembert": Small("Camembert", _ROBERTA),
    "distilbert": Small("DistilBert", {"dim": 32, "hidden_dim": 64, "n_heads": 4}),
    "electra": Small("Electra", _FEATURES),
    "mpnet": Small("MPNet", _ROBERTA),
    "albert": Small("Albert", _FEATURES),
    "deberta": Small("Deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": Small(
        "DebertaV2",
        {
            "relative_attention": True,
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
        },  # as DeBERTa v3 has it
    ),
    "mobilebert": Small(
        "MobileBert",
        {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    ),
    "big_bird": Small("BigBird", {"block_size": 4, "num_random_blocks": 1}),
    "modernbert": Small("ModernBert", {"local_attention": 8}, layers=8),
    # Found by their structure.
    "megatron-bert": Small("MegatronBert"),
    "roformer": Small("RoFormer"),
    "convbert": Small("ConvBert", {"embedding_size": 32}),
    "ernie": Small("Ernie"),
}
_ALIKE = {"xlm-roberta", "camembert", "ernie", "deberta"}
"""Families whose code transformers has twice, or nearly: as RoBERTa, BERT, and DeBERTa v2."""

GRAPHS = [
    pytest.param(family, marks=pytest.mark.slow if family in _ALIKE else ()) for family in SMALL
]
"""All families, for what reads their ONNX graphs: CI reads one of each kind."""


def save_small(
    family: str, head: str, tokenizer: PreTrainedTokenizerFast, folder: Path, **labels: Any
) -> Path:
    """Save a small model of a family and head, as transformers does; the same for the same names.

    Args:
        family: a key of `SMALL`.
        head: the end of the architecture's name, ForSequenceClassification.
        tokenizer: any; only the size of its vocabulary matters to the model.
        folder: where.
        labels: of the config, if not two classes.
    """
    small = SMALL[family]
    shape = {
        **SHAPE,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    shape["num_hidden_layers"] = small.layers
    config = getattr(transformers, f"{small.prefix}Config")(**(shape | small.options | labels))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{small.prefix}{head}")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def narrow(teacher: PreTrainedModel) -> PreTrainedModel:
    """Return a student of half the layers, width and heads, with random weights."""
    config = copy.deepcopy(teacher.config)
    config.update(
        {
            "num_hidden_layers": 2,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return type(teacher)(config).eval()
