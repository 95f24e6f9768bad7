"""Table: family of encoders → what it does in its own way.

A family that is not listed is found by its structure; a row here is what its config.json alone does
not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill_core.axes import AXES
from distill_core.errors import TeacherError


@dataclass(frozen=True)
class Family:
    """How a family names its shape in config.json, and counts its positions."""

    layers_key: str = "num_hidden_layers"
    width_key: str = "hidden_size"
    heads_key: str = "num_attention_heads"
    intermediate_key: str = "intermediate_size"
    position_offset: int = 0
    """Rows of the position embeddings that no token has: RoBERTa's start behind the padding index, 1."""
    attention_maps: tuple[str, str, str] | None = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    )
    """How the names of the linear maps to queries, keys and values end; None where they are one map."""


_PLAIN = Family()
_ROBERTA = Family(position_offset=2)
_ONE_MAP = Family(attention_maps=None)


def _maps(place: str, *names: str) -> tuple[str, str, str]:
    query, key, value = (f"{place}.{name}" for name in names)
    return query, key, value


FAMILIES = {
    "bert": _PLAIN,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        "n_layers",
        "dim",
        "n_heads",
        "hidden_dim",
        attention_maps=_maps("attention", "q_lin", "k_lin", "v_lin"),
    ),
    "electra": _PLAIN,
    "mpnet": Family(position_offset=2, attention_maps=_maps("attention.attn", "q", "k", "v")),
    "albert": Family(attention_maps=_maps("attention", "query", "key", "value")),
    "deberta": _ONE_MAP,
    "deberta-v2": Family(
        attention_maps=_maps("attention.self", "query_proj", "key_proj", "value_proj")
    ),
    "mobilebert": _PLAIN,
    "big_bird": _PLAIN,
    "modernbert": _ONE_MAP,
}
"""`model_type` of the families whose students are proved by tests here; DeBERTa v3 calls itself v2."""

REFUSED = {
    "longformer": "it pads texts to its windows while it is traced, so its ONNX file would hold for one "
    "length alone; big_bird and modernbert read long texts too",
}
"""Table: encoders that cannot be carried to the end → the reason."""


@dataclass(frozen=True)
class Width:
    """How wide the layers of a model are."""

    hidden_size: int
    heads: int
    intermediate_size: int
    embedding_size: int
    """Of the embeddings: ELECTRA's may be narrower than its hidden states."""

    @property
    def head_size(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden_size // self.heads


@dataclass(frozen=True)
class Stack:
    """What config.json says of the layers of a model."""

    layers: int
    hidden_size: int
    width: Width | None
    """None of a family whose students are as wide as their teacher."""
    max_length: int
    """Tokens that the position embeddings reach, the special ones included."""
    shared: bool
    """All layers are one set of weights, as ALBERT's are: less depth is less time, not less size."""
    kinds: tuple[str, ...]
    """Of each layer, where its place decides what it is; two layers may change places if alike."""


def read_stack(config: Mapping[str, Any], where: str) -> Stack:
    """Return the layers of an encoder from its parsed config.json.

    Args:
        config: the parsed config.json.
        where: the folder, for the message.

    Raises:
        TeacherError: no encoder, or one whose students cannot be made; the message says why.
    """
    family = FAMILIES.get(config.get("model_type", "none")) or _unlisted(config, where)
    for name in (family.width_key, family.layers_key, "max_position_embeddings"):
        if not isinstance(config.get(name), int):
            raise TeacherError(
                f"{where}/config.json: {name} is {config.get(name)!r}; accepted: a whole number"
            )
    groups = (config.get("num_hidden_groups", 1), config.get("inner_group_num", 1))
    if groups != (1, 1):
        raise TeacherError(
            f"{where}/config.json: num_hidden_groups and inner_group_num are {groups}: layers that "
            "share weights in several groups cannot be picked; accepted: 1 and 1"
        )
    layers = config[family.layers_key]
    return Stack(
        layers=layers,
        hidden_size=config[family.width_key],
        width=_width(config, family, where) if config["model_type"] in AXES else None,
        max_length=config["max_position_embeddings"] - family.position_offset,
        shared="num_hidden_groups" in config,
        kinds=_kinds(config, layers),
    )


def _width(config: Mapping[str, Any], family: Family, where: str) -> Width:
    keys = (family.width_key, family.heads_key, family.intermediate_key)
    for key in keys:
        if not isinstance(size := config.get(key), int) or size < 1:
            raise TeacherError(f"{where}/config.json: {key} is {size!r}; accepted: a whole number")
    hidden_size, heads, intermediate_size = (config[key] for key in keys)
    return Width(hidden_size, heads, intermediate_size, config.get("embedding_size", hidden_size))


def _unlisted(config: Mapping[str, Any], where: str) -> Family:
    """Check that a family that is not in the table is an encoder that transformers knows."""
    import transformers  # takes seconds, and listed families do without
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    name = config.get("model_type")
    if name in REFUSED:
        reason = REFUSED[name]
    elif name not in transformers.CONFIG_MAPPING:
        reason = f"transformers {transformers.__version__} has none, and code beside a model is never run"
    elif transformers.CONFIG_MAPPING[name].from_dict(dict(config)).is_encoder_decoder:
        reason = "it has a decoder"
    elif name not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        reason = "it reads in one direction, or cannot fill in masked words as BERT does"
    else:
        return _PLAIN
    raise TeacherError(
        f"{where}/config.json: model_type {name!r} is not supported: {reason}; "
        f"accepted: encoders like {', '.join(FAMILIES)}"
    )


def _kinds(config: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    """Return the kind of each layer: all alike, but for ModernBERT.

    There every n-th layer attends to the whole text and the others to their surroundings, by their
    place; and the first has no norm in front (Warner et al. 2024, arXiv:2412.13663, section 2.1).
    """
    period = config.get("global_attn_every_n_layers")
    if period is None:
        return ("layer",) * layers
    rest = ("global" if place % period == 0 else "local" for place in range(1, layers))
    return ("first", *rest)
