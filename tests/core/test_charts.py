"""Curves of a training, by the coordinates in their SVG."""

import re
from typing import Any

import matplotlib as mpl
import numpy as np

from distill_core.charts import (
    MOST_POINTS,
    candidates_chart,
    training_charts,
    validation_chart,
)


def steps_with(values: list[float]) -> list[dict[str, Any]]:
    return [step((i + 1) / len(values), value) for i, value in enumerate(values)]


def step(epoch: float, total: float, **losses: float) -> dict[str, Any]:
    return {"epoch": epoch, "total": total, "losses": losses, "learning_rate": 0.0}


def longest_path(svg: str) -> np.ndarray:
    """Return the coordinates of the curve with the most points."""
    curves = re.findall(r' d="([^"]+)"[^>]*stroke: var\(--accent\)', svg)
    paths = [re.findall(r"[ML] (\S+) (\S+)", curve) for curve in curves]
    return np.array(max(paths, key=len), float)


def test_curve_of_many_steps_has_few_points() -> None:
    values = np.random.default_rng(0).normal(size=20_000).tolist()
    (chart,) = training_charts(steps_with(values))
    assert MOST_POINTS / 2 < len(longest_path(chart.svg)) <= MOST_POINTS


def test_curve_goes_through_its_values() -> None:
    (chart,) = training_charts(steps_with([4.0, 1.0, 2.0]))
    x, y = longest_path(chart.svg).T
    np.testing.assert_allclose(np.diff(x)[0], np.diff(x)[1], atol=0.2)
    # Downwards is positive in SVG: three units down, then one up.
    np.testing.assert_allclose(np.diff(y)[0], -3 * np.diff(y)[1], atol=0.4)


def test_losses_that_were_not_used_have_no_chart() -> None:
    steps = [step(1.0, 2.0, task=2.0, distillation=0.0, cosine=0.0, relation=0.5)]
    titles = [chart.title for chart in training_charts(steps)]
    assert titles == ["Total loss", "Task loss", "Relation loss"]


def test_a_loss_that_was_left_out_later_ends_where_it_did() -> None:
    steps = [step(1.0, 2.0, task=2.0, hidden=3.0), step(2.0, 1.0, task=1.0)]
    said = {chart.title: chart.description for chart in training_charts(steps)}
    assert said["Hidden loss"] == "Hidden loss: 3 at the first step, 3 at the last."
    assert said["Task loss"] == "Task loss: 2 at the first step, 1 at the last."


def test_descriptions_say_what_the_curves_show() -> None:
    (chart,) = training_charts(steps_with([4.0, 1.0, 2.0]))
    assert chart.description == "Total loss: 4 at the first step, 2 at the last."
    epochs = [{"epoch": n, "metrics": {"accuracy": a}} for n, a in ((1, 0.8), (2, 0.9), (3, 0.85))]
    description = validation_chart(epochs, "accuracy", "accuracy").description
    assert (
        description
        == "Validation accuracy: 80.0% after the first epoch, at best 90.0% after epoch 2."
    )


def test_candidates_are_drawn_once_for_each_scheme_and_the_chosen_one_has_a_ring() -> None:
    small, large = (
        {"scheme": scheme, "bytes": size, "flips": flips, "verdict": "chosen" if ring else "larger"}
        for scheme, size, flips, ring in (("four", 5e6, 0.02, True), ("eight", 9e6, 0.01, False))
    )
    chart = candidates_chart([small, large, {**small, "verdict": "too much"}])
    assert chart.svg.count(">four<") == chart.svg.count(">eight<") == 1
    assert chart.description.endswith(": four: 5.0 MB, 2.0% (chosen); eight: 9.0 MB, 1.0%.")


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    training_charts(steps_with([4.0, 1.0, 2.0]))
    assert dict(mpl.rcParams) == before


def test_drawing_has_the_colours_of_the_page_and_no_others() -> None:
    (chart,) = training_charts(steps_with([float(i % 7) for i in range(100)]))
    assert "var(--accent)" in chart.svg
    assert re.findall(r"(?:fill|stroke): #\w+", chart.svg) == []
    assert "<style" not in chart.svg
