"""The figures show what they are given: pixels, colours, values and lines are read back from the drawings."""

import sys

from experiments.drawing import figures
from models.grid import Grid

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

GRIDS = [Grid(8, 8, True), Grid(4, 12, False), Grid(1, 5, True), Grid(6, 2, False)]
random = np.random.default_rng(0)


def render(figure: Figure) -> np.ndarray:
    """Draw, check that no text or axes is cut off at the canvas's edge, and return the pixels."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox().extents * figure.dpi
    assert box[0] >= -1
    assert box[1] >= -1
    assert box[2] <= width + 1, "cut off at the right"
    assert box[3] <= height + 1
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def pictures(axes, shape, height, width):
    """The mosaic of an axes, cut back into pictures [rows, columns, height, width, …]."""
    mosaic = np.asarray(axes.images[0].get_array())
    assert mosaic.shape[:2] == (shape[0] * height, shape[1] * width)
    return mosaic.reshape(shape[0], height, shape[1], width, *mosaic.shape[2:]).swapaxes(1, 2)


def unit_patches(axes):
    return {int(patch.get_gid().split()[1]): patch for patch in axes.patches if patch.get_gid()}


def colour_key(axes):
    legend = axes.get_legend()
    pairs = zip(legend.get_texts(), legend.get_patches(), strict=True)
    return {text.get_text(): patch.get_facecolor()[:3] for text, patch in pairs}


def hatched(axes):
    """Units (row, column) marked as empty."""
    return {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in axes.patches if p.get_hatch()}


def words(axes):
    return {(round(t.get_position()[1]), round(t.get_position()[0]), t.get_text()) for t in axes.texts if t.get_text()}


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_map_shows_every_picture_in_its_place(grid, channels):
    images = random.random((grid.size, channels, 5, 7))
    figure = figures.decoded_map(images, grid)
    render(figure)
    shown = pictures(figure.axes[0], grid.shape, 5, 7)
    for unit, (row, column) in enumerate(grid.coordinates.tolist()):
        expected = images[unit].transpose(1, 2, 0)
        np.testing.assert_array_equal(shown[row, column], expected[..., 0] if channels == 1 else expected)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_map_in_the_plane_joins_neighbours_and_no_others(grid):
    points, centroids = random.random((50, 2)), random.random((grid.size, 2))
    figure = figures.map_in_plane(points, centroids, grid)
    render(figure)
    shown_points, lines, units = figure.axes[0].collections
    np.testing.assert_allclose(shown_points.get_offsets(), points)
    np.testing.assert_allclose(units.get_offsets(), centroids)
    steps = grid.distances().numpy()
    expected = {(tuple(centroids[one]), tuple(centroids[other])) for one, other in np.argwhere(steps == 1)}
    drawn = {(tuple(line[0]), tuple(line[1])) for line in lines.get_segments()}
    assert {(one, other) for one, other in drawn if one != other} == expected


def test_decoded_map_on_the_canvas():
    """Black, white and clipped pictures reach the rendered pixels at the cell of their unit."""
    images = np.stack([np.full((1, 4, 4), value) for value in (0.0, 1.0, 7.0, -3.0, 0.5, 0.0)])
    figure = figures.decoded_map(images, Grid(2, 3, False))
    canvas = render(figure)
    axes = figure.axes[0]
    for (row, column), value in {(0, 0): 0, (0, 1): 255, (0, 2): 255, (1, 0): 0, (1, 1): 127, (1, 2): 0}.items():
        x, y = axes.transData.transform((column, row))
        assert canvas[len(canvas) - round(y), round(x)].astype(int) == pytest.approx(value, abs=2)


def test_colours_out_of_range_are_clipped_in_silence(caplog):
    images = np.stack([np.full((3, 2, 2), value) for value in (-1.0, 0.5, 9.0)])
    figure = figures.decoded_map(images, Grid(1, 3, False))
    render(figure)
    assert pictures(figure.axes[0], (1, 3), 2, 2)[0, :, 0, 0, 0].tolist() == [0, 0.5, 1]
    assert not caplog.records


def test_size_grows_with_the_map_and_stays_readable():
    sizes = {}
    for shape in [(8, 8), (4, 12), (16, 32), (1, 64), (1, 1)]:
        grid = Grid(*shape, False)
        figure = figures.decoded_map(np.zeros((grid.size, 1, 28, 28)), grid)
        render(figure)
        sizes[shape] = figure.get_size_inches()
        assert max(sizes[shape]) < 13.5
    assert sizes[4, 12][0] > 1.8 * sizes[4, 12][1]
    assert sizes[16, 32][0] >= 32 * 28 / 100  # at 100 dpi an MNIST picture keeps its pixels


def test_nearest_samples_are_the_nearest_of_the_units_own():
    grid = Grid(2, 2, True)
    centroids = np.array([[0.0], [10], [20], [30]])
    points = np.array([[0.4], [-0.1], [9], [10.5], [29], [14.9]])  # unit 2 wins nothing
    inputs = np.arange(6).reshape(6, 1, 1, 1) / 10 * np.ones((6, 1, 3, 3))
    figure = figures.nearest_samples(inputs, points, centroids, grid)
    render(figure)
    shown = pictures(figure.axes[0], grid.shape, 3, 3)
    assert shown[0, 0, 0, 0] == pytest.approx(0.1)
    assert shown[0, 1, 0, 0] == pytest.approx(0.3)
    assert shown[1, 1, 0, 0] == pytest.approx(0.4)
    assert hatched(figure.axes[0]) == {(1, 0)}


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_hit_map_values_and_empty_units(grid):
    hits = random.integers(1, 2000, grid.size)
    hits[[0, grid.size - 1]] = 0
    figure = figures.hit_map(hits, grid)
    render(figure)
    axes, bar = figure.axes
    values = axes.images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(values, 0), hits.reshape(grid.shape))
    assert hatched(axes) == {(0, 0), (grid.shape[0] - 1, grid.shape[1] - 1)}
    assert words(axes) == {
        (row, column, f"{hits[unit]:,}") for unit, (row, column) in enumerate(grid.coordinates.tolist()) if hits[unit]
    }
    assert bar.get_ylabel() == "points that the unit wins"
    assert axes.images[0].get_clim() == (0, hits.max())


def test_hit_map_without_any_hit():
    figure = figures.hit_map(np.zeros(6), Grid(2, 3, True))
    render(figure)
    assert len(hatched(figure.axes[0])) == 6


def test_label_map_colours_by_majority_and_sizes_by_share():
    counts = np.array([[9, 0, 0], [1, 3, 0], [0, 0, 0], [2, 2, 2], [0, 0, 50], [0, 5, 5]])
    figure = figures.label_map(counts, ["0", "1", "2"], Grid(2, 3, False))
    render(figure)
    axes = figure.axes[0]
    key = colour_key(axes)
    drawn = {unit: patch.get_facecolor()[:3] for unit, patch in unit_patches(axes).items()}
    assert drawn == {0: key["0"], 1: key["1"], 3: key["0"], 4: key["2"], 5: key["1"]}
    assert len(set(key.values())) == 3
    areas = {unit: patch.get_width() * patch.get_height() for unit, patch in unit_patches(axes).items()}
    assert {unit: area / areas[0] for unit, area in areas.items()} == pytest.approx(
        {0: 1, 1: 3 / 4, 3: 1 / 3, 4: 1, 5: 0.5}
    )
    assert hatched(axes) == {(0, 2)}
    assert words(axes) == {
        *[(0, 0, "0"), (0, 0, "9"), (0, 1, "1"), (0, 1, "4"), (1, 0, "0"), (1, 0, "6")],
        *[(1, 1, "2"), (1, 1, "50"), (1, 2, "1"), (1, 2, "10")],
    }
    note = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert f"purity of all 79 points: {(9 + 3 + 2 + 50 + 5) / 79:.3f}" in note


@pytest.mark.parametrize("grid", [*GRIDS, Grid(16, 32, False)], ids=lambda grid: str(grid.shape))
@pytest.mark.parametrize(
    ("names", "key"),
    [
        (["T-shirt/top", "Ankle boot", "Sandal"], ["0  T-shirt/top", "1  Ankle boot", "2  Sandal"]),
        ([str(index) for index in range(21)], [str(index) for index in range(21)]),
    ],
    ids=["long names", "many classes"],
)
def test_label_map_explains_its_colours(grid, names, key):
    counts = random.multinomial(5, np.ones(len(names)) / len(names), size=grid.size)
    figure = figures.label_map(counts, names, grid)
    render(figure)
    colours = colour_key(figure.axes[0])
    assert list(colours) == key
    assert len(set(colours.values())) == len(names)
    drawn = {unit: patch.get_facecolor()[:3] for unit, patch in unit_patches(figure.axes[0]).items()}
    assert drawn == {unit: colours[key[majority]] for unit, majority in enumerate(counts.argmax(axis=1))}


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_u_matrix_by_brute_force(grid):
    centroids = random.normal(size=(grid.size, 3))
    figure = figures.u_matrix(centroids, grid)
    render(figure)
    shown = figure.axes[0].images[0].get_array()
    height, width = grid.shape
    cube = centroids.reshape(height, width, 3)
    for row in range(height):
        for column in range(width):
            distances = []
            for r, c in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if grid.torus:
                    r, c = r % height, c % width
                if 0 <= r < height and 0 <= c < width and (r, c) != (row, column):
                    distances.append(np.linalg.norm(cube[row, column] - cube[r, c]))
            assert shown[row, column] == pytest.approx(np.mean(distances))
    assert "mean Euclidean distance" in figure.axes[1].get_ylabel()


def test_u_matrix_of_one_unit():
    figure = figures.u_matrix(np.zeros((1, 3)), Grid(1, 1, True))
    render(figure)
    assert hatched(figure.axes[0]) == {(0, 0)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", [1, 10, 13])
def test_reconstructions_stand_below_their_inputs(number, channels):
    originals, reconstructed = random.random((2, number, channels, 4, 4))
    figure = figures.reconstructions(originals, reconstructed)
    render(figure)
    columns, lines = min(number, 10), -(-number // 10)
    shown = pictures(figure.axes[0], (2 * lines, columns), 4, 4).reshape(2 * lines, columns, 4, 4, channels)
    for index in range(number):
        line, column = divmod(index, 10)
        np.testing.assert_array_equal(shown[2 * line, column], originals[index].transpose(1, 2, 0))
        np.testing.assert_array_equal(shown[2 * line + 1, column], reconstructed[index].transpose(1, 2, 0))
    note = figure.texts[1].get_text()
    assert f"{((originals - reconstructed) ** 2).mean():.4f}" in note
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["input", "reconstruction"] * lines


@pytest.mark.parametrize(("count", "sides"), [(1, (4, 4)), (28, (4, 6))])
def test_rows_of_pictures_stand_beside_their_names(count, sides):
    rows = {"first": random.random((count, 3, *sides)), "a much longer name": random.random((count, 3, *sides))}
    figure = figures.picture_rows("Title", "note", rows)
    render(figure)
    shown = pictures(figure.axes[0], (2, count), *sides)
    for row, images in zip(shown, rows.values(), strict=True):
        np.testing.assert_array_equal(row, images.transpose(0, 2, 3, 1))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(rows)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_activation_maps_stand_below_their_inputs(grid):
    inputs, weights = random.random((3, 1, 4, 6)), random.random((2, 3, grid.size))
    figure = figures.activation_maps(inputs, weights, grid)
    render(figure)
    for column in range(3):
        first, *maps = figure.axes[3 * column : 3 * column + 3]
        np.testing.assert_array_equal(np.asarray(first.images[0].get_array()), inputs[column, 0])
        for of_block, axes in enumerate(maps):
            np.testing.assert_array_equal(axes.images[0].get_array(), weights[of_block, column].reshape(grid.shape))
            assert axes.get_position().x0 == pytest.approx(first.get_position().x0)
            assert axes.get_position().y1 < first.get_position().y0
    assert figure.axes[1].get_ylabel() == "block 1"


@pytest.mark.parametrize(
    "draw",
    [
        lambda grid: figures.decoded_map(np.zeros((5, 1, 2, 2)), grid),
        lambda grid: figures.decoded_map(np.zeros((4, 2, 2, 2)), grid),
        lambda grid: figures.hit_map(np.zeros(3), grid),
        lambda grid: figures.u_matrix(np.zeros((9, 2)), grid),
        lambda grid: figures.label_map(np.zeros((4, 3)), ["a", "b"], grid),
        lambda grid: figures.reconstructions(np.zeros((2, 1, 3, 3)), np.zeros((2, 1, 3, 4))),
        lambda grid: figures.picture_rows("", "", {"a": np.zeros((2, 1, 3, 3)), "b": np.zeros((1, 1, 3, 3))}),
        lambda grid: figures.activation_maps(np.zeros((2, 1, 3, 3)), np.zeros((1, 2, 5)), grid),
    ],
)
def test_arrays_that_do_not_fit_are_refused(draw):
    with pytest.raises(ValueError, match=r"fit|channels|class names|one shape"):
        draw(Grid(2, 2, False))


def test_global_matplotlib_state_is_left_alone():
    before = dict(matplotlib.rcParams)
    figures.hit_map(np.arange(4), Grid(2, 2, True)).canvas.draw()
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
