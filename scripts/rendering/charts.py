"""Learning curves as geometry that a template draws as SVG: what of it lies where, in pixels of a fixed frame."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24

Values = Mapping[int, Sequence[float]]
"""One value per seed by epoch."""


@dataclass(frozen=True)
class Line:
    """The mean over seeds as an SVG path, and the band from the least to the greatest (empty with one seed)."""

    name: str
    path: str
    band: str


@dataclass(frozen=True)
class Chart:
    """Ticks are (place, label); `starts` are the places where a phase begins; `points` is what hovering shows."""

    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    starts: list[float]
    points: dict


def widened(low: float, high: float) -> tuple[float, float]:
    """The range, or a thousandth about it where it is too narrow for ticks that differ in print."""
    largest = max(abs(low), abs(high))
    margin = (0.001 * largest or 0.001) if high - low <= 1e-6 * largest else 0.0
    return low - margin, high + margin


def draw(series: Mapping[str, Values], starts: Mapping[str, int]) -> Chart | None:
    """The chart of `series` by name; `starts` is how many epochs passed before each phase. None without values."""
    series = {name: values for name, values in series.items() if values}
    if not series:
        return None
    epochs = sorted({epoch for values in series.values() for epoch in values})
    every = [value for values in series.values() for seeds in values.values() for value in seeds]
    x_ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1).tick_values(0, epochs[-1])
    y_ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(*widened(min(every), max(every)))
    step = y_ticks[1] - y_ticks[0]
    decimals = next(digits for digits in range(12) if math.isclose(round(step, digits), step, rel_tol=1e-6))
    low, high = y_ticks[0], y_ticks[-1]

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * epoch / epochs[-1], 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    def path(points: list[tuple[int, float]]) -> str:
        return "M" + "L".join(f"{x(epoch):g},{y(value):g}" for epoch, value in points)

    lines, points = [], []
    for name, values in series.items():
        means = [(epoch, math.fsum(values[epoch]) / len(values[epoch])) for epoch in sorted(values)]
        least = [(epoch, min(values[epoch])) for epoch in sorted(values)]
        greatest = [(epoch, max(values[epoch])) for epoch in sorted(values)]
        several = max(map(len, values.values())) > 1
        lines.append(Line(name, path(means), path([*greatest, *reversed(least)]) + "Z" if several else ""))
        at = {
            epoch: [mean, low, high] if several else [mean]
            for (epoch, mean), (_, low), (_, high) in zip(means, least, greatest, strict=True)
        }
        points.append([[float(f"{value:.5g}") for value in at[epoch]] if epoch in at else None for epoch in epochs])
    return Chart(
        lines,
        [(x(tick), f"{tick:g}") for tick in x_ticks if tick <= epochs[-1]],
        [(y(tick), f"{tick:.{decimals}f}".replace("-", "−")) for tick in y_ticks],
        [x(start + 0.5) for start in list(starts.values())[1:]],
        {
            "epochs": epochs,
            "x": [x(epoch) for epoch in epochs],
            "names": list(series),
            "values": points,
            "phases": list(starts.items()),
        },
    )
