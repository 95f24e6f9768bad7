"""The pipeline file's part about the files themselves."""

from typing import Annotated, Literal

from pydantic import Field

from distill_core.section import Section

_LARGEST_STEP = 8_192
"""Bytes: int32 inputs with probabilities add 251, with spans 2,744."""


class GraphShape(Section):
    """What the files of the bundles do for their app; a run scores and times them before."""

    inputs: Literal["int64", "int32"] = "int64"
    """Type of token ids and masks."""
    answer: Literal["logits", "probabilities", "label", "span"] = "logits"
    """logits; for classes of texts or tokens and for choices probabilities, by softmax, or by sigmoids where
    labels are several, or label, its number; for questions span, where the answer stands. Other heads answer
    with logits alone."""
    length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of every text, of which there is one at a time: longer ones are cut, shorter ones filled up by
    the app. For runtimes that want fixed shapes; null takes any length."""
    ort_format: bool = False
    """Also write the file in onnxruntime's own format, and which operators it needs, for reduced builds."""

    @property
    def added_bytes(self) -> int:
        """How much larger a file may become by it, at most."""
        return 0 if self.plain else _LARGEST_STEP

    @property
    def plain(self) -> bool:
        """Whether files stay as they were made."""
        return (self.inputs, self.answer, self.length) == ("int64", "logits", None)
