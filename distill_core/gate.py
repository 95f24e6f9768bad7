"""What a run must reach, or nothing is published."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, NonNegativeFloat

from distill_core.places import OwnTarget
from distill_core.section import Section


class Gate(Section):
    """What a run must reach, or it fails and publishes nothing."""

    retention: NonNegativeFloat = 0.97
    """Least main metric of the student, as a share of the teacher's."""
    quantization_drop: NonNegativeFloat = 0.01
    """Most that quantization may take from the student's main metric."""
    quantization_flips: NonNegativeFloat | None = None
    """Largest share of answers that quantization may change, right ones or wrong ones; null: any."""
    max_mb: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Largest file of a target, in megabytes (10^6 bytes): {target: MB}. What fits is small enough: of such
    files the one nearest to the student is chosen, and not the smallest, and codebooks leave matrices in 8
    bits as long as there is room. Where `graph` gives files another shape, 0.008 MB are kept free for it."""
    max_ms: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Largest median latency of a target on the machine of the run, in ms: {target: ms}."""

    def allows(self, lost: Mapping[str, Any]) -> bool:
        """Tell whether quantization costs little enough.

        Args:
            lost: `drop` of the main metric, and `flips`, the share of answers that changed.
        """
        most = self.quantization_flips
        kept = most is None or lost["flips"] <= most
        return bool(kept and lost["drop"] <= self.quantization_drop)

    def leaving(self, room_bytes: int) -> "Gate":
        """Return it with limits that leave room for what a file may still become larger by."""
        limits = {target: max(0.0, most - room_bytes / 1e6) for target, most in self.max_mb.items()}
        return self.model_copy(update={"max_mb": limits})

    def limited(self, places: tuple[str | OwnTarget, ...]) -> "Gate":
        """Return it with the limits that rows of one's own bring along."""
        limits: dict[str, dict[str, float]] = {}
        for name in ("max_mb", "max_ms"):
            own = {
                place.name: getattr(place, name) for place in places if isinstance(place, OwnTarget)
            }
            given = {target: limit for target, limit in own.items() if limit is not None}
            limits[name] = {**given, **getattr(self, name)}
        return self.model_copy(update=limits)
