"""What fills and scales the hourly values of stays. NumPy arrays in and out."""

import numpy as np

LARGEST = 5.0  # standard deviations, to which normalised values are clipped


def forward_filled(values: np.ndarray) -> np.ndarray:
    """Values `[N, T, C]`, each NaN replaced by the value before it; NaN where there is none before."""
    known = np.where(np.isnan(values), 0, np.arange(values.shape[1])[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(known, axis=1), axis=1)


def normalised(
    filled: np.ndarray, inside: np.ndarray, training: np.ndarray, counts: dict[str, int | float]
) -> tuple[np.ndarray, list[float], list[float]]:
    """`[N, T, C]` float32 with mean 0 and deviation 1 over the known hours of the `training` stays [N], clipped.

    Returns the mean and the scale of every variable as well; one that no training stay has, or that never varies, keeps
    its scale. What is not known becomes 0, the mean. The share of clipped values is counted.

    Args:
        filled: `[N, T, C]`, NaN where nothing is known.
        inside: `[N, T]`, hours of the stays.
        training: `[N]`.
        counts: of the preparation.
    """
    known = ~np.isnan(filled) & inside[..., None]
    used = np.where(known & training[:, None, None], filled, 0.0)
    number = np.maximum((known & training[:, None, None]).sum(axis=(0, 1)), 1)
    mean = _rounded(used.sum(axis=(0, 1)) / number)
    deviation = np.where(known & training[:, None, None], filled - mean, 0.0)
    scale = _rounded(np.sqrt((deviation**2).sum(axis=(0, 1)) / number))
    scale = np.where(scale > 1e-6, scale, 1.0)
    inputs, counts["clipped_share"] = scaled(filled, known, mean, scale)
    return inputs, mean.tolist(), scale.tolist()


def scaled(filled: np.ndarray, known: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """Values `[N, T, C]` as `[N, T, C]` float32 by means and scales `[C]`, clipped; and the share of clipped ones.

    What is not `known` [N, T, C] becomes 0.
    """
    inputs = np.where(known, (filled - mean) / scale, 0.0)
    clipped = (np.abs(inputs) > LARGEST).sum() / max(known.sum(), 1)
    return inputs.clip(-LARGEST, LARGEST).astype(np.float32), round(float(clipped), 6)


def _rounded(values: np.ndarray) -> np.ndarray:
    """To six digits, so that the order in which a machine adds numbers up does not change the stays."""
    return np.array([float(f"{value:.6g}") for value in values])
