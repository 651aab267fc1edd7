"""Pictures of sequences on a map: which unit follows which, paths across the map, and an attractor cut into units.

The conventions are those of `figures`.
"""

from collections.abc import Sequence

from experiments.drawing.canvas import (
    COLOUR_MAP,
    COLOURS,
    LEFT,
    RIGHT,
    SIDE,
    STYLE,
    axes_at,
    check,
    colour_bar,
    draw_pictures,
    headed_figure,
    map_figure,
)
from models.grid import Grid

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

LEAST_SHOWN = 0.1  # share of the moves away from a unit below which the transition graph leaves an arrow out


@matplotlib.rc_context(STYLE)
def transition_graph(table: np.ndarray, hits: np.ndarray, grid: Grid) -> Figure:
    """Probabilities `[K, K]` as a graph: discs show how often units stay, arrows where they go when they move.

    The wider an arrow, the likelier. Units that win none of the `hits` `[K]` are left out.
    """
    table, hits = check(table, grid), check(hits, grid)
    staying = np.diag(table)
    moving = table - np.diag(staying)
    moving = moving / np.maximum(moving.sum(axis=1, keepdims=True), np.finfo(moving.dtype).tiny)
    note = f"arrow: share of the moves away, from {LEAST_SHOWN:.0%}; area of the disc: probability of staying"
    figure, axes = map_figure(grid, "Transitions", note)
    places = grid.coordinates.numpy()[:, ::-1]
    used = hits > 0
    for unit in np.flatnonzero(used):
        for following in np.flatnonzero(used & (moving[unit] >= LEAST_SHOWN)):
            arrow = FancyArrowPatch(
                places[unit],
                places[following],
                connectionstyle="arc3,rad=0.18",
                arrowstyle="-|>",
                mutation_scale=7,
                shrinkA=5,
                shrinkB=5,
                linewidth=0.5 + 3.5 * moving[unit, following],
                color="#555555",
                alpha=0.75,
            )
            axes.add_patch(arrow)
    axes.scatter(*places[used].T, s=220 * staying[used] + 4, color=COLOURS[0], linewidth=0, zorder=3)
    return figure


@matplotlib.rc_context(STYLE)
def paths_on_map(paths: np.ndarray, grid: Grid) -> Figure:
    """Sequences of units `[n, T]` drawn across the map, from dark (first step) to bright (last step)."""
    paths = np.asarray(paths)
    note = (
        f"{len(paths)} sequences of {paths.shape[1]} steps, each a line from the first unit (ring) to the last (disc)"
    )
    figure, axes = map_figure(grid, "Paths on the map", note, side=SIDE)
    places = grid.coordinates.numpy()[:, ::-1].astype(float)
    axes.scatter(*places.T, s=5, color="#cccccc")
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, (len(paths), 1, 2))  # apart, where paths share units
    lines = places[paths] + spread
    segments = np.stack([lines[:, :-1], lines[:, 1:]], axis=2)  # [n, T - 1, 2, 2]
    steps = np.broadcast_to(np.arange(1, paths.shape[1]), segments.shape[:2])
    drawn = LineCollection(segments.reshape(-1, 2, 2), array=steps.ravel(), cmap=COLOUR_MAP, linewidths=1.2)
    axes.add_collection(drawn)
    axes.scatter(*lines[:, 0].T, s=22, facecolor="none", edgecolor="#222222", linewidth=0.8, zorder=3)
    axes.scatter(*lines[:, -1].T, s=16, color="#222222", zorder=3)
    colour_bar(axes, drawn, "step")
    return figure


@matplotlib.rc_context(STYLE)
def film_strips(pictures: np.ndarray, title: str, note: str) -> Figure:
    """`pictures` `[n, T, C, H, W]`: one sequence in each line, from left to right."""
    pictures = np.asarray(pictures)
    lines, steps = pictures.shape[:2]
    cell = min(0.6, 12 / steps)
    height = lines * cell * pictures.shape[3] / pictures.shape[4]
    figure, top = headed_figure(LEFT + steps * cell + RIGHT, height, title, note)
    axes = axes_at(figure, LEFT, top, steps * cell, height)
    draw_pictures(axes, pictures)
    axes.set(xlabel="step", ylabel="sequence")
    axes.set_yticks(range(lines))
    return figure


@matplotlib.rc_context(STYLE)
def attractor(points: np.ndarray, units: np.ndarray, grid: Grid, names: Sequence[str]) -> Figure:
    """`points` `[N, 3]` seen from two sides, each in the colour of its unit `[N]`; the map beside them is the key.

    `names` of the three coordinates. Units that are neighbours look alike.
    """
    colours = unit_colours(grid)
    note = "each point in the colour of its unit; the map is the key"
    side = 3.4
    figure, top = headed_figure(LEFT + 2 * (side + 0.7) + 2.2 + RIGHT, side, "Attractor", note)
    for panel, (across, up) in enumerate(((0, 2), (0, 1))):
        axes = axes_at(figure, LEFT + panel * (side + 0.7), top, side, side)
        axes.scatter(points[:, across], points[:, up], s=3, c=colours[units], linewidth=0)
        axes.set(xlabel=names[across], ylabel=names[up])
    longest = max(grid.shape)
    size = 2.0 / longest
    key = axes_at(figure, LEFT + 2 * (side + 0.7), top, grid.shape[1] * size, grid.shape[0] * size)
    key.imshow(colours.reshape(*grid.shape, 3), aspect="auto")
    key.set(xticks=[], yticks=[], xlabel="the map's units")
    key.spines[:].set_visible(False)
    return figure


def unit_colours(grid: Grid) -> np.ndarray:
    """A colour `[K, 3]` for each unit: hue by row, from red to violet; by column from dark to pale."""
    rows, columns = grid.shape
    row, column = grid.coordinates.numpy().T
    hue, paleness = 0.8 * row / max(rows - 1, 1), column / max(columns - 1, 1)
    return hsv_to_rgb(np.stack([hue, 1 - 0.55 * paleness, 0.6 + 0.4 * paleness], axis=1))
