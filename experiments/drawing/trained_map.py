"""What a report needs to know about one trained map, in one small file, `map.npz`."""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.drawing import canvas, figures
from experiments.errors import UserError
from experiments.files import write_atomically
from models.grid import Grid

import numpy as np
from PIL import Image

ARRAYS = "map.npz"
NEAREST = 3
LARGEST = 300_000  # bytes of a file that is kept with the results
QUALITY = 80  # of colour pictures, in percent
LONGEST = 16_383  # pixels of a side of a WebP picture


def write_map(
    folder: Path,
    grid: Grid,
    classes: Sequence[str],
    counts: np.ndarray,
    centroids: np.ndarray,
    points: np.ndarray,
    inputs: np.ndarray,
    decoded: np.ndarray,
) -> Path:
    """Write the file into `folder` and return its path.

    It holds `map_size` [2], `torus`, `classes`, `counts` [K, classes], `u_matrix` [K], `nearest` [K, S] (positions in
    the split, nearest first, -1 where the unit wins fewer), and two mosaics with the units' pictures in their places:
    `decoded`, and `nearest_samples` with S for each unit side by side. S is 3, or less where the file would reach
    300 kB. Of large pictures on a large map only every other pixel is kept, or fewer.

    Args:
        counts: samples of each class by unit, [K, classes].
        centroids: [K, D].
        points: latents of the split, [N, D].
        inputs: the split, [N, C, H, W] in [0, 1].
        decoded: the centroids' pictures, [K, C, H, W] in [0, 1].
    """
    nearest = figures.nearest_won(points, centroids, NEAREST)
    (rows, columns), (height, width) = grid.shape, decoded.shape[2:]
    step = -(-max(rows * height, columns * NEAREST * width) // LONGEST)
    inputs, decoded = inputs[..., ::step, ::step], decoded[..., ::step, ::step]
    samples = inputs[nearest] * (nearest >= 0)[..., None, None, None]
    prototypes = mosaic_file(decoded[:, None], grid)
    for number in range(NEAREST, 0, -1):
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            map_size=np.array(grid.shape),
            torus=np.array(grid.torus),
            classes=np.array(classes),
            counts=counts.astype(np.uint32),
            u_matrix=figures.neighbour_distances(centroids, grid).astype(np.float32),
            nearest=nearest[:, :number],
            nearest_samples=mosaic_file(samples[:, :number], grid),
            decoded=prototypes,
        )
        if buffer.tell() < LARGEST:
            break
    write_atomically(folder / ARRAYS, buffer.getvalue())
    return folder / ARRAYS


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of such a file, or of one of trajectories.

    Raises:
        UserError: it is damaged, or lacks what is asked of it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a trained map ({error}): restore it from git") from error


def mosaic_file(pictures: np.ndarray, grid: Grid) -> np.ndarray:
    """Bytes of a WebP file: S pictures of each unit, [K, S, C, H, W] in [0, 1], side by side in the unit's place.

    Grey pictures are kept exactly, in 256 shades.
    """
    rows, columns = grid.shape
    grey = pictures.shape[2] == 1
    tiles = canvas.mosaic(pictures.reshape(rows, columns * pictures.shape[1], *pictures.shape[2:]))
    image = Image.fromarray((tiles.clip(0, 1) * 255).round().astype(np.uint8).repeat(3 if grey else 1, axis=2))
    buffer = io.BytesIO()
    image.save(buffer, format="webp", lossless=grey, quality=100 if grey else QUALITY)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def pictures_of(file: np.ndarray, grid: Grid, count: int = 1) -> np.ndarray:
    """[K, S, C, H, W] in [0, 1] of a mosaic's bytes with S = `count` pictures of each unit; C is 1 if all are grey."""
    with Image.open(io.BytesIO(file.tobytes())) as image:
        tiles = np.asarray(image.convert("RGB")) / 255
    if (tiles == tiles[..., :1]).all():
        tiles = tiles[..., :1]
    rows, columns = grid.shape
    shape = rows, tiles.shape[0] // rows, columns, count, tiles.shape[1] // (columns * count), tiles.shape[2]
    pictures = tiles.reshape(shape).transpose(0, 2, 3, 5, 1, 4)
    return pictures.reshape(grid.size, *pictures.shape[2:])
