"""The learning curve of DPSOM's faithful runs beside the original's; `scripts/pictures.py` draws it.

The original's curve, results/curves/tensorflow_dense_mnist_seed2020.csv, was measured by running its unmodified code
(TensorFlow 1.15, seed 2020) and evaluating the 9,900 test images after every epoch; it was stopped at joint epoch 104.
Ours come from the records of `mnist_faithful`, or of `mnist_faithful_104`, the same run ended at that epoch; both
evaluate the same images.
"""

import csv
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.figures import curve_comparison
from scripts.records import load_records

from matplotlib.figure import Figure

ORIGINAL = Path("curves") / "tensorflow_dense_mnist_seed2020.csv"
PHASES = {"ae": "pretrain", "som": "som", "joint": "joint"}
FAITHFUL = ("mnist_faithful", "mnist_faithful_104")
METRICS = {"nmi": "test/nmi_geometric", "purity": "test/purity"}


def original_curve(path: Path) -> list[dict]:
    """The original's epochs, with our names of phases and metrics."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {"phase": PHASES[row["phase"]], "epoch": int(row["epoch"])}
                | {ours: float(row[theirs]) for theirs, ours in METRICS.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read as the original's curve ({error!r}): restore it from git") from error


def learning_curve(results: Path) -> Figure | None:
    """The records below `results` beside the original; None when there is no record yet."""
    reference = original_curve(results / ORIGINAL)
    curves = [record.curve for record in load_records(results / "runs") if record.config_name in FAITHFUL]
    if not curves:
        return None
    return curve_comparison(curves, reference, ("faithful", "TensorFlow"), list(METRICS.values()))
