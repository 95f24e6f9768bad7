"""Where the artifact will run, as the pipeline file says it: names of targets, and rows of one's own."""

from typing import Annotated

from pydantic import Discriminator, Field, NonNegativeFloat, Tag, model_validator

from distill_core.errors import ConfigError
from distill_core.section import Section
from distill_core.targets import Target, derive_target, find_target


def known_target(name: str) -> str:
    """Return a target's name.

    Raises:
        ValueError: there is no such target.
    """
    try:
        return find_target(name).name
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("targets: ")) from None


class OwnTarget(Section):
    """A place of the user's own: a row of `distill-deploy targets` with other values."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """Names the bundle's folder; not that of a row that there is."""
    like: str
    """The row it starts from; what is not given here is as there."""
    instruction_set: str | None = None
    """What the processor has, for people to read."""
    runtime: str | None = None
    """Package that loads the file, which decides what schemes it can have."""
    schemes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """What is measured, by name; the best of them within the gate is shipped."""
    verifiers: tuple[str, ...] | None = None
    """Places that the file is asked in, by name."""
    provider: str | None = None
    """Execution provider of onnxruntime that runs the file."""
    max_mb: NonNegativeFloat | None = None
    """Largest file, in megabytes (10^6 bytes); what `gate.max_mb` says of it goes before."""
    max_ms: NonNegativeFloat | None = None
    """Largest median latency on the machine of the run, in ms; `gate.max_ms` goes before."""

    @property
    def row(self) -> Target:
        """The row, whole."""
        given = self.model_dump(exclude_none=True, exclude={"max_mb", "max_ms"})
        return derive_target(**given)

    @model_validator(mode="after")
    def _makes_a_row(self) -> "OwnTarget":
        try:
            self.row  # noqa: B018 - to see whether it can be made
        except ConfigError as error:
            raise ValueError(str(error).replace("targets: ", "like: ")) from None
        return self


Place = Annotated[
    Annotated[str, Tag("name")] | Annotated[OwnTarget, Tag("row")],
    # So that a mistake is told of one of them alone.
    Discriminator(lambda value: "row" if isinstance(value, dict | OwnTarget) else "name"),
]
"""The name of a target, or a row of one's own."""
