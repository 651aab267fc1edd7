"""An organ-failure score of every hour, and the worst of the coming hours.

The score is the sum of the SOFA components (Vincent et al., 1996) that the variables of PhysioNet 2012 allow: no
vasopressors are known, so circulation has at most one point; a component of which nothing is known counts as normal.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

URINE_RECORDED = 12  # hours of the last 24 in which urine must be recorded before its sum is believed


def organ_failure_score(
    names: Sequence[str], filled: np.ndarray, values: np.ndarray, inside: np.ndarray, counts: dict[str, int | float]
) -> np.ndarray:
    """SOFA's components of every hour, added up: `[N, T]`, 0 … 21.

    A component of which nothing is known counts as normal; the share of such hours is counted.

    Args:
        names: of the C variables, as PhysioNet 2012 has them.
        filled: carried forward, `[N, T, C]`, in clinical units.
        values: as measured, NaN where not; urine is added up over the last 24 hours of these.
        inside: `[N, T]`, hours of the stays.
    """
    value = {name: filled[..., index] for index, name in enumerate(names)}
    oxygenation = value["PaO2"] / value["FiO2"]
    pressure = np.where(np.isnan(value["MAP"]), value["NIMAP"], value["MAP"])
    urine = urine_of_a_day(values[..., names.index("Urine")])
    kidneys = np.fmax(
        points(value["Creatinine"], (1.2, 2.0, 3.5, 5.0)), _known(urine, np.select([urine < 200, urine < 500], [4, 3]))
    )
    components = {
        "lungs": np.minimum(
            points(-oxygenation, (-400, -300, -200, -100), above=True), np.where(value["MechVent"] > 0, 4.0, 2.0)
        ),
        "coagulation": points(-value["Platelets"], (-150, -100, -50, -20), above=True),
        "liver": points(value["Bilirubin"], (1.2, 2.0, 6.0, 12.0)),
        "circulation": points(-pressure, (-70,), above=True),
        "consciousness": points(-value["GCS"], (-14, -12, -9, -5)),
        "kidneys": kidneys,
    }
    for name, component in components.items():
        share = (np.isnan(component) & inside).sum() / inside.sum()
        counts[f"unknown_share_{name}"] = round(float(share), 4)
    return sum(np.nan_to_num(component) for component in components.values()).astype(np.int16)


def points(values: np.ndarray, limits: tuple[float, ...], above: bool = False) -> np.ndarray:
    """How many of the rising `limits` a value reaches (or, with `above`, exceeds); NaN where it is not known."""
    return _known(values, np.searchsorted(limits, values, side="left" if above else "right"))


def _known(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.nan, counted)


def urine_of_a_day(hourly: np.ndarray) -> np.ndarray:
    """Sum over the 24 hours that end with each, `[N, T]`; NaN before the first day is over or where hardly recorded."""
    total = np.full(hourly.shape, np.nan)
    days = sliding_window_view(hourly, 24, axis=1)
    recorded = (~np.isnan(days)).sum(axis=2)
    total[:, 23:] = np.where(recorded >= URINE_RECORDED, np.nansum(days, axis=2), np.nan)
    return total


def coming_worst(score: np.ndarray, lengths: np.ndarray, hours: int) -> np.ndarray:
    """Highest `score` [N, T] of so many hours from each on, int16 `[N, T]`; -1 where the stay ends before they do."""
    worst = np.full(score.shape, -1, np.int16)
    if hours <= score.shape[1]:
        worst[:, : score.shape[1] - hours + 1] = sliding_window_view(score, hours, axis=1).max(axis=2)
    worst[np.arange(score.shape[1]) + hours > lengths[:, None]] = -1
    return worst
