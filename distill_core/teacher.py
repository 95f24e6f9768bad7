"""Open a model folder safely: safetensors and JSON only, nothing in it is ever executed."""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from distill_core import pooling
from distill_core.errors import TeacherError
from distill_core.families import Stack, read_stack
from distill_core.files import files_digest
from distill_core.heads import Head, find_head

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

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")
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
    shapes = _without_tied(_tensor_shapes(folder), config)
    prefix = None if stack.shared else _find_layers(shapes, stack.layers, folder)
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


def count_layer(shapes: Mapping[str, Sequence[int]], prefix: str | None) -> int:
    """Return the parameters of one layer; none where all layers are one set of weights."""
    # Not the first: ModernBERT's has no norm in front, and its students keep it.
    layer = [shape for name, shape in shapes.items() if prefix and name.startswith(f"{prefix}1.")]
    return sum(map(prod, layer))


def refuse_unsafe(names: Iterable[str], where: str) -> None:
    """Check that a listing of files holds safetensors weights.

    Raises:
        TeacherError: there are none; pickled ones are refused with the command that converts them.
    """
    listing = [Path(name) for name in names]
    if any(path.match("*.safetensors") for path in listing):
        return
    pickled = [path.name for path in listing if any(path.match(p) for p in _PICKLED)]
    if pickled:
        raise TeacherError(
            f"{where}: {pickled[0]} can execute code when it is opened, so it is refused; accepted: "
            "model.safetensors. Convert it once, on a machine that you can afford to lose:\n"
            '  python -c "from transformers import AutoModelForSequenceClassification as M; '
            f"M.from_pretrained('{where}').save_pretrained('{where}', safe_serialization=True)\""
        )
    raise TeacherError(
        f"{where}: no model.safetensors here; accepted: a folder in transformers' layout "
        "(config.json, model.safetensors, tokenizer.json)"
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


def _tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each floating-point tensor, read from the headers alone."""
    shapes = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensor = tensors.get_slice(name)
                    if tensor.get_dtype() in ("F64", "F32", "F16", "BF16"):
                        shapes[name] = tuple(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            raise TeacherError(f"{path}: is damaged or cut short: {error}") from None
    return shapes


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads the weights from: one, or those an index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        raise TeacherError(
            f"{folder}: neither {whole.name} nor {index.name} here; transformers' save_pretrained "
            "writes one of them"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TeacherError(f"{index}: is no index of safetensors files") from None
    for name in names:
        # transformers would unpickle whatever the index names, if it is not called safetensors.
        if name != Path(str(name)).name or not name.endswith(".safetensors"):
            raise TeacherError(f"{index}: names {name!r}; accepted: *.safetensors beside it")
    return [folder / name for name in sorted(names)]


def _without_tied(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the tensors that count: not a decoder that is the word embeddings once more."""
    tied = config["architectures"][0].endswith("ForMaskedLM")
    tied = tied and config.get("tie_word_embeddings", True)
    counted: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        again = tied and shape[0] == config.get("vocab_size") and shape in counted.values()
        if not again:
            counted[name] = shape
    return counted


def _find_layers(names: Iterable[str], layers: int, folder: Path) -> str:
    """Find the stack of layers by its structure: the numbered modules with the most tensors."""
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    tensors: defaultdict[str, int] = defaultdict(int)
    for name in names:
        if match := re.match(r"(.*?\.)(\d+)\.", name):
            stacks[match[1]].add(int(match[2]))
            tensors[match[1]] += 1
    if not stacks:
        raise TeacherError(f"{folder}: no stack of numbered layers among its tensors")
    prefix = max(stacks, key=tensors.__getitem__)
    count = len(stacks[prefix])
    if stacks[prefix] != set(range(count)) or count < 2:
        raise TeacherError(
            f"{folder}: the layers {prefix}* are {sorted(stacks[prefix])}; a student needs at least "
            "two, numbered from 0 without a gap"
        )
    if count != layers:
        raise TeacherError(
            f"{folder}: config.json has {layers} layers, and the weights have {count} under {prefix}*; "
            "fetch the folder again"
        )
    return prefix


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
    has_pooler = any("pooler." in name for name in _tensor_shapes(folder))
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


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a model folder, as the Rust one that writes tokenizer.json.

    Raises:
        TeacherError: its files are damaged.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # tokenizers raises that very class for a file it cannot read
        raise TeacherError(f"{folder}: its tokenizer cannot be read: {error}") from error
