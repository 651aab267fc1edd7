"""The description of a trained map that a report reads."""

from experiments.ingredients import trained_map
from models.grid import Grid

import numpy as np
import pytest
from PIL import Image

GRID = Grid(8, 8, torus=True)
CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture
def written(tmp_path):
    """Both files of a map with noise for pictures (they compress worst), and what they were made from."""
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
    paths = trained_map.write_map(tmp_path, GRID, CLASSES, **given)
    return *paths, given


def test_the_arrays_tell_what_the_map_shows(written):
    arrays, given = np.load(written[0], allow_pickle=False), written[2]
    assert tuple(arrays["map_size"]) == GRID.shape
    assert list(arrays["classes"]) == CLASSES
    np.testing.assert_array_equal(arrays["counts"], given["counts"])
    np.testing.assert_allclose(arrays["decoded"] / 255, given["decoded"], atol=0.5 / 255 + 1e-9)
    left, right, up, down = (np.linalg.norm(given["centroids"][9] - given["centroids"][n]) for n in (8, 10, 1, 17))
    assert arrays["u_matrix"][9] == pytest.approx((left + right + up + down) / 4, rel=1e-5)


def test_the_nearest_samples_are_those_that_a_unit_wins(written):
    arrays, given = np.load(written[0], allow_pickle=False), written[2]
    distances = np.linalg.norm(given["points"][:, None] - given["centroids"], axis=2)
    for unit, samples in enumerate(arrays["nearest"]):
        won = np.flatnonzero(distances.argmin(axis=1) == unit)
        expected = won[distances[won, unit].argsort()][: trained_map.NEAREST]
        assert list(samples) == [*expected, *[-1] * (trained_map.NEAREST - len(expected))]
        for sample, shown in zip(samples, arrays["nearest_samples"][unit], strict=True):
            picture = given["inputs"][sample] if sample >= 0 else np.zeros((1, 28, 28))
            np.testing.assert_allclose(shown / 255, picture, atol=0.002)
    assert list(arrays["nearest"][-1]) == [-1] * trained_map.NEAREST


def test_large_pictures_leave_room_for_fewer_samples(tmp_path):
    random = np.random.default_rng(0)
    points = random.normal(size=(500, 4))
    images = random.random((500, 3, 32, 20))
    arrays, _ = trained_map.write_map(
        tmp_path, GRID, CLASSES, np.ones((64, 10)), points[:64], points, images, images[:64]
    )
    assert arrays.stat().st_size < trained_map.LARGEST
    assert np.load(arrays)["nearest_samples"].shape == (64, 1, 3, 32, 20)


def test_the_sprite_is_the_decoded_map_and_both_files_stay_small(written):
    arrays, sprite, given = written
    pixels = np.asarray(Image.open(sprite)) / 255
    assert pixels.shape == (8 * 28, 8 * 28)
    np.testing.assert_allclose(pixels[28:56, 56:84], given["decoded"][10, 0], atol=0.002)
    assert max(arrays.stat().st_size, sprite.stat().st_size) < 300_000
