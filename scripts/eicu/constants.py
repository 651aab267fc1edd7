"""constants.yaml, read once: the channels, the score and the rules of the selection."""

from pathlib import Path

import numpy as np
import yaml

CONSTANTS = yaml.safe_load(Path(__file__).with_name("constants.yaml").read_text(encoding="utf-8"))

CHANNELS: list[str] = [name for name, *_ in CONSTANTS["channels"]]
UNITS: list[str] = [unit for _, unit, *_ in CONSTANTS["channels"]]
MINIMUM = np.array([minimum for *_, minimum, _ in CONSTANTS["channels"]], dtype=np.float64)  # [C]
SCALE = np.array([scale for *_, scale in CONSTANTS["channels"]], dtype=np.float64)  # [C]
MAXIMUM = np.round(MINIMUM + SCALE, 6)  # [C]
WINDOW: int = CONSTANTS["window"]
HORIZONS: list[int] = CONSTANTS["horizons"]

CORRECTIONS = {
    "limits": "carry vital signs forward for 1 h and laboratory values for 24 h (published: 60 h, 60 days)",
    "grid": "start the hours at the first heart rate (published: at admission, but with the same number of hours)",
    "hco3": "no points for HCO3 from 22 mmol/L, as in APACHE II (published: from 23)",
    "outliers": "drop values outside the published range of their channel (published: keep all)",
    "persons": "keep all stays of a person in one split (published: split by stay)",
}


def carry_forward(corrections: frozenset[str]) -> np.ndarray:
    """Minutes `[C]` for which each channel's last value is carried forward."""
    limits = CONSTANTS["carry_forward_corrected" if "limits" in corrections else "carry_forward"]
    return np.array([limits["lab" if name.startswith("lab_") else "vital"] for name in CHANNELS])
