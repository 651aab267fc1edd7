"""From the hourly states to the arrays that are trained on: windows, labels, splits."""

from experiments.errors import UserError
from scripts.eicu.constants import CHANNELS, HORIZONS, MINIMUM, SCALE, WINDOW, carry_forward
from scripts.eicu.grid import fill
from scripts.eicu.scores import deaths, physiology_scores
from scripts.eicu.stages import BAR, Stages

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor
from tqdm import tqdm

BATCH = 250  # stays that are filled at a time
TEST_FRACTION, VALIDATION_FRACTION, SPLIT_SEED = 0.15, 0.2, 42  # the authors' 68 % / 17 % / 15 %


def last_hours(
    stages: Stages, cohort: dict[str, np.ndarray], medians: np.ndarray, corrections: frozenset[str]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Inputs, observed and labels of the last 72 rows of every stay's grid.

    All labels look ahead, none beyond the stay's end: no earlier row is needed. `medians` are `[C]`.
    """
    count, limits = len(cohort["stay"]), carry_forward(corrections)
    defaults = np.where(np.isnan(medians), MINIMUM, medians)  # a channel that was never measured is zero
    rows = cohort["hours"][:, None] - WINDOW + np.arange(WINDOW)
    inputs = torch.zeros(count, WINDOW, len(CHANNELS))
    observed = torch.zeros(count, WINDOW, len(CHANNELS), dtype=torch.bool)
    labels = {f"full_score_{horizon}": torch.zeros(count, WINDOW, dtype=torch.int16) for horizon in HORIZONS}
    for start in tqdm(range(0, count, BATCH), desc="last hours", bar_format=BAR):
        part = slice(start, start + BATCH)
        known = stages.fetch(
            f"FROM hours WHERE position BETWEEN {start} AND {start + BATCH - 1} ORDER BY position, channel, hour"
        )
        values, measured = fill(known, rows[part], start, defaults, limits)
        inputs[part] = torch.from_numpy((values - MINIMUM) / SCALE)
        observed[part] = torch.from_numpy(measured)
        for name, score in physiology_scores(values, corrections).items():
            labels[name][part] = torch.from_numpy(score)
    for place in ("hospital", "unit"):
        expired = deaths(place, cohort[f"{place}_death"], rows, cohort["hours"])
        labels |= {name: torch.from_numpy(label) for name, label in expired.items()}
    return inputs, observed, labels


def splits(groups: np.ndarray) -> np.ndarray:
    """0 for training, 1 for validation, 2 for test, `[N]` int8; equal groups come into the same split.

    As many of each as the authors had. Which they were is lost: their order was that of the files in a folder.
    """
    split = np.zeros(len(groups), dtype=np.int8)
    try:
        rest, test = one_split(groups, TEST_FRACTION)
        _, validation = one_split(groups[rest], VALIDATION_FRACTION)
    except ValueError as error:
        raise UserError(f"{len(groups)} stays are left: too few for training, validation and test") from error
    split[test], split[rest[validation]] = 2, 1
    return split


def one_split(groups: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    return next(GroupShuffleSplit(1, test_size=fraction, random_state=SPLIT_SEED).split(groups, groups=groups))
