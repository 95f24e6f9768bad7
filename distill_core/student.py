"""Build the student from the teacher's layers: DistilBERT's initialisation."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distill_core.errors import TeacherError
from distill_core.pooling import copy_pooling
from distill_core.teacher import load_tokenizer, new_like

_PROBE_SHAPE = (2, 24)
"""Texts and tokens."""

_ROUNDING = 1e-4
"""Weights that lie elsewhere in memory may be summed in another order; Longformer's are, by 7e-7."""


def build_student(
    teacher: PreTrainedModel, layer_prefix: str | None, layers: Sequence[int]
) -> PreTrainedModel:
    """Return a model with the picked layers of the teacher, its embeddings and its head.

    Everything is copied (Sanh et al. 2019, section 2, "Student initialization"), so a student
    with all layers answers exactly as its teacher does. The teacher is left as it was.

    Args:
        teacher: a loaded model in eval mode.
        layer_prefix: what precedes the layer's number in its tensors' names, `bert.encoder.layer.`;
            None where all layers share one set of weights.
        layers: the layers to copy, in rising order, numbered from 0.

    Raises:
        TeacherError: the family keeps something beside its layers that depends on their number.
    """
    student = new_like(teacher, _student_config(teacher.config, layers))
    state = teacher.state_dict()
    if layer_prefix is not None:
        state = pick_state(state, layer_prefix, layers)
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise TeacherError(
            f"{teacher.config.model_type}: a student of the layers {list(layers)} has other tensors: {error}"
        ) from None
    student.eval()
    if layer_prefix is not None and not _answers_as_its_layers(
        student, teacher, layer_prefix, layers
    ):
        raise TeacherError(
            f"{teacher.config.model_type}: the layers {list(layers)} do something else at the "
            "student's depth, so this family cannot be cut by layers"
        )
    return student


def _student_config(config: PretrainedConfig, layers: Sequence[int]) -> PretrainedConfig:
    """Return the config of a student; what it lists for each layer is picked too."""
    student = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == config.num_hidden_layers:
            setattr(student, name, [value[layer] for layer in layers])
    student.num_hidden_layers = len(layers)
    return student


@torch.inference_mode()
def _answers_as_its_layers(
    student: PreTrainedModel, teacher: PreTrainedModel, layer_prefix: str, layers: Sequence[int]
) -> bool:
    """Tell whether a student's hidden states are those of a teacher that skips the other layers.

    A layer may know its own number (ModernBERT's every third attends otherwise), which no tensor
    tells; this is how a family that nobody thought of is found out.
    """
    cut = copy.deepcopy(teacher)
    path = layer_prefix.removesuffix(".")
    parent, _, name = path.rpartition(".")
    stack = cut.get_submodule(path)
    setattr(cut.get_submodule(parent), name, nn.ModuleList([stack[layer] for layer in layers]))
    cut.config.num_hidden_layers = len(layers)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(teacher.config.vocab_size, _PROBE_SHAPE, generator=generator)
    mask = torch.ones_like(ids)
    expected = cut.base_model(input_ids=ids, attention_mask=mask)[0]
    answer = student.base_model(input_ids=ids, attention_mask=mask)[0]
    return torch.allclose(answer, expected, atol=_ROUNDING)


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
    copy_pooling(tokenizer_folder, folder)
