"""The description of a trained map that a report reads."""

import io

from experiments.drawing import trained_map
from experiments.drawing.trained_map import mosaic_file, pictures_of
from models.grid import Grid

import numpy as np
import pytest
from PIL import Image

GRID = Grid(8, 8, torus=True)
CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture
def written(tmp_path):
    """The file of a map with noise for pictures (they compress worst), and what it was made from."""
    random = np.random.default_rng(0)
    centroids = random.normal(size=(GRID.size, 4)).astype(np.float32)
    points = centroids[random.integers(0, GRID.size - 1, 500)] + random.normal(
        scale=0.01, size=(500, 4)
    )  # the last unit wins nothing
    given = {
        "counts": random.integers(0, 9, (GRID.size, 10)),
        "centroids": centroids,
        "points": points.astype(np.float32),
        "inputs": random.random((500, 1, 28, 28)),
        "decoded": random.random((GRID.size, 1, 28, 28)),
    }
    return trained_map.write_map(tmp_path, GRID, CLASSES, **given), given


def test_the_arrays_tell_what_the_map_shows(written):
    arrays, given = np.load(written[0], allow_pickle=False), written[1]
    assert tuple(arrays["map_size"]) == GRID.shape
    assert list(arrays["classes"]) == CLASSES
    np.testing.assert_array_equal(arrays["counts"], given["counts"])
    decoded = pictures_of(arrays["decoded"], GRID)[:, 0]
    np.testing.assert_allclose(decoded, given["decoded"], atol=0.5 / 255 + 1e-9)
    left, right, up, down = (np.linalg.norm(given["centroids"][9] - given["centroids"][n]) for n in (8, 10, 1, 17))
    assert arrays["u_matrix"][9] == pytest.approx((left + right + up + down) / 4, rel=1e-5)


def test_the_nearest_samples_are_those_that_a_unit_wins(written):
    arrays, given = np.load(written[0], allow_pickle=False), written[1]
    distances = np.linalg.norm(given["points"][:, None] - given["centroids"], axis=2)
    shown_samples = pictures_of(arrays["nearest_samples"], GRID, trained_map.NEAREST)
    for unit, samples in enumerate(arrays["nearest"]):
        won = np.flatnonzero(distances.argmin(axis=1) == unit)
        expected = won[distances[won, unit].argsort()][: trained_map.NEAREST]
        assert list(samples) == [*expected, *[-1] * (trained_map.NEAREST - len(expected))]
        for sample, shown in zip(samples, shown_samples[unit], strict=True):
            picture = given["inputs"][sample] if sample >= 0 else np.zeros((1, 28, 28))
            np.testing.assert_allclose(shown, picture, atol=0.002)
    assert list(arrays["nearest"][-1]) == [-1] * trained_map.NEAREST


def test_large_pictures_leave_room_for_fewer_samples(tmp_path):
    random = np.random.default_rng(0)
    points = random.normal(size=(500, 4))
    images = random.random((500, 1, 40, 48))
    path = trained_map.write_map(tmp_path, GRID, CLASSES, np.ones((64, 10)), points[:64], points, images, images[:64])
    assert path.stat().st_size < trained_map.LARGEST
    arrays = np.load(path)
    assert arrays["nearest"].shape == (64, 1)
    assert pictures_of(arrays["nearest_samples"], GRID).shape == (64, 1, 1, 40, 48)


def test_the_mosaic_is_the_decoded_map_and_the_file_stays_small(written):
    path, given = written
    pixels = np.asarray(Image.open(io.BytesIO(np.load(path)["decoded"].tobytes())))[..., 0] / 255
    assert pixels.shape == (8 * 28, 8 * 28)
    np.testing.assert_allclose(pixels[28:56, 56:84], given["decoded"][10, 0], atol=0.002)
    assert path.stat().st_size < 300_000


def test_large_pictures_on_a_large_map_are_thinned_out(tmp_path):
    """3 x 30 x 200 pixels are wider than a WebP picture can be."""
    grid = Grid(1, 30, torus=False)
    points = np.eye(30)
    images = np.broadcast_to(np.linspace(0, 1, 30)[:, None, None, None], (30, 1, 200, 200))
    path = trained_map.write_map(tmp_path, grid, CLASSES, np.ones((30, 10)), points, points, images, images)
    decoded = pictures_of(np.load(path)["decoded"], grid)
    assert decoded.shape == (30, 1, 1, 100, 100)
    np.testing.assert_allclose(decoded[:, 0], images[..., ::2, ::2], atol=0.002)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 8, 12), (1, 9, 7)])
def test_a_mosaic_gives_its_pictures_back(shape):
    """Smooth ones, as prototypes are: colour pictures lose something."""
    grid, count = Grid(2, 5, torus=False), 2
    shade = np.linspace(0, 1, grid.size * count).reshape(grid.size, count, 1, 1, 1)
    pictures = np.broadcast_to(shade * np.array([1.0, 0.8, 0.3])[: shape[0], None, None], (grid.size, count, *shape))
    lossy = 0.12 if shape[0] == 3 else 0.002
    np.testing.assert_allclose(pictures_of(mosaic_file(pictures, grid), grid, count), pictures, atol=lossy)
