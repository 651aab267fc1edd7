"""A plain self-organising map, the baseline of images and latents: the package MiniSom, with a progress bar."""

from models.grid import Grid

import numpy as np
from minisom import MiniSom
from tqdm import tqdm


def minisom(
    samples: np.ndarray, grid: Grid, *, steps: int, sigma: float, learning_rate: float, seed: int
) -> np.ndarray:
    """Centroids `[K, D]` after `steps` random ones of the samples `[N, D]`.

    Args:
        sigma: width of the neighbourhood at the start, in units.
        learning_rate: at the start.
    """
    som = MiniSomWithBar(*grid.shape, samples.shape[1], sigma=sigma, learning_rate=learning_rate, random_seed=seed)
    som.random_weights_init(samples)
    som.train_random(samples, steps)
    return som.get_weights().reshape(grid.size, -1)


class MiniSomWithBar(MiniSom):
    """MiniSom with a progress bar over its steps."""

    def train(self, data: np.ndarray, num_iteration: int, **options) -> None:
        with tqdm(total=num_iteration, desc="MiniSom", unit="step", delay=3, leave=False) as self.bar:
            super().train(data, num_iteration, **options)

    def update(self, *step) -> None:
        super().update(*step)
        self.bar.update()
