"""The learning curve of DPSOM's faithful runs beside the original's; `scripts/pictures.py` draws it.

The original's curve, results/curves/tensorflow_dense_mnist_seed2020.csv, was measured by running its unmodified code
(TensorFlow 1.15, seed 2020) and evaluating the 9,900 test images after every epoch; it was stopped at joint epoch 104.
Ours come from the records of `mnist_faithful` and of `mnist_faithful_104`, the same runs ended at that epoch, on the
same images; of two runs of a seed the longer one counts.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.figures import curve_comparison
from scripts.records import Record, load_records
from scripts.rendering.metrics import heading

from matplotlib.figure import Figure

ORIGINAL = Path("curves") / "tensorflow_dense_mnist_seed2020.csv"
PHASES = {"ae": "pretrain", "som": "som", "joint": "joint"}
FAITHFUL = ("dpsom/mnist_faithful", "dpsom/mnist_faithful_104")
METRICS = {"nmi": "test/nmi_geometric", "purity": "test/purity"}


def original_curve(path: Path) -> list[dict] | None:
    """The original's epochs, with our names of phases and metrics; None where the file is missing."""
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {"phase": PHASES[row["phase"]], "epoch": int(row["epoch"])}
                | {ours: float(row[theirs]) for theirs, ours in METRICS.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read as the original's curve ({error!r}): restore it from git") from error


def faithful_curves(records: Iterable[Record]) -> list[list[dict]]:
    """The learning curves of DPSOM's faithful runs, one for each seed."""
    longest: dict[int, list[dict]] = {}
    for record in records:
        if record.key in FAITHFUL and len(record.curve) > len(longest.get(record.seed, [])):
            longest[record.seed] = record.curve
    return list(longest.values())


def learning_curve(results: Path) -> Figure | None:
    """The records below `results` beside the original; None where one of them is missing."""
    reference = original_curve(results / ORIGINAL)
    curves = faithful_curves(load_records(results / "runs"))
    if not reference or not curves:
        return None
    titles = {metric: heading(metric) for metric in METRICS.values()}
    return curve_comparison(curves, reference, ("faithful", "TensorFlow"), titles)
