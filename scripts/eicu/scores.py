"""The labels of every hour: physiology scores and deaths within the coming hours."""

from scripts.eicu.constants import CHANNELS, CONSTANTS, HORIZONS

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def physiology_scores(values: np.ndarray, corrections: frozenset[str]) -> dict[str, np.ndarray]:
    """`full_score_<h>` of every row of the grid, `[B, T]` int16 from 0 to 28.

    Each of seven variables counts the worst points that it reaches in this row and the h - 1 next ones; rows beyond the
    last of `values` `[B, T, 98]`, in clinical units, do not count.
    """
    points = np.stack([points_of(name, values[..., CHANNELS.index(name)], corrections) for name in CONSTANTS["score"]])
    scores = {}
    for hours in HORIZONS:
        padded = np.pad(points, ((0, 0), (0, 0), (0, hours - 1)))
        scores[f"full_score_{hours}"] = sliding_window_view(padded, hours, axis=-1).max(-1).sum(0, dtype=np.int16)
    return scores


def points_of(name: str, values: np.ndarray, corrections: frozenset[str]) -> np.ndarray:
    """Points of one variable's values, of the same shape."""
    bounds, points = CONSTANTS["score"][name]["bounds"], CONSTANTS["score"][name]["points"]
    if name == "lab_HCO3" and "hco3" in corrections:
        bounds = CONSTANTS["hco3_bounds_corrected"]
    return np.array(points, dtype=np.int16)[np.searchsorted(bounds, values, side="right")]


def deaths(name: str, died: np.ndarray, rows: np.ndarray, hours: np.ndarray) -> dict[str, np.ndarray]:
    """`<name>_discharge_expired_<h>` `[B, T]` int16: 1 in the last h rows of a stay that ended with death.

    `died` and `hours` (the number of rows of the whole stay) are `[B]`, `rows` `[B, T]`.
    """
    left = hours[:, None] - rows
    return {
        f"{name}_discharge_expired_{horizon}": (died[:, None] & (left <= horizon)).astype(np.int16)
        for horizon in HORIZONS
    }
