"""k-means, the baseline of images, sequences and stays: scikit-learn's, with a progress bar."""

import numpy as np
from sklearn.cluster import KMeans
from tqdm import trange


def kmeans(samples: np.ndarray, number: int, restarts: int, seed: int) -> np.ndarray:
    """Centroids `[number, D]` of samples `[N, D]`, the best of several restarts.

    They share one stream of random numbers and are what `KMeans(n_init=restarts, random_state=seed)` finds.
    """
    stream = np.random.RandomState(seed)
    bar = trange(restarts, desc="k-means", unit="restart", delay=3, leave=False)
    found = min((KMeans(number, n_init=1, random_state=stream).fit(samples) for _ in bar), key=lambda fit: fit.inertia_)
    return found.cluster_centers_.astype(np.float32)
