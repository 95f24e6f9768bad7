"""What every part of the pipeline file is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the pipeline file: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
