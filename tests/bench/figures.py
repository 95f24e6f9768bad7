"""What a cell of a table shows of a record, or of several."""

import statistics
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
Column = tuple[str, Callable[[Record], str]]
Group = list[Record]
"""The records of one setting, by seed."""


def value_at(record: Record, path: str) -> Any:
    """Return a figure, by the names on its path, joined by points."""
    value = record["figures"]
    for key in path.split("."):
        value = value[key]
    return value


def figure(path: str, pattern: str = "{:.4f}", scale: float = 1.0) -> Callable[[Record], str]:
    """Show a figure, scaled if it is a number."""

    def read(record: Record) -> str:
        value = value_at(record, path)
        return pattern.format(value * scale if isinstance(value, (int, float)) else value)

    return read


def spread(record: Record) -> str:
    """Show the fastest and the slowest round of the 8-bit file."""
    rounds = record["figures"]["timings"]["int8"]["p50_rounds_ms"]
    return f"{min(rounds):.2f}–{max(rounds):.2f}"


def times_fp32(record: Record) -> str:
    """Show how many times as fast as the fp32 file the 8-bit file is."""
    timings = record["figures"]["timings"]
    return f"{timings['fp32']['p50_ms'] / timings['int8']['p50_ms']:.2f}×"


def spread_in_wasm(record: Record) -> str:
    """Show the median in WebAssembly, the fastest and the slowest round."""
    timing = record["figures"]["wasm"]
    if not timing:
        return "does not load"
    rounds = timing["p50_rounds_ms"]
    return f"{timing['p50_ms']:.1f} ({min(rounds):.1f}–{max(rounds):.1f})"


def in_wasm(record: Record) -> str:
    """Show the median of the 8-bit file in WebAssembly."""
    timings = record["figures"]["wasm"]
    return f"{timings['int8']['p50_ms']:.1f}" if timings else "does not load"


def own_metric(whose: str) -> Callable[[Record], str]:
    """Show the main metric of a task, of one of the record's models."""

    def read(record: Record) -> str:
        return figure(f"{whose}.{record['figures']['main_metric']}")(record)

    return read


def flips(record: Record) -> str:
    """Show how many rows are answered otherwise; of vectors, how far they turn."""
    flips, units = record["figures"]["flips"], record["figures"]["units"]
    return f"1 - {1 - flips:.5f}" if record["data"] == "stsb" else f"{flips * units:.0f}"


def artifacts(value: Callable[[Record, Record], float], pattern: str) -> Callable[[Record], str]:
    """Show the range of a figure over all targets, the least favourable first."""

    def read(record: Record) -> str:
        values = sorted(value(a, record["figures"]) for a in record["figures"]["artifacts"])
        low, high = pattern.format(values[0]), pattern.format(values[-1])
        return low if low == high else f"{low} to {high}"

    return read


def mean(path: str, pattern: str = "{:.4f}") -> Callable[[Group], str]:
    """Show the mean of a figure over the seeds, and its range."""

    def read(group: Group) -> str:
        values = [float(value_at(record, path)) for record in group]
        middle = pattern.format(statistics.mean(values))
        if len(values) == 1:
            return middle
        return f"{middle} ({pattern.format(min(values))}–{pattern.format(max(values))})"

    return read


def main_score(whose: str) -> Callable[[Group], str]:
    """Show the mean of the main metric over the seeds, and its range."""

    def read(group: Group) -> str:
        return mean(f"{whose}.{group[0]['figures']['main_metric']}")(group)

    return read


def notes(record: Record) -> list[Any]:
    """Return what our way notes of each round beside its times."""
    return list(record["figures"]["ways"]["ours"]["notes"])


def peak_gflops(record: Record) -> float:
    """Return the best of the rounds: what a machine multiplies is less where something else disturbs."""
    return max(note["matmul_peak_gflops"] for note in notes(record))


def share_of_peak(name: str) -> Callable[[Record], str]:
    """Show how much of the machine's peak was reached, mean over the rounds."""

    def read(record: Record) -> str:
        reached = (note[name] * note["matmul_peak_gflops"] for note in notes(record))
        return f"{statistics.mean(reached) / peak_gflops(record):.0%}"

    return read


def way(name: str, figure: str, pattern: str) -> Callable[[Record], str]:
    """Show a figure of one way of training, where it was tried."""

    def read(record: Record) -> str:
        ways = record["figures"]["ways"]
        return pattern.format(ways[name][figure]) if name in ways else ""

    return read


def flips_there(place: str) -> Callable[[Record], str]:
    """Show how many rows a place answers otherwise, and the largest difference of a logit."""

    def read(record: Record) -> str:
        figures = record["figures"]
        return f"{figures['flips'][place]} ({figures['largest_difference'][place]:.2g})"

    return read


def least_agreement(record: Record) -> str:
    """Show the two places that agree least, and how far."""
    pairs = record["figures"]["agreement"]
    pair = min(pairs, key=lambda name: float(pairs[name]))
    return f"{pairs[pair]:.3f} ({pair.replace(' | ', ', ')})"
