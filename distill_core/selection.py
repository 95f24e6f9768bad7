"""Choose the file that a target gets, by what each candidate loses, weighs and takes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill_core.gate import Gate
from distill_core.outcome import judge_artifact

SLOWER = 1.15
"""Times the latency of the fastest file within the gate that a smaller one may take: medians of one
file in two runs differ by some 5%, and nobody should wait longer for fewer bytes."""


@dataclass(frozen=True)
class Candidate:
    """A file that could be shipped, and what was measured of it."""

    scheme: str
    key: str
    """Of the stage that made it."""
    sha256: str
    drop: float
    """Of the main metric on validation rows, from the student as it was trained."""
    flips: float
    """Share of their units that it answers otherwise than that student."""
    distance: float
    """Of its logits from those of that student: what flips tell of few rows, with less luck in it."""
    bytes: int
    p50_ms: float
    load_ms: float
    peak_rss_mb: float
    wasm_p50_ms: float | None = None
    """In onnxruntime-web, of a file for the web, where the machine has that: what is slow differs."""

    @property
    def pace_ms(self) -> float:
        """What a text takes where the file will run, as near as the machine comes to it."""
        return self.p50_ms if self.wasm_p50_ms is None else self.wasm_p50_ms


@dataclass(frozen=True)
class Choice:
    """The file for a target, and why it is not another one."""

    chosen: Candidate
    verdicts: tuple[str, ...]
    """Of each candidate, in their order."""

    def facts(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """Return the choice as JSON-able values.

        Args:
            candidates: what was chosen from.
        """
        entries = zip(candidates, self.verdicts, strict=True)
        return {
            "scheme": self.chosen.scheme,
            "key": self.chosen.key,
            "candidates": [{**asdict(entry), "verdict": verdict} for entry, verdict in entries],
        }


def choose(candidates: Sequence[Candidate], gate: Gate, target: str) -> Choice:
    """Return the smallest file within the gate that is about as fast as the fastest there.

    Where the gate says how large a file of the target may be, what is within it is small enough, and the one
    with the nearest answers to the student's is taken. Where none is within the gate, it is the one that
    loses least: the gate will say no to it.

    Args:
        candidates: one or more, in the order of the target's schemes.
        gate: the limits.
        target: whose limits.
    """
    failures = [_failures(candidate, gate, target) for candidate in candidates]
    # Of a model too small to be packed, several schemes make one file: noise must not choose between them.
    files = {entry.sha256: entry for entry in reversed(candidates)}
    within = [
        entry
        for entry, found in zip(candidates, failures, strict=True)
        if not found and files[entry.sha256] is entry
    ]
    if not within:
        chosen = min(candidates, key=lambda entry: entry.drop)
        return Choice(chosen, tuple("; ".join(found) for found in failures))
    fastest = min(within, key=lambda entry: entry.pace_ms)
    fast = [entry for entry in within if entry.pace_ms <= SLOWER * fastest.pace_ms]
    limited = gate.max_mb.get(target) is not None
    chosen = min(fast, key=_near if limited else _small)
    return Choice(
        chosen,
        tuple(
            "; ".join(found) or _verdict(entry, files[entry.sha256], chosen, fastest, limited)
            for entry, found in zip(candidates, failures, strict=True)
        ),
    )


def _small(entry: Candidate) -> tuple[int | float, ...]:
    return entry.bytes, entry.flips


def _near(entry: Candidate) -> tuple[int | float, ...]:
    return entry.distance, entry.bytes


def _failures(candidate: Candidate, gate: Gate, target: str) -> list[str]:
    return judge_artifact(
        gate,
        {
            "target": target,
            "drop": candidate.drop,
            "flips": candidate.flips,
            "bytes": candidate.bytes,
            "latency_ms": {"p50": candidate.p50_ms},
        },
    )


def _verdict(
    entry: Candidate, first: Candidate, chosen: Candidate, fastest: Candidate, limited: bool
) -> str:
    if entry is chosen:
        return "chosen"
    if entry is not first:
        return f"the same file as {first.scheme}"
    if entry.pace_ms > SLOWER * fastest.pace_ms:
        where = "" if entry.wasm_p50_ms is None else " in wasm"
        times = entry.pace_ms / fastest.pace_ms
        return f"takes {times:.2f} times as long as {fastest.scheme}{where}"
    if limited and entry.distance > chosen.distance:
        return (
            f"farther from the student: {entry.distance:.3g}, {chosen.scheme} {chosen.distance:.3g}"
        )
    if entry.bytes > chosen.bytes:
        return f"{entry.bytes / chosen.bytes:.2f} times as large as {chosen.scheme}"
    return f"flips {entry.flips:.2%} of the answers, {chosen.scheme} {chosen.flips:.2%}"
