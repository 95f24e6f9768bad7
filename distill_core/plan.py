"""What a run would do, from the pipeline file, the teacher's headers and the rows alone."""

from typing import Any

from distill_core.config import Pipeline
from distill_core.dataset import Splits
from distill_core.errors import ConfigError
from distill_core.layers import map_layers, pick_layers
from distill_core.targets import find_target
from distill_core.teacher import ModelDescription


def check_fit(pipeline: Pipeline, teacher: ModelDescription) -> tuple[int, ...]:
    """Check the pipeline file against the teacher, and return the layers picked.

    Raises:
        ConfigError: a layer that the teacher does not have, hidden states that cannot be aligned,
            texts longer than it reads, or nothing to learn from.
    """
    if pipeline.data.max_length > teacher.max_length:
        raise ConfigError(
            f"data.max_length: {pipeline.data.max_length} tokens, and the teacher reads "
            f"{teacher.max_length}; accepted: 1 to {teacher.max_length}"
        )
    weights = pipeline.losses
    if not teacher.head.taught_by_labels and (
        pipeline.baseline or weights.distillation + weights.cosine == 0
    ):
        raise ConfigError(
            f"{teacher.head.name} are learnt from the teacher alone; accepted: baseline: false, and a weight "
            "for losses.distillation or losses.cosine"
        )
    layers = pick_layers(teacher.stack.kinds, pipeline.student)
    map_layers(len(layers), teacher.layers, pipeline.losses.hidden_layers)
    return layers


def make_plan(pipeline: Pipeline, teacher: ModelDescription, splits: Splits) -> dict[str, Any]:
    """Return what a run would do: layers, sizes, steps, targets, gate.

    Raises:
        ConfigError: the pipeline file does not fit the teacher.
    """
    layers = check_fit(pipeline, teacher)
    parameters = teacher.parameters - (teacher.layers - len(layers)) * teacher.layer_parameters
    settings = pipeline.training
    rows = teacher.head.encoded_rows * len(splits.train)
    steps = settings.epochs * -(-rows // settings.batch_size)
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
        "student": {"layers": list(layers), "parameters": parameters, "bytes": 4 * parameters},
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
