"""Pictures of patients on a map: arrays in, a matplotlib `Figure` out, as in `figures`.

Values are in clinical units, hours count from 0 at the start of a stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.drawing.canvas import (
    COLOUR_MAP,
    COLOURS,
    LEFT,
    RIGHT,
    SIDE,
    STYLE,
    axes_at,
    draw_values,
    hatch,
    headed_figure,
    map_axes,
    map_figure,
    panels,
)
from models.grid import Grid

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

BOTTOM_SAVED = 0.35  # inches that a figure without axis labels needs less
MOST_PLANES = 40
MOST_ROWS = 12  # units in the picture of a soft assignment
TIME_COLOURS = "plasma"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Line:
    """A variable over the hours of one stay: `values` [T], and in which hours it was `measured` [T]."""

    label: str
    values: np.ndarray
    measured: np.ndarray


@matplotlib.rc_context(STYLE)
def risk_map(values: np.ndarray, grid: Grid, title: str, label: str) -> Figure:
    """One mean per unit, `values` [K]; NaN where a unit wins no hour."""
    note = "each cell: mean over the hours that the unit wins; hatched: it wins none"
    figure, axes = map_figure(grid, title, note, side=SIDE)
    draw_values(axes, np.asarray(values, np.float64), grid, label)
    return figure


@matplotlib.rc_context(STYLE)
def component_planes(planes: np.ndarray, labels: Sequence[str], spread: np.ndarray, grid: Grid) -> Figure:
    """What each unit's centroid means for every variable: `planes` [C, K] in clinical units, a colour scale for each.

    Of many variables those with the largest `spread` [C] over the map are drawn, in their order.
    """
    shown = np.sort(np.argsort(-np.asarray(spread), kind="stable")[:MOST_PLANES])
    columns = min(len(shown), 8)
    lines = -(-len(shown) // columns)
    side, gap_across, gap_down = 1.15, 0.6, 0.3
    height = side * grid.shape[0] / max(grid.shape)
    width = side * grid.shape[1] / max(grid.shape)
    note = "each panel: one variable, decoded from the centroids of all units; every panel has its own colour scale"
    title = f"Component planes ({grid.shape[0]} × {grid.shape[1]} {'torus' if grid.torus else 'units'})"
    figure, top = headed_figure(
        0.2 + columns * (width + gap_across), lines * (height + gap_down) - BOTTOM_SAVED, title, note
    )
    for index, channel in enumerate(shown):
        row, column = divmod(index, columns)
        left, upper = 0.2 + column * (width + gap_across), top - gap_down * (row + 1) + 0.1 - row * height
        axes = axes_at(figure, left, upper, width, height)
        image = axes.imshow(planes[channel].reshape(grid.shape), cmap=COLOUR_MAP, aspect="auto")
        axes.set_title(labels[channel], size=7.5, pad=2)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        bar = axes_at(figure, left + width + 0.04, upper, 0.06, height)
        colour_bar = figure.colorbar(image, cax=bar)
        colour_bar.outline.set_visible(False)
        colour_bar.locator = MaxNLocator(3)
        bar.tick_params(labelsize=5.5, length=0, pad=1)
    return figure


@matplotlib.rc_context(STYLE)
def trajectory(
    soft: np.ndarray, background: np.ndarray, words: str, grid: Grid, subject: str, label: np.ndarray, name: str
) -> Figure:
    """A stay's way over the map, and its soft assignment over time.

    Args:
        soft: `[T, K]`, rows sum to 1; the way goes from winner to winner.
        background: `[K]`, a quantity of each unit, in `words`.
        subject: who it is, for the title.
        label: `[T]` of the stay's hours, drawn above the assignment with its `name`; -1 for none.
    """
    units = soft.argmax(axis=1)
    rows, columns = grid.shape
    size = 4.4
    width, height = size * columns / max(grid.shape), size * rows / max(grid.shape)
    right, gap = 4.6, 1.9
    note = (
        "left: from winner to winner over the map, dark to bright with time, ○ first and ■ last hour, grey: "
        f"{words}; right: how likely the units it visits are in every hour"
    )
    figure, top = headed_figure(LEFT + width + gap + right + 0.9, max(height, 3.2), f"Trajectory of {subject}", note)
    axes = map_axes(figure, top, width, height, grid)
    axes.imshow(background.reshape(grid.shape), cmap="Greys", aspect="auto", alpha=0.75)
    hatch(axes, np.isnan(background), grid)
    _draw_way(axes, units, grid)

    visited = list(dict.fromkeys(units.tolist()))
    often = sorted(visited, key=lambda unit: -soft[:, unit].sum())[:MOST_ROWS]
    shown = [unit for unit in visited if unit in often]
    left, strip = LEFT + width + gap, 0.7
    above = axes_at(figure, left, top, right, strip - 0.15)
    known = np.flatnonzero(label >= 0)
    above.step(known, label[known], where="mid", color=COLOURS[0], linewidth=1.4)
    above.set(xlim=(-0.5, len(soft) - 0.5), xticks=[], ylabel=name)
    above.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below = axes_at(figure, left, top - strip, right, max(height, 3.2) - strip)
    image = below.imshow(soft[:, shown].T, cmap=COLOUR_MAP, aspect="auto", vmin=0, interpolation="nearest")
    names = [f"({unit // columns}, {unit % columns})" for unit in shown]
    below.set(xlabel="hour", ylabel="unit (row, column), in order of visit")
    below.set_yticks(range(len(shown)), names)
    below.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    bar = axes_at(figure, left + right + 0.1, top - strip, 0.12, max(height, 3.2) - strip)
    figure.colorbar(image, cax=bar, label="soft assignment").outline.set_visible(False)
    return figure


@matplotlib.rc_context(STYLE)
def way_and_label(
    units: np.ndarray, labels: np.ndarray, means: np.ndarray, label: str, grid: Grid, subject: str
) -> Figure:
    """A stay's way over the map of risks, and beside it its label in time with that of the units it is in.

    Args:
        units: `[T]`, winner of every hour.
        labels: `[T]`, label of every hour; -1 for none.
        means: `[K]`, mean label of each unit; NaN where it wins no hour.
    """
    rows, columns = grid.shape
    size = 4.4
    width, height = size * columns / max(grid.shape), size * rows / max(grid.shape)
    right, gap = 4.6, 1.7
    note = (
        f"left: from unit to unit, dark to bright with time, ○ first and ■ last hour, over the mean {label} of each "
        f"unit (hatched: it wins no hour); right: {label} of this stay and the mean of the unit it is in"
    )
    note += "; opposite edges of the map are neighbours" if grid.torus else ""
    figure, top = headed_figure(LEFT + width + gap + right + RIGHT, height, subject, note)
    axes = map_axes(figure, top, width, height, grid)
    draw_values(axes, means, grid, f"mean {label}")
    _draw_way(axes, units, grid)
    beside = axes_at(figure, LEFT + width + gap, top, right, height)
    hours, known = np.arange(len(units)), labels >= 0
    beside.step(hours[known], labels[known], where="mid", color=COLOURS[0], linewidth=1.8, label="this stay")
    beside.step(
        hours, means[units], where="mid", color="#222222", linewidth=1, linestyle="--", label="mean of its unit"
    )
    beside.set(xlabel="hour", ylabel=label, xlim=(-0.5, len(units) - 0.5))
    beside.set_ylim(bottom=0)
    beside.grid(axis="y")
    beside.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    beside.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    beside.legend()
    return figure


def _draw_way(axes: Axes, units: np.ndarray, grid: Grid) -> None:
    """Line segments between successive units; on a torus the shorter way, which may leave the picture and re-enter."""
    places = grid.coordinates.numpy()[units][:, ::-1].astype(float)  # column, row
    places += np.random.default_rng(0).uniform(-0.18, 0.18, places.shape)  # so that ways and rests do not overlap
    extent = np.array(grid.shape[::-1])
    steps = np.diff(places, axis=0)
    if grid.torus:
        steps -= extent * np.rint(steps / extent)
    leaving = np.stack([places[:-1], places[:-1] + steps], axis=1)
    entering = np.stack([places[1:] - steps, places[1:]], axis=1)
    colours = matplotlib.colormaps[TIME_COLOURS](np.linspace(0, 0.9, max(len(steps), 1)))
    casing = [withStroke(linewidth=3, foreground="white")]
    for segments in (leaving, entering):
        axes.add_collection(LineCollection(segments, colors=colours, linewidths=1.6, path_effects=casing))
    axes.scatter(*places.T, c=np.arange(len(places)), cmap=TIME_COLOURS, vmax=len(places) / 0.9, s=10, zorder=3)
    ends = dict(s=70, zorder=4, linewidths=1.6, edgecolors="black")
    axes.scatter(*places[0], marker="o", facecolors="white", **ends)
    axes.scatter(*places[-1], marker="s", facecolors=COLOURS[1], **ends)


@matplotlib.rc_context(STYLE)
def forecast_fan(lines: Sequence[Line], samples: np.ndarray, subject: str) -> Figure:
    """The last hours of a stay and what was forecast for them without seeing them.

    Args:
        lines: C variables of the whole stay.
        samples: forecasts `[S, steps, C]` of the last hours.
    """
    steps = samples.shape[1]
    hours = len(lines[0].values)
    start = max(hours - 4 * steps, 0)
    note = (
        f"dots: measured, line: filled; bands: 50 % and 90 % of {len(samples)} forecasts that run freely from the"
        " dotted line, their median in the middle; dashed: the last known value stays"
    )
    figure, drawn = panels(len(lines), min(len(lines), 3), 1.7, f"Forecast for {subject}", note)
    coming = np.arange(hours - steps - 1, hours)
    for index, (line, axes) in enumerate(zip(lines, drawn, strict=True)):
        last = line.values[-steps - 1]
        quantiles = np.quantile(samples[:, :, index], QUANTILES, axis=0)
        quantiles = np.concatenate([np.full((len(QUANTILES), 1), last), quantiles], axis=1)
        axes.fill_between(coming, quantiles[0], quantiles[4], color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.fill_between(coming, quantiles[1], quantiles[3], color=COLOURS[0], alpha=0.35, linewidth=0)
        axes.plot(coming, quantiles[2], color=COLOURS[0], linewidth=1.4)
        axes.plot(coming, np.full(len(coming), last), color="#777777", linewidth=1, linestyle="--")
        seen = np.arange(start, hours)
        axes.plot(seen, line.values[start:], color="#222222", linewidth=0.9)
        measured = seen[line.measured[start:]]
        axes.scatter(measured, line.values[measured], s=12, color="#222222", zorder=3)
        axes.axvline(hours - steps - 1, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_title(line.label, loc="left")
        axes.set_xlabel("hour")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


@matplotlib.rc_context(STYLE)
def typical_stays(stays: Mapping[str, Sequence[tuple[int, Sequence[Line]]]]) -> Figure:
    """For each unit, named by what it stands for, the stays with the hours nearest to its centroid.

    Args:
        stays: by name of the unit, for each of its most typical stays the hour in question and its variables, which are
            the same for all.
    """
    variables = len(next(iter(stays.values()))[0][1])
    width, height, gap_across, gap_down, left = 2.5, 1.35, 0.55, 0.3, 1.3
    down = len(stays) * (height + gap_down)
    note = (
        "each row: one unit and the stays whose hour (●) lies nearest to its centroid; a colour is one stay of its row"
    )
    figure, top = headed_figure(left + variables * (width + gap_across), down, "Most typical stays", note)
    hours = max(len(lines[0].values) for members in stays.values() for _, lines in members)
    first_of_column: dict[int, Axes] = {}
    for row, (name, members) in enumerate(stays.items()):
        for column in range(variables):
            axes = axes_at(
                figure,
                left + column * (width + gap_across),
                top - 0.25 - row * (height + gap_down),
                width,
                height,
            )
            if column in first_of_column:
                axes.sharey(first_of_column[column])
            first_of_column.setdefault(column, axes)
            for (hour, lines), colour in zip(members, COLOURS, strict=False):
                line = lines[column]
                axes.plot(line.values, color=colour, linewidth=1.1)
                axes.scatter(hour, line.values[hour], color=colour, s=26, zorder=3)
            axes.grid(axis="y")
            axes.set_xlim(-0.5, hours - 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if row == 0:
                axes.set_title(members[0][1][column].label, loc="left")
            if row == len(stays) - 1:
                axes.set_xlabel("hour")
            else:
                axes.tick_params(labelbottom=False)
            if column == 0:
                axes.text(-0.2, 0.5, name, transform=axes.transAxes, ha="right", va="center", size=8)
    return figure
