"""What a report needs to know about one trained map, in two small files: `map.npz` and the sprite `map.png`."""

import io
from collections.abc import Sequence
from pathlib import Path

from experiments.ingredients import figures
from experiments.ingredients.observers import write_atomically
from models.grid import Grid

import numpy as np
from PIL import Image

ARRAYS, SPRITE = "map.npz", "map.png"
NEAREST = 3
LARGEST = 300_000  # bytes of a file that is kept with the results


def write_map(
    folder: Path,
    grid: Grid,
    classes: Sequence[str],
    counts: np.ndarray,
    centroids: np.ndarray,
    points: np.ndarray,
    inputs: np.ndarray,
    decoded: np.ndarray,
) -> tuple[Path, Path]:
    """Write both files into `folder` and return their paths.

    `map.npz` holds `map_size` [2], `torus`, `classes`, `counts` [K, classes], `u_matrix` [K], `nearest` [K, S]
    (positions in the split, nearest first, -1 where the unit wins fewer), `nearest_samples` [K, S, C, H, W] and
    `decoded` [K, C, H, W] in uint8. S is 3, or less where the file would reach 300 kB. Files of earlier runs have one
    nearest sample and no axis S. The sprite is the decoded map, unit beside unit, without axes.

    Args:
        counts: samples of each class by unit, [K, classes].
        centroids: [K, D].
        points: latents of the split, [N, D].
        inputs: the split, [N, C, H, W] in [0, 1].
        decoded: the centroids' pictures, [K, C, H, W] in [0, 1].
    """
    nearest = figures.nearest_won(points, centroids, NEAREST)
    samples = _as_bytes(inputs[nearest] * (nearest >= 0)[..., None, None, None])
    pictures = _as_bytes(decoded)
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
            nearest_samples=samples[:, :number],
            decoded=pictures,
        )
        if buffer.tell() < LARGEST:
            break
    write_atomically(folder / ARRAYS, buffer.getvalue())
    mosaic = figures.mosaic(pictures.reshape(*grid.shape, *pictures.shape[1:]))
    buffer = io.BytesIO()
    Image.fromarray(mosaic[..., 0] if mosaic.shape[2] == 1 else mosaic).save(buffer, format="png", optimize=True)
    write_atomically(folder / SPRITE, buffer.getvalue())
    return folder / ARRAYS, folder / SPRITE


def _as_bytes(pictures: np.ndarray) -> np.ndarray:
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)
