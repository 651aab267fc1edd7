"""The pictures that a run on images leaves of its map."""

from collections.abc import Sequence

from experiments.drawing import figures
from experiments.drawing.trained_map import write_map
from experiments.ingredients.data import Split
from experiments.ingredients.tracking import Tracker
from experiments.measures.metrics import winners
from models.grid import Grid

import numpy as np
from torch import Tensor


def draw_map(
    tracker: Tracker,
    split: Split,
    classes: Sequence[str],
    grid: Grid,
    latents: Tensor,
    centroids: Tensor,
    decoded_centroids: Tensor,
    reconstructed: Tensor,
    step: int,
) -> None:
    """Log the pictures of a trained map: decoded, hits, labels, U-matrix, nearest samples, reconstructions, latents.

    Keeps its description for reports (`trained_map`) as well.

    Args:
        latents: `[N, D]` of the split.
        centroids: `[K, D]`.
        decoded_centroids: `[K, C, H, W]`.
        reconstructed: `[n, C, H, W]`, of the first n samples of the split.
    """
    inputs, labels = split.inputs.cpu().numpy(), split.labels.cpu().numpy()
    points, codebook = latents.cpu().numpy(), centroids.detach().cpu().numpy()
    units = winners(points, codebook)[0]
    counts = np.zeros((grid.size, len(classes)), dtype=np.int64)
    np.add.at(counts, (units, labels), 1)
    decoded = decoded_centroids.cpu().numpy()
    pictures = {
        "decoded_map": figures.decoded_map(decoded, grid),
        "hit_map": figures.hit_map(counts.sum(axis=1), grid),
        "label_map": figures.label_map(counts, classes, grid),
        "u_matrix": figures.u_matrix(codebook, grid),
        "nearest_samples": figures.nearest_samples(inputs, points, codebook, grid),
        "reconstructions": figures.reconstructions(inputs[: len(reconstructed)], reconstructed.cpu().numpy()),
    }
    for name, figure in pictures.items():
        tracker.figure(name, figure, step)
    tracker.artifact(write_map(tracker.folder, grid, classes, counts, codebook, points, inputs, decoded))
    tracker.embedding(points, labels, inputs, step)
