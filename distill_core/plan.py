"""What a run would do, from the pipeline file, the teacher's headers and the rows alone."""

from dataclasses import asdict
from typing import Any

from distill_core.config import Pipeline
from distill_core.dataset import Splits
from distill_core.errors import ConfigError
from distill_core.layers import count_layers, map_layers, pick_layers
from distill_core.targets import find_target
from distill_core.teacher import ModelDescription
from distill_core.width import count_parameters, pick_width


def check_fit(pipeline: Pipeline, teacher: ModelDescription) -> tuple[int, ...] | None:
    """Check the pipeline file against the teacher, and return the layers picked; None before a search.

    Raises:
        ConfigError: a layer or a width that the teacher does not have, hidden states that cannot be
            aligned, or texts longer than it reads.
        TeacherError: of a family whose students cannot be narrower, where one is asked for.
    """
    if pipeline.data.max_length > teacher.max_length:
        raise ConfigError(
            f"data.max_length: {pipeline.data.max_length} tokens, and the teacher reads "
            f"{teacher.max_length}; accepted: 1 to {teacher.max_length}"
        )
    count = count_layers(teacher.stack.kinds, pipeline.student)
    map_layers(count, teacher.layers, pipeline.losses.hidden_layers)
    pick_width(teacher, pipeline.student)
    if pipeline.student.layers != "search":
        return pick_layers(teacher.stack.kinds, pipeline.student)
    if teacher.stack.shared:
        raise ConfigError(
            "student.layers: search has nothing to find, since the teacher's layers share one set of "
            "weights; accepted: alternate"
        )
    return None


def make_plan(pipeline: Pipeline, teacher: ModelDescription, splits: Splits) -> dict[str, Any]:
    """Return what a run would do: layers, sizes, steps, targets, gate.

    Raises:
        ConfigError: the pipeline file does not fit the teacher.
    """
    layers = check_fit(pipeline, teacher)
    count = count_layers(teacher.stack.kinds, pipeline.student)
    width = pick_width(teacher, pipeline.student)
    parameters = count_parameters(teacher, count, width)
    settings = pipeline.training
    steps = settings.epochs * -(-len(splits.train) // settings.batch_size)
    return {
        "name": pipeline.name,
        "teacher": {
            "source": pipeline.teacher.source,
            "fingerprint": teacher.fingerprint,
            "architecture": teacher.architecture,
            "task": teacher.head.name,
            "labels": list(teacher.head.labels),
            "layers": teacher.layers,
            "parameters": teacher.parameters,
            "bytes": teacher.size_bytes,
        },
        "data": {
            "rows": {name: len(rows) for name, rows in splits.named().items()},
            "evaluation_split": splits.evaluation,
            "notes": list(splits.notes),
        },
        "student": {
            "layers": "search" if layers is None else list(layers),
            "count": count,
            "width": None if width is None else asdict(width),
            "parameters": parameters,
            "bytes": 4 * parameters,
        },
        "steps": min(steps, settings.max_steps or steps),
        "targets": [
            {
                "target": name,
                "scheme": find_target(name).scheme.name,
                "runtime": find_target(name).runtime,
                "expected_bytes": parameters,  # 8-bit weights; biases and norms stay fp32
            }
            for name in pipeline.targets
        ],
        "gate": pipeline.gate.model_dump(mode="json"),
    }
