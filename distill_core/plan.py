"""What a run would do, from the pipeline file, the teacher's headers and the rows alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from distill_core.config import Pipeline, StudentShape, TrainingSettings
from distill_core.dataset import Splits
from distill_core.errors import ConfigError
from distill_core.families import FAMILIES, Width
from distill_core.graph.table import SEVERAL_SEQUENCES, accepted_answers
from distill_core.heads import Head
from distill_core.layers import count_layers, map_layers, pick_layers
from distill_core.loss_weights import LossWeights
from distill_core.schemes import check_packed_words
from distill_core.spelling import needed_within
from distill_core.targets import Target
from distill_core.teacher import ModelDescription, load_tokenizer
from distill_core.unlabelled import count_copies, note_copies
from distill_core.width import (
    check_same_heads,
    count_parameters,
    pick_relation_heads,
    pick_width,
    student_shapes,
)

LARGEST_FILE = 2**31
"""Bytes that one ONNX file cannot reach: protobuf's limit for a message."""


def check_fit(pipeline: Pipeline, teacher: ModelDescription) -> tuple[int, ...] | None:
    """Check the pipeline file against the teacher, and return the layers picked; None before a search.

    Raises:
        ConfigError: a layer or a width that the teacher does not have, hidden states that cannot be
            aligned, a loss that this teacher does not allow, texts longer than it reads, or nothing
            to learn from.
        TeacherError: of a family whose students cannot be narrower, where one is asked for, or with a
            tokenizer that cannot be trimmed.
    """
    if pipeline.data.max_length > teacher.max_length:
        raise ConfigError(
            f"data.max_length: {pipeline.data.max_length} tokens, and the teacher reads "
            f"{teacher.max_length}; accepted: 1 to {teacher.max_length}"
        )
    count = count_layers(teacher.stack.kinds, pipeline.student)
    map_layers(count, teacher.layers, pipeline.losses.hidden_layers)
    width = pick_width(teacher, pipeline.student)
    _check_vectors(teacher, width)
    _check_size(count_parameters(teacher, count, width))
    _check_losses(pipeline, teacher)
    _check_graph(pipeline, teacher)
    if teacher.head.answers_in_tokens:
        _check_words(pipeline.student, teacher.head.name)
    if pipeline.student.vocabulary:
        tokenizer = load_tokenizer(teacher.folder).backend_tokenizer
        needed_within(json.loads(tokenizer.to_str()), pipeline.student.vocabulary)
    if pipeline.student.packed_words:
        check_packed_words(_count_word_weights(teacher, width))
    if teacher.stack.width:
        _check_heads(pipeline.losses, width or teacher.stack.width, teacher.stack.width)
    if pipeline.student.layers != "search":
        return pick_layers(teacher.stack.kinds, pipeline.student)
    if teacher.stack.shared:
        raise ConfigError(
            "student.layers: search has nothing to find, since the teacher's layers share one set of "
            "weights; accepted: alternate"
        )
    return None


def _check_vectors(teacher: ModelDescription, width: Width | None) -> None:
    wide = teacher.stack.hidden_size
    if teacher.head.pooling and width and width.hidden_size != wide:
        raise ConfigError(
            f"student.hidden_size: {width.hidden_size}, and a student's vectors are held against its "
            f"teacher's of {wide} numbers; accepted: null, and a smaller intermediate_size"
        )


def _check_heads(losses: LossWeights, width: Width, theirs: Width) -> None:
    weights = losses.at(0.0)
    if "attention" in weights:
        check_same_heads(width.heads, theirs.heads)
    if "relation" in weights:
        widths = width.hidden_size, theirs.hidden_size
        pick_relation_heads(losses.relation_heads, theirs.heads, widths)


def _check_words(student: StudentShape, head: str) -> None:
    if student.vocabulary:
        raise ConfigError(
            f"student.vocabulary: {head} answers with tokens, so that all of them stay; accepted: null"
        )
    if student.packed_words:
        raise ConfigError(
            f"student.packed_words: {head} multiplies by the word embeddings, which have to be whole for "
            "that; accepted: null"
        )


def _count_word_weights(teacher: ModelDescription, width: Width | None) -> int:
    """Count those of the matrix with the most rows, the word embeddings of any but a tiny vocabulary."""
    shapes = student_shapes(teacher, width).values()
    rows, columns = max(tuple(shape) for shape in shapes if len(shape) == 2)
    return rows * columns


def _check_size(parameters: int) -> None:
    if 4 * parameters >= LARGEST_FILE:
        raise ConfigError(
            f"student: {parameters:,} parameters are {4 * parameters:,} bytes in fp32, and its one ONNX file "
            f"holds less than {LARGEST_FILE:,}; keep fewer layers (student.count) or narrower ones "
            "(student.hidden_size)"
        )


def _check_graph(pipeline: Pipeline, teacher: ModelDescription) -> None:
    graph, longest, head = pipeline.graph, pipeline.data.max_length, teacher.head.name
    accepted = accepted_answers(head)
    if graph.answer not in accepted:
        raise ConfigError(
            f"graph.answer: {graph.answer}, and the file of {head} cannot tell it from its logits alone; "
            f"accepted: {', '.join(accepted)}"
        )
    if graph.answer == "span" and load_tokenizer(teacher.folder).sep_token is None:
        raise ConfigError(
            "graph.answer: span, and the teacher's tokenizer has no token between question and context "
            "(sep_token); accepted: logits"
        )
    if graph.length is not None and head in SEVERAL_SEQUENCES:
        raise ConfigError(
            f"graph.length: {graph.length}, and with {head} a text has as many sequences as choices; "
            "accepted: null"
        )
    if graph.length is not None and graph.length > longest:
        raise ConfigError(
            f"graph.length: {graph.length} tokens, and the student learns from texts of {longest} "
            f"(data.max_length); accepted: 8 to {longest}, or null"
        )


def _check_losses(pipeline: Pipeline, teacher: ModelDescription) -> None:
    weights = pipeline.losses
    if not teacher.head.taught_by_labels and (
        pipeline.baseline
        or not any(weight for name, weight in weights.at(0.5).items() if name != "task")
    ):
        raise ConfigError(
            f"{teacher.head.name} are learnt from the teacher alone; accepted: baseline: false, and a weight "
            "for losses.distillation or losses.cosine"
        )
    for name, accepted in (("unlabelled", None), ("augment", 0)):
        asked = getattr(pipeline.data, name) not in (accepted, "auto")
        if asked and not teacher.head.reads_plain_text:
            raise ConfigError(
                f"data.{name}: {teacher.head.name} reads no text as it stands; accepted: "
                f"{'null' if accepted is None else accepted}"
            )
    if pipeline.data.unlabelled_kept == "telling" and not teacher.head.may_find_nothing:
        raise ConfigError(
            f"data.unlabelled_kept: telling, and {teacher.head.name} has no class of words that are "
            "nothing in particular (O); accepted: all"
        )
    _check_task_loss(weights, teacher.head)
    if "relation" in weights.at(0.0):
        _check_relation(teacher)


def _check_task_loss(losses: LossWeights, head: Head) -> None:
    plain = {"focal_gamma": 0.0, "class_weights": None}
    for key, value in plain.items():
        if getattr(losses, key) != value and not head.single_label:
            raise ConfigError(
                f"losses.{key}: {getattr(losses, key)!r}, and with {head.name} no text or word has exactly "
                f"one class to count more or less; accepted: {'null' if value is None else value}"
            )
    if isinstance(losses.class_weights, dict):
        unknown = [name for name in losses.class_weights if name not in head.labels]
        if unknown:
            raise ConfigError(
                f"losses.class_weights: the teacher has no class {', '.join(map(repr, unknown))}; "
                f"accepted: {', '.join(head.labels[:8])}{' …' if len(head.labels) > 8 else ''}"
            )


def _check_relation(teacher: ModelDescription) -> None:
    family = FAMILIES.get(teacher.model_type)
    if family is not None and family.attention_maps is None:
        apart = ", ".join(name for name, family in FAMILIES.items() if family.attention_maps)
        raise ConfigError(
            f"losses.relation: {teacher.model_type} has one map for queries, keys and values; accepted: "
            f"0, or a teacher that keeps them apart: {apart}"
        )


def make_plan(pipeline: Pipeline, teacher: ModelDescription, splits: Splits) -> dict[str, Any]:
    """Return what a run would do: layers, sizes, steps, targets, gate.

    Raises:
        ConfigError: the pipeline file does not fit the teacher.
    """
    layers = check_fit(pipeline, teacher)
    augment = pipeline.data.augment
    copies = count_copies(augment, teacher.head, len(splits.train))
    student = _of_student(pipeline.student, teacher, layers)
    return {
        "name": pipeline.name,
        "teacher": _of_teacher(pipeline.teacher.source, teacher),
        "data": {
            "rows": {name: len(rows) for name, rows in splits.named().items()},
            "evaluation_split": splits.evaluation,
            "notes": [*splits.notes, *note_copies(augment, copies), *_note_windows(teacher.head)],
        },
        "student": student,
        "steps": _count_steps(pipeline, teacher.head, splits, copies),
        "targets": [_of_target(target, student["parameters"]) for target in pipeline.rows],
        "gate": pipeline.limits.model_dump(mode="json"),
    }


def _note_windows(head: Head) -> list[str]:
    if not head.has_windows:
        return []
    return ["train: a longer text than data.max_length is several rows, and makes more steps"]


def _of_teacher(source: str, teacher: ModelDescription) -> dict[str, Any]:
    return {
        "source": source,
        "fingerprint": teacher.fingerprint,
        "architecture": teacher.architecture,
        "task": teacher.head.name,
        "labels": list(teacher.head.labels),
        "layers": teacher.layers,
        "parameters": teacher.parameters,
        "bytes": teacher.size_bytes,
    }


def _of_student(
    shape: StudentShape, teacher: ModelDescription, layers: Sequence[int] | None
) -> dict[str, Any]:
    count = count_layers(teacher.stack.kinds, shape)
    width = pick_width(teacher, shape)
    parameters = count_parameters(teacher, count, width)
    return {
        "layers": "search" if layers is None else list(layers),
        "count": count,
        "width": None if width is None else asdict(width),
        "packed_words": shape.packed_words,
        "parameters": parameters,
        "bytes": 4 * parameters,
    }


def _of_target(target: Target, parameters: int) -> dict[str, Any]:
    return {
        "target": target.name,
        "schemes": [scheme.name for scheme in target.schemes],
        "runtime": target.runtime,
        "provider": target.provider,
        "expected_bytes": parameters,  # 8-bit weights; biases and norms stay fp32
    }


def _count_steps(pipeline: Pipeline, head: Head, splits: Splits, copies: int) -> int:
    settings = pipeline.training
    rows = head.encoded_rows * len(splits.train)
    unlabelled = len(splits.unlabelled or ()) + rows * copies
    parts = [unlabelled, *[rows] * settings.epochs]
    if pipeline.student.packed_words != "after":
        return _count_batches(parts, settings)
    adapting = [unlabelled, *[rows] * settings.more_epochs]
    return _count_batches(parts, settings) + _count_batches(adapting, settings)


def _count_batches(parts: Sequence[int], settings: TrainingSettings) -> int:
    """Count those of one training that reads these parts, each of so many rows."""
    batches = sum(-(-part // settings.batch_size) for part in parts)
    return min(batches, settings.max_steps or batches)
