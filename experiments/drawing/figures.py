"""Pictures of a map and of its training: arrays in, a matplotlib `Figure` out.

Nothing here touches pyplot's global state. Images are `[…, C, H, W]` with one (grey) or three (RGB) channels and
intensities in [0, 1]; what lies outside is clipped. Maps are drawn as they are indexed: unit 0 top left, then row by
row. Hatched cells are units that win no point. Arrays that do not fit the map raise ValueError.
"""

from collections.abc import Mapping, Sequence

from experiments.drawing.canvas import (
    COLOUR_MAP,
    COLOURS,
    LEFT,
    RIGHT,
    SIDE,
    STYLE,
    axes_at,
    cell_width,
    check,
    class_colours,
    draw_pictures,
    draw_values,
    hatch,
    headed_figure,
    ink_on,
    map_figure,
    write_in_cells,
)
from experiments.measures.metrics import winners
from models.grid import Grid

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle


@matplotlib.rc_context(STYLE)
def decoded_map(images: np.ndarray, grid: Grid, title: str = "Decoded map") -> Figure:
    """Each unit's centroid as a picture, decoded where it is a latent; `images` [K, C, H, W]."""
    images = check(images, grid)
    figure, axes = map_figure(grid, title, "each picture: what one unit's centroid stands for", images)
    draw_pictures(axes, images.reshape(*grid.shape, *images.shape[1:]))
    return figure


@matplotlib.rc_context(STYLE)
def nearest_samples(inputs: np.ndarray, points: np.ndarray, centroids: np.ndarray, grid: Grid) -> Figure:
    """For each unit, the nearest to its centroid among the `inputs` [N, C, H, W] that it wins.

    Distances are those of the latent `points` [N, D] to the `centroids` [K, D].
    """
    inputs, centroids = np.asarray(inputs), check(centroids, grid)
    nearest = nearest_won(points, centroids)[:, 0]
    note = "each picture: the input nearest to a unit's centroid, among those that the unit wins"
    figure, axes = map_figure(grid, "Nearest samples", note, inputs)
    draw_pictures(axes, inputs[nearest].reshape(*grid.shape, *inputs.shape[1:]))
    hatch(axes, nearest < 0, grid)
    return figure


def nearest_won(points: np.ndarray, centroids: np.ndarray, number: int = 1) -> np.ndarray:
    """[K, number]: the nearest to each of the `centroids` [K, D] among the `points` [N, D] that it wins, nearest first.

    -1 where a unit wins fewer.
    """
    units, _, distance = winners(points, centroids)
    order = np.lexsort((distance, units))
    units = units[order]
    rank = np.arange(len(units)) - np.searchsorted(units, units)
    nearest = np.full((len(centroids), number), -1)
    nearest[units[rank < number], rank[rank < number]] = order[rank < number]
    return nearest


@matplotlib.rc_context(STYLE)
def hit_map(hits: np.ndarray, grid: Grid) -> Figure:
    """How many points each unit wins; `hits` [K]."""
    hits = check(hits, grid).astype(np.int64)
    note = f"{hits.sum():,} points; {np.count_nonzero(hits)} of {grid.size} units win at least one"
    figure, axes = map_figure(grid, "Hit map", note, side=SIDE)
    draw_values(axes, np.where(hits > 0, hits, np.nan), grid, "points that the unit wins", from_zero=True)
    if cell_width(grid) >= 0.38:
        write_in_cells(axes, [f"{count:,}" if count else "" for count in hits], grid)
    return figure


@matplotlib.rc_context(STYLE)
def label_map(counts: np.ndarray, class_names: Sequence[str], grid: Grid) -> Figure:
    """The majority class of each unit; `counts` [K, classes] says how many points of each class a unit wins.

    Of classes that are equally frequent in a unit the first is drawn.
    """
    counts = check(counts, grid)
    if counts.shape[1] != len(class_names):
        raise ValueError(f"{counts.shape[1]} classes counted, {len(class_names)} class names given")
    hits, majority = counts.sum(axis=1), counts.argmax(axis=1)
    share = counts.max(axis=1) / np.maximum(hits, 1)
    purity = counts.max(axis=1).sum() / max(hits.sum(), 1)
    colours = class_colours(len(class_names))
    short = all(len(name) <= 2 for name in class_names)
    marks = list(class_names) if short else [str(index) for index in range(len(class_names))]
    key = [
        Patch(color=colour, label=name if short else f"{mark}  {name}")
        for colour, mark, name in zip(colours, marks, class_names, strict=True)
    ]

    numbers = cell_width(grid) >= 0.38
    note = "colour: most frequent class of the unit; area of the square: its share of the unit's points"
    note += "; small number: points" if numbers else ""
    note += f"; purity of all {hits.sum():,} points: {purity:.3f}"
    figure, axes = map_figure(grid, "Label map", note, side=SIDE, least_height=0.19 * (len(key) + 1))
    for unit, (row, column) in enumerate(grid.coordinates.tolist()):
        side = 0.96 * np.sqrt(share[unit])
        corner = (column - side / 2, row - side / 2)
        if hits[unit]:
            axes.add_patch(
                Rectangle(corner, side, side, facecolor=colours[majority[unit]], linewidth=0, gid=f"unit {unit}")
            )
    hatch(axes, hits == 0, grid)
    if cell_width(grid) >= 0.2:
        inks = [ink_on(colours[index]) for index in majority]
        used = hits > 0
        write_in_cells(
            axes, np.where(used, np.take(marks, majority), ""), grid, 10 if numbers else 7, inks, -0.1 * numbers
        )
        if numbers:
            write_in_cells(axes, [f"{count:,}" if count else "" for count in hits], grid, 6, inks, 0.2)
    axes.legend(handles=key, title="class", loc="upper left", bbox_to_anchor=(1, 1), alignment="left")
    return figure


@matplotlib.rc_context(STYLE)
def u_matrix(centroids: np.ndarray, grid: Grid) -> Figure:
    """Unified distance matrix: how far each of the `centroids` [K, D] lies from its neighbours on the grid."""
    mean = neighbour_distances(centroids, grid)
    figure, axes = map_figure(grid, "U-matrix", "bright: far from its neighbours, a border between regions", side=SIDE)
    draw_values(axes, mean, grid, "mean Euclidean distance\nto neighbouring centroids")
    return figure


def neighbour_distances(centroids: np.ndarray, grid: Grid) -> np.ndarray:
    """[K]: mean Euclidean distance of each of the `centroids` [K, D] to its neighbours; NaN without any."""
    centroids = check(centroids, grid).astype(np.float64)
    neighbours = grid.neighbours.numpy()
    exists = (neighbours >= 0) & (neighbours != np.arange(grid.size)[:, None])
    distances = np.stack([np.linalg.norm(centroids - centroids[step], axis=1) for step in neighbours.T], axis=1)
    number = exists.sum(axis=1)
    return np.where(number > 0, (distances * exists).sum(axis=1) / np.maximum(number, 1), np.nan)


@matplotlib.rc_context(STYLE)
def map_in_plane(points: np.ndarray, centroids: np.ndarray, grid: Grid) -> Figure:
    """The map among `points` [N, 2]: its `centroids` [K, 2], and a line between every two neighbours on the grid."""
    points, centroids = np.asarray(points), check(centroids, grid)
    figure, top = headed_figure(
        LEFT + 5.0 + RIGHT, 5.0, "Map in the plane", "each line joins two units that are neighbours"
    )
    axes = axes_at(figure, LEFT, top, 5.0, 5.0)
    axes.scatter(*points.T, s=4, color="#cccccc", linewidth=0)
    units, sides = np.nonzero(grid.neighbours.numpy() >= 0)
    ends = np.stack([centroids[units], centroids[grid.neighbours.numpy()[units, sides]]], axis=1)  # [lines, 2, 2]
    axes.add_collection(LineCollection(ends, colors=COLOURS[0], linewidths=1))
    axes.scatter(*centroids.T, s=16, color=COLOURS[0])
    axes.set(aspect="equal", xlabel="first value", ylabel="second value")
    return figure


@matplotlib.rc_context(STYLE)
def reconstructions(originals: np.ndarray, reconstructed: np.ndarray) -> Figure:
    """`originals` [N, C, H, W], each above its `reconstructed` picture, ten to a line."""
    originals, reconstructed = np.asarray(originals, np.float64), np.asarray(reconstructed, np.float64)
    if originals.ndim != 4 or originals.shape != reconstructed.shape or not len(originals):
        raise ValueError(f"expected two batches of images of one shape, not {originals.shape}, {reconstructed.shape}")
    columns = min(len(originals), 10)
    lines = -(-len(originals) // columns)
    pictures = np.ones((lines * columns, 2, *originals.shape[1:]))
    pictures[: len(originals)] = np.stack([originals, reconstructed], axis=1)
    pictures = pictures.reshape(lines, columns, *pictures.shape[1:]).swapaxes(1, 2)  # [lines, 2, columns, C, H, W]
    cell = 0.7
    height, width = 2 * lines * cell * originals.shape[2] / originals.shape[3], columns * cell
    error = ((originals - reconstructed) ** 2).mean()
    note = f"each input above its reconstruction; mean squared error per value: {error:.4f}"
    figure, top = headed_figure(LEFT + 0.5 + width + RIGHT, height - 0.3, "Reconstructions", note)
    axes = axes_at(figure, LEFT + 0.5, top, width, height)
    draw_pictures(axes, pictures.reshape(2 * lines, *pictures.shape[2:]))
    for line in range(1, lines):
        axes.axhline(2 * line - 0.5, color="white", linewidth=6)
    axes.set_xticks([])
    axes.set_yticks(range(2 * lines), ["input", "reconstruction"] * lines)
    return figure


@matplotlib.rc_context(STYLE)
def picture_rows(title: str, note: str, rows: Mapping[str, np.ndarray]) -> Figure:
    """Rows of pictures, each [N, C, H, W] under its name; ValueError unless all are of one shape."""
    shapes = {np.shape(pictures) for pictures in rows.values()}
    if len(shapes) != 1:
        raise ValueError(f"rows of pictures need one shape, not {sorted(shapes)}")
    pictures = np.stack(list(rows.values())).astype(np.float64)
    cell = min(0.9, 12 / pictures.shape[1])
    height = cell * len(rows) * pictures.shape[3] / pictures.shape[4]
    left = 0.2 + 0.075 * max(map(len, rows))
    figure, top = headed_figure(left + cell * pictures.shape[1] + RIGHT, height - 0.3, title, note)
    axes = axes_at(figure, left, top, cell * pictures.shape[1], height)
    draw_pictures(axes, pictures)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), list(rows))
    return figure


@matplotlib.rc_context(STYLE)
def activation_maps(inputs: np.ndarray, weights: np.ndarray, grid: Grid) -> Figure:
    """Each of the `inputs` [N, C, H, W] above the `weights` [maps, N, K] that it gives to the units of each map."""
    inputs, weights = np.asarray(inputs), np.asarray(weights)
    maps, number, units = weights.shape
    if units != grid.size or number != len(inputs):
        raise ValueError(f"weights {weights.shape} do not fit {len(inputs)} inputs and a map of {grid.size} units")
    cell, gap, left = 0.95, 0.08, 0.8
    across, down = cell * inputs.shape[3] / inputs.shape[2], cell * grid.shape[0] / grid.shape[1]
    height = cell + maps * (down + gap)
    note = "each input above the share that each unit of a block's map has in it; bright: the largest of that map"
    figure, top = headed_figure(left + number * (cell + gap) + RIGHT, height - 0.3, "Activation maps", note)
    for column in range(number):
        x = left + column * (cell + gap)
        axes = axes_at(figure, x, top, min(across, cell), min(cell, cell * cell / across))
        draw_pictures(axes, inputs[None, column : column + 1])
        axes.set(xticks=[], yticks=[])
        for row in range(maps):
            axes = axes_at(figure, x, top - cell - gap - row * (down + gap), cell, down)
            axes.imshow(weights[row, column].reshape(grid.shape), cmap=COLOUR_MAP, vmin=0, aspect="auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(f"block {row + 1}", rotation=0, ha="right", va="center")
    return figure
