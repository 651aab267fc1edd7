"""Draw the learning curve of the faithful runs beside the original's: results/figures/dpsom_learning_curve.png.

    python scripts/curves.py

The original's curve, results/curves/tensorflow_dense_mnist_seed2020.csv, was measured by running its unmodified code
(TensorFlow 1.15, seed 2020) and evaluating the 9,900 test images after every epoch; it was stopped at joint epoch 104.
Ours come from the records of `mnist_faithful`, or of `mnist_faithful_104`, the same run ended at that epoch; both
evaluate the same images. Without a record nothing is drawn.
"""

import argparse
import csv
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.figures import curve_comparison
from scripts.records import load_records

ROOT = Path(__file__).resolve().parents[1]
ORIGINAL = Path("curves") / "tensorflow_dense_mnist_seed2020.csv"
PICTURE = Path("figures") / "dpsom_learning_curve.png"
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


def draw(results: Path) -> Path | None:
    """Draw the picture from the records below `results`; its path, or None when there is no record yet."""
    reference = original_curve(results / ORIGINAL)
    curves = [record.curve for record in load_records(results / "runs") if record.config_name in FAITHFUL]
    if not curves:
        return None
    figure = curve_comparison(curves, reference, ("faithful", "TensorFlow"), list(METRICS.values()))
    path = results / PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the records")
    options = parser.parse_args(arguments)
    try:
        path = draw(options.results)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path or "no learning curve yet: no run of mnist_faithful has been recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
