"""Curves of a training as small SVG drawings that take their colours from the page around them."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

MOST_POINTS = 400
"""Points of a curve: more than a drawing of this width has pixels."""
SMOOTHED_SHARE = 0.05
"""The bold curve is the mean over this share of the training."""
WIDTH_PT, HEIGHT_PT = 360, 200
"""Drawn at the width of a phone, so that the text has its own size there and in a column."""
FEW_POINTS = 20
"""Up to here a curve shows its points, and is not smoothed."""
ROUND_STEPS = [1, 2, 5, 10]
RATE = "Learning rate"

INKS = {
    "#000001": "var(--accent)",
    "#000002": "var(--line)",
    "#000003": "var(--muted)",
}
"""What matplotlib draws in → what the page's style sheet says it looks like, light or dark."""
CURVE, GRID, TEXT = INKS

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # it measures the text; the page sets it in its own font
    "font.size": 11,
    "text.color": TEXT,
    "axes.edgecolor": GRID,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": False,
}


@dataclass(frozen=True)
class Chart:
    """A drawing and its words."""

    title: str
    description: str
    """What the curve says, for those who do not see it."""
    svg: str


def training_charts(steps: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draw the losses and the learning rate of a training.

    Args:
        steps: training's step records, in order. A loss that is 0 in all of them was not used and
            gets no chart.
    """
    names = dict.fromkeys(name for step in steps for name in step["losses"])
    curves = {
        "Total loss": [(step["epoch"], step["total"]) for step in steps],
        **{
            # After words were packed, a weight that has come down to 0 leaves its loss out.
            f"{name.capitalize()} loss": [
                (step["epoch"], step["losses"][name]) for step in steps if name in step["losses"]
            ]
            for name in names
        },
        RATE: [(step["epoch"], step["learning_rate"]) for step in steps],
    }
    return [
        _curve(title, np.array(points), smooth=title != RATE)
        for title, points in curves.items()
        if any(value for _, value in points)
    ]


def validation_chart(epochs: Sequence[Mapping[str, Any]], metric: str, name: str) -> Chart:
    """Draw a metric of the validation rows after each epoch, with a ring around the best.

    Args:
        epochs: training's epoch records, at least one.
        metric: its key in the records.
        name: how the page calls it.
    """
    figure, axes = _empty_drawing()
    x = [epoch["epoch"] for epoch in epochs]
    y = [epoch["metrics"][metric] for epoch in epochs]
    best = max(range(len(y)), key=y.__getitem__)
    axes.plot(x, y, color=CURVE, linewidth=1.8, marker="o", markersize=4)
    axes.plot(x[best], y[best], "o", color=CURVE, markersize=10, markerfacecolor="none")
    axes.set_xlim(x[0] - 0.3, x[-1] + 0.3)
    margin = max(0.15 * (max(y) - min(y)), 0.002)
    axes.set_ylim(min(y) - margin, max(y) + margin)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    title = f"Validation {name}"
    description = f"{title}: {y[0]:.1%} after the first epoch, at best {y[best]:.1%} after epoch "
    return Chart(title, f"{description}{x[best]}.", _svg(figure, title))


def candidates_chart(candidates: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw what each candidate file weighs and what it answers otherwise, with rings around the chosen.

    Args:
        candidates: `scheme`, `bytes`, `flips` and `verdict` of each; of several targets, if need be.
    """
    figure, axes = _empty_drawing()
    files = {entry["scheme"]: entry for entry in candidates}
    chosen = {entry["scheme"] for entry in candidates if entry["verdict"] == "chosen"}
    for scheme, entry in files.items():
        x, y = entry["bytes"] / 1e6, entry["flips"]
        axes.plot(x, y, "o", color=CURVE, markersize=4)
        if scheme in chosen:
            axes.plot(x, y, "o", color=CURVE, markersize=10, markerfacecolor="none")
        axes.annotate(scheme, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=9)
    axes.set_xlim(0, 1.6 * max(entry["bytes"] for entry in files.values()) / 1e6)
    axes.set_ylim(0, 1.3 * max(0.002, *(entry["flips"] for entry in files.values())))
    axes.set_xlabel("MB")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    title = "Answers that change, by size"
    points = "; ".join(
        f"{scheme}: {entry['bytes'] / 1e6:.1f} MB, {entry['flips']:.1%}{' (chosen)' * (scheme in chosen)}"
        for scheme, entry in files.items()
    )
    return Chart(title, f"{title}: {points}.", _svg(figure, title))


def _curve(title: str, points: Float[np.ndarray, "steps 2"], smooth: bool) -> Chart:
    figure, axes = _empty_drawing()
    x, y = _bin_means(points[:, 0]), _bin_means(points[:, 1])
    if len(x) <= FEW_POINTS:
        axes.plot(x, y, color=CURVE, linewidth=1.8, marker="o", markersize=4)
    elif smooth:
        axes.plot(x, y, color=CURVE, linewidth=0.8, alpha=0.35)
        smoothed = _moving_average(y, round(SMOOTHED_SHARE * len(y)))
        axes.plot(x, smoothed, color=CURVE, linewidth=1.8)
    else:
        axes.plot(x, y, color=CURVE, linewidth=1.8)
    axes.set_xlim(0, points[-1, 0])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
    description = f"{title}: {points[0, 1]:.3g} at the first step, {points[-1, 1]:.3g} at the last."
    return Chart(title, description, _svg(figure, title))


def _bin_means(values: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " points"]:
    """Return the means of at most `MOST_POINTS` runs of equal length."""
    bins = np.array_split(values, min(len(values), MOST_POINTS))
    return np.array([bin_values.mean() for bin_values in bins])


def _moving_average(
    values: Float[np.ndarray, " points"], window: int
) -> Float[np.ndarray, " points"]:
    """Return each point's mean with its neighbours; at the ends there are fewer of them."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first = np.maximum(places - window // 2, 0)
    last = np.minimum(places + window // 2 + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _empty_drawing() -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_PT / 72, HEIGHT_PT / 72))
        axes = figure.add_axes((0.14, 0.2, 0.83, 0.74))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(bottom=False, left=False)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        axes.set_xlabel("epoch")
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """Return the drawing as an element to put into a page, the same bytes for the same drawing.

    Args:
        figure: what to write.
        name: keeps the ids of its shapes apart from those of other drawings in the page.
    """
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text, flags=re.DOTALL)  # it means the page too
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # "axes_1" is in every drawing
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r'(?<= d=")[^"]+', _shorten, text)
    for drawn, shown in INKS.items():
        text = text.replace(drawn, shown)
    return text.strip()


def _shorten(path: re.Match[str]) -> str:
    """Give the coordinates of a path one decimal: a tenth of a pixel."""
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path[0].strip())
