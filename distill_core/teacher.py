"""Open a model folder safely: safetensors and JSON only, nothing in it is ever executed."""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_core import pooling
from distill_core.errors import TeacherError
from distill_core.families import Stack, read_stack
from distill_core.files import files_digest
from distill_core.heads import Head, find_head
from distill_core.weight_files import (
    count_layer,
    find_layers,
    refuse_unsafe,
    tensor_shapes,
    without_tied,
)

if TYPE_CHECKING:  # transformers takes seconds to import, and describing a folder does without it
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    *pooling.FILES,
)
"""The files of a model that are read; whatever else its folder holds is left where it is."""

_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)


@dataclass(frozen=True)
class ModelDescription:
    """What can be known of a model without loading it."""

    folder: Path
    fingerprint: str
    """SHA-256 over names and contents of all files that are read."""
    model_type: str
    architecture: str
    head: Head
    layer_prefix: str | None
    """What precedes the layer's number in the names of its tensors; None where layers share them."""
    stack: Stack
    shapes: dict[str, tuple[int, ...]]
    """Of its tensors of floating-point numbers, by name."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(map(prod, self.shapes.values()))

    @property
    def layer_parameters(self) -> int:
        """Parameters that one layer less takes away."""
        return count_layer(self.shapes, self.layer_prefix)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.stack.layers

    @property
    def max_length(self) -> int:
        """Tokens that the model reads, the special ones included."""
        return self.stack.max_length

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights in fp32. An fp32 ONNX file adds its graph to that."""
        return 4 * self.parameters


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that are read, in a fixed order."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})


def fingerprint(folder: Path) -> str:
    """Return the content of a model folder as one SHA-256, the same wherever it lies."""
    return files_digest(model_files(folder), folder)


def describe(folder: Path, task: str = "auto") -> ModelDescription:
    """Look at a model folder without loading its weights.

    Raises:
        TeacherError: a file is missing or damaged, the weights are pickled, or family or head
            is not supported.
    """
    refuse_unsafe((path.name for path in folder.iterdir()) if folder.is_dir() else (), str(folder))
    config = _read_config(folder)
    head = find_head(config, task, str(folder)).of_folder(folder)
    stack = read_stack(config, str(folder))
    shapes = without_tied(tensor_shapes(folder), config)
    prefix = None if stack.shared else find_layers(shapes, stack.layers, folder)
    return ModelDescription(
        folder=folder,
        fingerprint=fingerprint(folder),
        model_type=config["model_type"],
        architecture=config["architectures"][0],
        head=head,
        layer_prefix=prefix,
        stack=stack,
        shapes=shapes,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TeacherError(f"{path}: is missing; transformers' save_pretrained writes it") from None
    except ValueError as error:
        raise TeacherError(f"{path}: is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise TeacherError(f"{path}: holds {config!r:.40}, not an object of settings")
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise TeacherError(f"{folder}: no tokenizer here; accepted: {', '.join(_TOKENIZERS)}")
    if pooling.read_pooling(folder) and config.get("architectures"):
        # Some are still called what they were pretrained as, all-mpnet-base-v2 an MPNetForMaskedLM.
        named = re.sub("For(MaskedLM|PreTraining)$", "Model", config["architectures"][0])
        config["architectures"] = [named]
    return config


def load_model(folder: Path) -> "PreTrainedModel":
    """Load a described model in fp32 and eval mode; fp16 and bf16 weights are widened exactly.

    Raises:
        TeacherError: tensors are missing, so that transformers would make some up; or the
            weights are not safetensors.
    """
    import torch
    import transformers

    config = _read_config(folder)
    head = find_head(config, "auto", str(folder))
    has_pooler = any("pooler." in name for name in tensor_shapes(folder))
    model_class = getattr(transformers, config["architectures"][0], None)
    model, report = getattr(transformers, head.auto_class).from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # to find them in the report, and refuse them below
        output_loading_info=True,
        **pooler_option(model_class, has_pooler),
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        names = sorted([*report["missing_keys"], *report["mismatched_keys"]])
        raise TeacherError(f"{folder}: tensors are missing or misshapen: {', '.join(names[:5])}")
    return model.eval()


def pooler_option(model_class: type | None, has_pooler: bool) -> dict[str, bool]:
    """Return what makes a bare encoder without a pooler, where there are no weights for one."""
    if has_pooler or model_class is None:
        return {}
    takes = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if takes else {}


def new_like(model: "PreTrainedModel", config: "PretrainedConfig") -> "PreTrainedModel":
    """Return a model of the same class with random weights, with a pooler only if the other has one."""
    option = pooler_option(type(model), getattr(model, "pooler", None) is not None)
    other: PreTrainedModel = type(model)(config, **option)
    return other


def knows_segments(config: Mapping[str, Any]) -> bool:
    """Tell whether a model of this config tells the second of two texts from the first by token_type_ids."""
    return int(config.get("type_vocab_size", 2)) > 1


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a model folder, as the Rust one that writes tokenizer.json.

    Raises:
        TeacherError: its files are damaged.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # tokenizers raises that very class for a file it cannot read
        raise TeacherError(f"{folder}: its tokenizer cannot be read: {error}") from error
    if not knows_segments(_read_config(folder)):  # KLUE's RoBERTa has BERT's tokenizer
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    return tokenizer
