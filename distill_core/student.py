"""Build the student from the teacher's layers: DistilBERT's initialisation."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from distill_core.errors import TeacherError
from distill_core.teacher import load_tokenizer


def build_student(
    teacher: PreTrainedModel, layer_prefix: str, layers: Sequence[int]
) -> PreTrainedModel:
    """Return a model with the picked layers of the teacher, its embeddings and its head.

    Everything is copied (Sanh et al. 2019, section 2, "Student initialization"), so a student
    with all layers answers exactly as its teacher does. The teacher is left as it was.

    Args:
        teacher: a loaded model.
        layer_prefix: what precedes the layer's number in its tensors' names, `bert.encoder.layer.`.
        layers: the layers to copy, in rising order, numbered from 0.

    Raises:
        TeacherError: the family keeps something beside its layers that depends on their number.
    """
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    student = type(teacher)(config)
    state = pick_state(teacher.state_dict(), layer_prefix, layers)
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise TeacherError(
            f"{config.model_type}: a student of {len(layers)} layers has other tensors: {error}"
        ) from None
    return student.eval()


def pick_state(
    state: dict[str, Tensor], layer_prefix: str, layers: Sequence[int]
) -> dict[str, Tensor]:
    """Return the tensors of the picked layers, renumbered from 0, and all that are in no layer."""
    numbers = {layer: number for number, layer in enumerate(layers)}
    pattern = re.compile(rf"{re.escape(layer_prefix)}(\d+)\.(.*)")
    picked = {}
    for name, tensor in state.items():
        match = pattern.fullmatch(name)
        if match is None:
            picked[name] = tensor
        elif int(match[1]) in numbers:
            picked[f"{layer_prefix}{numbers[int(match[1])]}.{match[2]}"] = tensor
    return picked


def save_model(model: PreTrainedModel, tokenizer_folder: Path, folder: Path) -> None:
    """Write a folder in transformers' layout: config, safetensors in fp32, tokenizer."""
    model.save_pretrained(folder, safe_serialization=True)
    load_tokenizer(tokenizer_folder).save_pretrained(folder)
