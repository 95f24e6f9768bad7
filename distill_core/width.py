"""How wide the student is: its hidden states, attention heads and feed-forward neurons."""

from math import prod

from distill_core.axes import Axis, Shapes, keeps_width, label_axes
from distill_core.config import StudentShape
from distill_core.errors import ConfigError
from distill_core.families import Width
from distill_core.teacher import ModelDescription
from distill_core.weight_files import count_layer


def pick_width(teacher: ModelDescription, shape: StudentShape) -> Width | None:
    """Return the width of the student; None where it is the teacher's.

    Raises:
        ConfigError: a width that the teacher's cannot be cut to.
        TeacherError: a family, or a tensor of it, that cannot be cut at all.
    """
    asked = shape.model_dump(include={"hidden_size", "heads", "intermediate_size"})
    if all(size is None for size in asked.values()):
        return None
    theirs = teacher.stack.width
    if theirs is None:
        raise keeps_width(teacher.model_type)
    label_axes(teacher.model_type, teacher.shapes)
    for key, size in asked.items():
        if size is not None and size > (most := getattr(theirs, key)):
            raise ConfigError(
                f"student.{key}: {size}, and the teacher has {most}; accepted: 1 to {most}"
            )
    hidden_size = shape.hidden_size or theirs.hidden_size
    apart = theirs.embedding_size != theirs.hidden_size
    width = Width(
        hidden_size,
        shape.heads or theirs.heads,
        shape.intermediate_size or theirs.intermediate_size,
        theirs.embedding_size if apart else hidden_size,
    )
    _check_heads(width, theirs)
    if apart and width.hidden_size == width.embedding_size:
        raise ConfigError(
            f"student.hidden_size: {hidden_size} is the width of the teacher's embeddings, where this family "
            f"has nothing between the two; accepted: any other multiple of {width.heads}"
        )
    return None if width == theirs else width


def _check_heads(width: Width, theirs: Width) -> None:
    """Check that heads fill the hidden states, and none is larger than a head of the teacher."""
    if width.hidden_size % width.heads:
        raise ConfigError(
            f"student.hidden_size: {width.hidden_size} dimensions cannot be shared by {width.heads} heads; "
            f"accepted: multiples of {width.heads}, up to {width.heads * theirs.head_size}"
        )
    if width.head_size > theirs.head_size:
        fitting = [
            heads
            for heads in range(1, theirs.heads + 1)
            if width.hidden_size % heads == 0 and width.hidden_size // heads <= theirs.head_size
        ]
        raise ConfigError(
            f"student.heads: {width.heads} would have {width.head_size} dimensions each, and the teacher's "
            f"have {theirs.head_size}; accepted with a hidden_size of {width.hidden_size}: "
            f"{', '.join(map(str, fitting))}; or a hidden_size of at most {width.heads * theirs.head_size}"
        )


def check_same_heads(student: int, teacher: int) -> None:
    """Check that the attentions of student and teacher can be compared, head by head.

    Raises:
        ConfigError: they have other numbers of heads.
    """
    if student != teacher:
        raise ConfigError(
            f"losses.attention: the student has {student} attention heads and the teacher {teacher}, and "
            "each is compared with its like; accepted: 0. losses.relation needs no equal number"
        )


def pick_relation_heads(asked: int | None, heads: int, widths: tuple[int, int]) -> int:
    """Return in how many parts the queries, keys and values of student and teacher are compared.

    Args:
        asked: of the pipeline file; None takes as many as the teacher has heads.
        heads: of the teacher.
        widths: numbers in a query of the student, and of the teacher.

    Raises:
        ConfigError: they do not come out even.
    """
    parts = asked or heads
    common = [n for n in range(1, min(widths) + 1) if not any(width % n for width in widths)]
    if parts not in common:
        raise ConfigError(
            f"losses.relation_heads: {parts} parts of {widths[0]} (student) and {widths[1]} (teacher) "
            f"numbers; accepted: {', '.join(map(str, common))}"
        )
    return parts


def count_parameters(teacher: ModelDescription, layers: int, width: Width | None) -> int:
    """Return the parameters of a student, from the shapes of its teacher's tensors."""
    shapes = student_shapes(teacher, width)
    gone = teacher.layers - layers
    return sum(map(prod, shapes.values())) - gone * count_layer(shapes, teacher.layer_prefix)


def student_shapes(teacher: ModelDescription, width: Width | None) -> Shapes:
    """Return the shapes of a student's tensors, those of all the teacher's layers; None keeps the width."""
    return teacher.shapes if width is None else _narrow_shapes(teacher, width)


def _narrow_shapes(teacher: ModelDescription, width: Width) -> Shapes:
    """Return the shapes of the teacher's tensors when they are cut to a width."""
    sizes: dict[Axis, int] = {
        "hidden": width.hidden_size,
        "queries": width.hidden_size,
        "keys": width.hidden_size,
        "values": width.hidden_size,
        "pooled": width.hidden_size,
        "heads": width.heads,
        "neurons": width.intermediate_size,
        "embedding": width.embedding_size,
    }
    labelled = label_axes(teacher.model_type, teacher.shapes)
    return {
        name: [
            size if axis is None else sizes[axis]
            for size, axis in zip(shape, labelled[name], strict=True)
        ]
        for name, shape in teacher.shapes.items()
    }
