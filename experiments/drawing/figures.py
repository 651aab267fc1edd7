"""Pictures of a map and of its training: arrays in, a matplotlib `Figure` out.

Nothing here touches pyplot's global state. Images are `[…, C, H, W]` with one (grey) or three (RGB) channels and
intensities in [0, 1]; what lies outside is clipped. Maps are drawn as they are indexed: unit 0 top left, then row by
row. Hatched cells are units that win no point. Arrays that do not fit the map raise ValueError.
"""

import textwrap
from collections.abc import Mapping, Sequence

from experiments.measures.metrics import winners
from models.grid import Grid

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": "#222222",
    "axes.axisbelow": True,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e6e6",
    "hatch.linewidth": 0.6,
}
COLOUR_MAP = "cividis"  # even in lightness, and alike to all kinds of colour vision
COLOURS = matplotlib.color_sequences["petroff10"]  # ten colours that colour-blind readers can tell apart
MANY_COLOURS = "viridis"  # for more classes than that

LEFT, RIGHT, BOTTOM, SIDE = 0.6, 0.25, 0.5, 1.5  # inches around the drawing; SIDE is the room for a key at its right


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
    if _cell_width(grid) >= 0.38:
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

    numbers = _cell_width(grid) >= 0.38
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
    if _cell_width(grid) >= 0.2:
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


def check(values: np.ndarray, grid: Grid) -> np.ndarray:
    values = np.asarray(values)
    if len(values) != grid.size:
        raise ValueError(f"{len(values)} entries do not fit a map of {grid.size} units")
    return values


def headed_figure(width: float, height: float, title: str, note: str) -> tuple[Figure, float]:
    """A figure with a heading above `height` inches for the drawing, and the drawing's upper edge in inches."""
    width = max(width, 4.2)
    lines = textwrap.wrap(note, int((width - 0.3) * 17))
    heading = 0.42 + 0.16 * len(lines)
    figure = Figure(figsize=(width, height + BOTTOM + heading + 0.1))
    FigureCanvasAgg(figure)
    total = figure.get_figheight()
    figure.text(0.15 / width, 1 - 0.1 / total, title, va="top", size=12, weight="bold")
    figure.text(0.15 / width, 1 - 0.36 / total, "\n".join(lines), va="top", size=8.5, color="#555555", linespacing=1.3)
    return figure, total - heading - 0.1


def panels(number: int, columns: int, height: float, title: str, note: str) -> tuple[Figure, list[Axes]]:
    """`number` panels of a height in inches, `columns` to a line, below a heading."""
    lines = -(-number // columns)
    left, width, gap_across, gap_down = LEFT + 0.1, 3.1, 0.7, 0.75
    across = columns * width + (columns - 1) * gap_across
    down = lines * height + (lines - 1) * gap_down + 0.25
    figure, top = headed_figure(left + across + RIGHT, down, title, note)
    corners = [divmod(index, columns) for index in range(number)]
    return figure, [
        axes_at(figure, left + column * (width + gap_across), top - 0.25 - line * (height + gap_down), width, height)
        for line, column in corners
    ]


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, (top - height) / up, width / across, height / up))


def _cell_width(grid: Grid) -> float:
    """Inches: a map is about 5.6 wide or high, but its cells stay readable and the whole below 12."""
    longest = max(grid.shape)
    return min(0.7, max(5.6 / longest, 0.3), 12 / longest)


def map_figure(
    grid: Grid, title: str, note: str, images: np.ndarray | None = None, side: float = RIGHT, least_height: float = 1.4
) -> tuple[Figure, Axes]:
    """Axes in which unit (row, column) is the cell around that point; cells as high as `images` ask for."""
    rows, columns = grid.shape
    aspect = 1 if images is None else images.shape[2] / images.shape[3]
    width, height = columns * _cell_width(grid), rows * _cell_width(grid) * aspect
    title += f" ({rows} × {columns} {'torus' if grid.torus else 'units'})"
    note += "; opposite edges of the torus are neighbours" if grid.torus else ""
    figure, top = headed_figure(LEFT + width + side, max(height, least_height if side > RIGHT else 0), title, note)
    return figure, map_axes(figure, top, width, height, grid)


def map_axes(figure: Figure, top: float, width: float, height: float, grid: Grid) -> Axes:
    """Axes at the left, in which unit (row, column) is the cell around that point; in inches."""
    rows, columns = grid.shape
    axes = axes_at(figure, LEFT, top, width, height)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xlabel="column", ylabel="row")
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def mosaic(pictures: np.ndarray) -> np.ndarray:
    """`pictures` [rows, columns, C, H, W] side by side: [rows * H, columns * W, C]."""
    rows, columns, channels, height, width = pictures.shape
    return pictures.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def draw_pictures(axes: Axes, pictures: np.ndarray) -> None:
    """`pictures` [rows, columns, C, H, W] as one mosaic, a thin white line between them."""
    rows, columns, channels, _, _ = pictures.shape
    if channels not in (1, 3):
        raise ValueError(f"images need 1 or 3 channels, not {channels}")
    tiles = mosaic(pictures).clip(0, 1)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(tiles[..., 0] if channels == 1 else tiles, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
    for row in range(1, rows):
        axes.axhline(row - 0.5, color="white", linewidth=0.8)
    for column in range(1, columns):
        axes.axvline(column - 0.5, color="white", linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_values(axes: Axes, values: np.ndarray, grid: Grid, label: str, from_zero: bool = False) -> None:
    """`values` [K] as colours with a colour bar; NaN is hatched."""
    image = axes.imshow(values.reshape(grid.shape), cmap=COLOUR_MAP, vmin=0 if from_zero else None, aspect="auto")
    hatch(axes, np.isnan(values), grid)
    colour_bar(axes, image, label)


def colour_bar(axes: Axes, drawn: ScalarMappable, label: str) -> None:
    """The colours of what is drawn in `axes`, at their right."""
    box, (across, up) = axes.get_position(), axes.figure.get_size_inches()
    bar = axes_at(axes.figure, box.x1 * across + 0.15, box.y1 * up, 0.15, max(box.height * up, 1.4))
    axes.figure.colorbar(drawn, cax=bar, label=label).outline.set_visible(False)


def hatch(axes: Axes, empty: np.ndarray, grid: Grid) -> None:
    for row, column in grid.coordinates.numpy()[empty].tolist():
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor="#f4f4f4", edgecolor="#c0c0c0", hatch="////", linewidth=0
            )
        )


def write_in_cells(
    axes: Axes, texts: Sequence[str], grid: Grid, size: float = 7, inks: Sequence[str] | None = None, lower: float = 0
) -> None:
    """One of `texts` [K] in each cell, `lower` cells below its middle; without `inks`, readable on the drawn values."""
    if inks is None:
        image = axes.images[0]
        inks = [ink_on(colour[:3]) for colour in image.to_rgba(image.get_array()).reshape(-1, 4)]
    for text, ink, (row, column) in zip(texts, inks, grid.coordinates.tolist(), strict=True):
        axes.text(column, row + lower, text, ha="center", va="center", size=size, color=ink)


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def class_colours(number: int) -> list[tuple[float, float, float]]:
    if number <= len(COLOURS):
        return [to_rgb(colour) for colour in COLOURS[:number]]
    return [to_rgb(colour) for colour in matplotlib.colormaps[MANY_COLOURS](np.linspace(0, 1, number))]
