"""The weights of a model folder, which are safetensors alone, as the headers of their files tell them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from distill_core.errors import TeacherError

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")


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


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each floating-point tensor of a model folder, by name.

    Raises:
        TeacherError: a file is missing or damaged, or an index names one that is not safetensors.
    """
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


def without_tied(
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


def find_layers(names: Iterable[str], layers: int, folder: Path) -> str:
    """Find the stack of layers by its structure: the numbered modules with the most tensors.

    Args:
        names: of the tensors.
        layers: how many config.json has.
        folder: of the model, for the message.

    Returns:
        What precedes the layer's number in the names of its tensors.

    Raises:
        TeacherError: there is no such stack, or it has gaps or another number of layers.
    """
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
    if stacks[prefix] != set(range(count)):
        raise TeacherError(
            f"{folder}: the layers {prefix}* are {sorted(stacks[prefix])}; accepted: numbers from 0 "
            "without a gap"
        )
    if count != layers:
        raise TeacherError(
            f"{folder}: config.json has {layers} layers, and the weights have {count} under {prefix}*; "
            "fetch the folder again"
        )
    return prefix


def count_layer(shapes: Mapping[str, Sequence[int]], prefix: str | None) -> int:
    """Return the parameters of one layer; none where all layers are one set of weights."""
    # Not the first: ModernBERT's has no norm in front, and its students keep it.
    layer = [shape for name, shape in shapes.items() if prefix and name.startswith(f"{prefix}1.")]
    return sum(map(prod, layer))
