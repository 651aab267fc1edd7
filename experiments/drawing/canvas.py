"""What all figures are drawn with: style, colours, figures with a heading, maps whose cells are units. In inches."""

import textwrap
from collections.abc import Sequence

from models.grid import Grid

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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


def cell_width(grid: Grid) -> float:
    """Inches: a map is about 5.6 wide or high, but its cells stay readable and the whole below 12."""
    longest = max(grid.shape)
    return min(0.7, max(5.6 / longest, 0.3), 12 / longest)


def map_figure(
    grid: Grid, title: str, note: str, images: np.ndarray | None = None, side: float = RIGHT, least_height: float = 1.4
) -> tuple[Figure, Axes]:
    """Axes in which unit (row, column) is the cell around that point; cells as high as `images` ask for."""
    rows, columns = grid.shape
    aspect = 1 if images is None else images.shape[2] / images.shape[3]
    width, height = columns * cell_width(grid), rows * cell_width(grid) * aspect
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
