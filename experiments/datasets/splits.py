"""Which samples are held out, the same ones whatever the seed of a run."""

import numpy as np
from sklearn.model_selection import train_test_split

SPLIT_SEED = 42  # ratschlab/dpsom: train_test_split(..., random_state=42)
UNUSED_FRACTION, LAST_FRACTION = 1 / 12, 1 / 6  # ratschlab/SOM-VAE: MNIST's first 5,000 images and its last 10,000
TEST_FRACTION = 0.2  # of sets that come without a test set, such as scikit-learn's digits


def split_indices(size: int, held_out_fraction: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices to keep and to hold out, shuffled as DPSOM's `train_test_split(..., random_state=42)` does.

    Without a fraction as in SOM-VAE, in order: the first twelfth is in neither, the last sixth is held out.
    """
    if held_out_fraction is None:
        first, last = round(size * UNUSED_FRACTION), size - round(size * LAST_FRACTION)
        return np.arange(first, last), np.arange(last, size)
    kept, held_out = train_test_split(np.arange(size), test_size=held_out_fraction, random_state=SPLIT_SEED)
    return kept, held_out
