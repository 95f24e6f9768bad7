"""Which of the teacher's layers the student starts from."""

from distill_core.config import StudentShape
from distill_core.errors import ConfigError


def pick_layers(layers: int, shape: StudentShape) -> tuple[int, ...]:
    """Return the teacher's layers to copy, in order, numbered from 0.

    alternate takes layer ⌊i·n/k⌋ for the i-th of k: at half the depth one is copied and one
    skipped (Sanh et al. 2019, section 2, "Student initialization"), at the whole depth all are.
    top and bottom take the last and the first k, which Sun et al. 2019 (arXiv:1908.09355) found
    worse on average.

    Args:
        layers: the number of layers of the teacher, n.
        shape: the rule, and the number of layers to keep, k; half of n, rounded down, by default.

    Raises:
        ConfigError: a layer that the teacher does not have.
    """
    if isinstance(shape.layers, tuple):
        if shape.layers[-1] >= layers:
            raise ConfigError(
                f"student.layers: {list(shape.layers)} names layer {shape.layers[-1]}, and the teacher "
                f"has {layers}; accepted: 0 to {layers - 1}"
            )
        return shape.layers
    count = shape.count or layers // 2
    if count > layers:
        raise ConfigError(
            f"student.count: {count} layers asked, and the teacher has {layers}; accepted: 1 to {layers}"
        )
    rules = {
        "alternate": [i * layers // count for i in range(count)],
        "top": range(layers - count, layers),
        "bottom": range(count),
    }
    return tuple(rules[shape.layers])
