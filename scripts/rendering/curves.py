"""The learning curve of DPSOM's faithful runs beside the original's; `scripts/pictures.py` draws it.

The original's curve, results/curves/tensorflow_dense_mnist_seed2020.csv, was measured by running its unmodified code
(TensorFlow 1.15, seed 2020) and evaluating the 9,900 test images after every epoch; it was stopped at joint epoch 104.
Ours come from the records of `mnist_faithful` and of `mnist_faithful_104`, the same runs ended at that epoch, on the
same images; of two runs of a seed the longer one counts.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.drawing.canvas import COLOURS, STYLE, panels
from experiments.errors import UserError
from scripts.records import Record, load_records
from scripts.rendering.metrics import heading

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curve = Sequence[Mapping[str, object]]
"""Rows of a record's `curve`: each has `phase`, `epoch` (from 1 in every phase) and whatever metrics were taken."""

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


@matplotlib.rc_context(STYLE)
def curve_comparison(
    curves: Sequence[Curve], reference: Curve, names: tuple[str, str], metrics: Mapping[str, str]
) -> Figure:
    """Our `curves`, one per seed, beside a `reference`; `names` of ours and of theirs; a column of panels per metric.

    `metrics` are keys of the curves' rows, with titles. Above both, below the difference ours - theirs at the epochs
    that both have. With several seeds: their mean, and a band from the least to the greatest. The reference's rows
    carry our phases' and metrics' names; ValueError if it has a phase that our curves lack, or without curves.
    """
    if not curves:
        raise ValueError("no curves to compare")
    starts, note = phase_starts(curves)
    unknown = {row["phase"] for row in reference} - set(starts)
    if unknown:
        raise ValueError(f"the reference has phases that our curves lack: {sorted(unknown)}")
    seeds = f"{names[0]}, {len(curves)} seeds (mean, range)" if len(curves) > 1 else f"{names[0]}, 1 seed"
    figure, drawn = panels(2 * len(metrics), len(metrics), 2.1, f"{names[0]} beside {names[1]}", note)
    for (metric, title), above, below in zip(
        metrics.items(), drawn[: len(metrics)], drawn[len(metrics) :], strict=True
    ):
        theirs = curve_points(reference, metric, starts)
        ours = over_seeds(curves, metric, starts)
        _draw_band(above, ours, seeds)
        above.plot(list(theirs), list(theirs.values()), color="#222222", linewidth=1, linestyle="--", label=names[1])
        shared = {epoch: np.subtract(values, theirs[epoch]) for epoch, values in ours.items() if epoch in theirs}
        _draw_band(below, shared, "difference")
        below.axhline(0, color="#222222", linewidth=1, linestyle="--")
        _finish_panel(above, title, starts)
        _finish_panel(below, f"{title}: {names[0]} − {names[1]}", starts)
        below.sharex(above)
    drawn[0].legend()
    return figure


def phase_starts(curves: Sequence[Curve]) -> tuple[dict[str, int], str]:
    """How many epochs passed before each phase, in the order of their appearance, and a note that says so."""
    lengths: dict[str, int] = {}
    for curve in curves:
        for row in curve:
            lengths[row["phase"]] = max(lengths.get(row["phase"], 0), row["epoch"])
    starts, passed = {}, 0
    for phase, length in lengths.items():
        starts[phase] = passed
        passed += length
    spans = [f"{phase} {starts[phase] + 1}–{starts[phase] + length}" for phase, length in lengths.items()]
    return starts, f"epochs: {', '.join(spans)}" + ("; dotted lines part the phases" if len(spans) > 1 else "")


def curve_points(curve: Curve, column: str, starts: Mapping[str, int]) -> dict[int, float]:
    """By epoch, counted through all phases, the values of the rows that have a finite number in `column`."""
    rows = [row for row in curve if row.get(column) is not None and np.isfinite(row[column])]
    return {starts[row["phase"]] + row["epoch"]: float(row[column]) for row in rows}


def over_seeds(curves: Sequence[Curve], column: str, starts: Mapping[str, int]) -> dict[int, list[float]]:
    """{epoch: one value per seed} at the epochs that all seeds have."""
    series = [curve_points(curve, column, starts) for curve in curves]
    return {epoch: [one[epoch] for one in series] for epoch in sorted(set(series[0]).intersection(*series[1:]))}


def _draw_band(axes: Axes, values: Mapping[int, Sequence[float]], label: str) -> None:
    """The mean over seeds of `values` (epoch → one value per seed), and their range where there are several seeds."""
    if not values:
        return
    epochs, seeds = list(values), np.array(list(values.values()))
    if seeds.shape[1] > 1:
        axes.fill_between(epochs, seeds.min(axis=1), seeds.max(axis=1), color=COLOURS[0], alpha=0.3, linewidth=0)
    marker = "o" if len(epochs) <= 30 else None
    axes.plot(epochs, seeds.mean(axis=1), color=COLOURS[0], label=label, linewidth=1.4, marker=marker, markersize=3)


def _finish_panel(axes: Axes, metric: str, starts: Mapping[str, int]) -> None:
    axes.set_title(metric, loc="left")
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for start in list(starts.values())[1:]:
        axes.axvline(start + 0.5, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
