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

    `map.npz` holds `map_size` [2], `torus`, `classes`, `counts` [K, classes], `u_matrix` [K], `nearest` [K] (positions
    in the split, -1 for a unit without samples), `nearest_samples` and `decoded`, both [K, C, H, W] in uint8. The
    sprite is the decoded map, unit beside unit, without axes.

    Args:
        counts: samples of each class by unit, [K, classes].
        centroids: [K, D].
        points: latents of the split, [N, D].
        inputs: the split, [N, C, H, W] in [0, 1].
        decoded: the centroids' pictures, [K, C, H, W] in [0, 1].
    """
    nearest = figures.nearest_won(points, centroids)
    pictures = _as_bytes(decoded)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        map_size=np.array(grid.shape),
        torus=np.array(grid.torus),
        classes=np.array(classes),
        counts=counts.astype(np.uint32),
        u_matrix=figures.neighbour_distances(centroids, grid).astype(np.float32),
        nearest=nearest,
        nearest_samples=_as_bytes(inputs[nearest] * (nearest >= 0)[:, None, None, None]),
        decoded=pictures,
    )
    write_atomically(folder / ARRAYS, buffer.getvalue())
    mosaic = figures.mosaic(pictures.reshape(*grid.shape, *pictures.shape[1:]))
    buffer = io.BytesIO()
    Image.fromarray(mosaic[..., 0] if mosaic.shape[2] == 1 else mosaic).save(buffer, format="png", optimize=True)
    write_atomically(folder / SPRITE, buffer.getvalue())
    return folder / ARRAYS, folder / SPRITE


def _as_bytes(pictures: np.ndarray) -> np.ndarray:
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)
