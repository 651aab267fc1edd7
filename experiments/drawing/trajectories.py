"""What a report needs to know about a map of hours and the ways over it, in one small file: `trajectories.npz`.

It tells of units, labels and ends of stays, never what was measured: points are kept of generated data alone.
"""

import io
from pathlib import Path

from experiments.datasets.stays import Stays
from experiments.drawing.figures import neighbour_distances
from experiments.files import write_atomically
from experiments.measures.hours import Hours, table
from models.grid import Grid

import numpy as np

TRAJECTORIES = "trajectories.npz"
CHOSEN = 6  # stays whose way is told
MOST_POINTS = 3000


def write_trajectories(
    folder: Path, stays: Stays, hours: Hours, grid: Grid, centroids: np.ndarray, units: list[dict[str, float | int]]
) -> Path:
    """Write the file into `folder` and return its path.

    Of the map: `map_size` [2], `torus`, `u_matrix` [K], `hits` [K], the `stays` [K] they are of, `label`, its
    `classes` and their `counts` [K, classes], and the `means` [Q, K, 3] of `quantities` [Q]: mean, lower and upper end
    of a 95 % interval. Of P chosen stays: `lengths` [P], `deaths` [P] (NaN: not known), and, one stay behind the other,
    `path_units` and `path_labels` (-1: none); `time` and `step`, the name of the time between two hours and how much of
    it passes. Of generated data `points` [n, C] and `path_points`, in hundredths, their `channels`, and `point_units`
    [n].

    Args:
        hours: of `stays`, with the units that win them.
        centroids: `[K, D]`.
        units: the `unit_table` of the hours.
    """
    label = hours.labels[hours.first_label]
    known = label >= 0
    counts = table(hours.units[known], label[known], grid.size)
    description = stays.description
    names = description.classes.get(hours.first_label) or [str(number) for number in range(counts.shape[1])]
    words = quantity_words(stays)
    means = [[[row[f"{name}{end}"] for end in ("", "_low", "_high")] for row in units] for name in words]
    chosen = chosen_stays(stays)
    rows = [np.flatnonzero(hours.stays == stay) for stay in chosen]
    path = np.concatenate(rows)
    points = generated_points(stays)
    shown = points[:MOST_POINTS]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        map_size=np.array(grid.shape),
        torus=np.array(grid.torus),
        u_matrix=neighbour_distances(centroids, grid).astype(np.float32),
        hits=np.bincount(hours.units, minlength=grid.size).astype(np.uint32),
        stays=np.array([row["stays"] for row in units], np.uint32),
        label=np.array([hours.first_label]),
        classes=np.array(names[: counts.shape[1]]),
        counts=counts.astype(np.uint32),
        quantities=np.array(list(words.values())),
        means=np.array(means, np.float32),
        lengths=np.array([len(one) for one in rows], np.uint16),
        deaths=hours.outcomes.get("death", np.full(len(stays), np.nan))[chosen].astype(np.float32),
        path_units=hours.units[path].astype(np.uint16),
        path_labels=label[path].astype(np.int16),
        time=np.array([description.time]),
        step=np.array([description.step]),
        channels=np.array([channel.name for channel in description.channels[: points.shape[1]]], np.str_),
        points=shown,
        point_units=hours.units[: len(shown)].astype(np.uint16),
        path_points=points[path] if len(points) else points,
    )
    write_atomically(folder / TRAJECTORIES, buffer.getvalue())
    return folder / TRAJECTORIES


def generated_points(stays: Stays) -> np.ndarray:
    """All hours in hundredths, `[n, C]`; `[0, 0]` unless they are generated."""
    if not stays.description.generated:
        return np.zeros((0, 0), np.int16)
    return np.rint(100 * stays.inputs[stays.mask].cpu().numpy()).astype(np.int16)


def quantity_words(stays: Stays) -> dict[str, str]:
    """What the columns of `unit_table` say of a unit: the first label, and deaths where they are known."""
    label = next(iter(stays.labels))
    classes = stays.description.classes.get(label, ())
    deaths = {"death": "share of hours before a death"} if "death" in stays.outcomes else {}
    return {label: f"share of {classes[1]}" if len(classes) == 2 else f"mean {label}"} | deaths


def label_spread(stays: Stays) -> np.ndarray:
    """How far the first label of each stay ranges, `[N]`; -1 where it has none, or other stays are longer."""
    label = next(iter(stays.labels.values())).cpu().numpy()
    greatest = label.max(axis=1)
    least = np.where(label >= 0, label, greatest[:, None]).min(axis=1)
    lengths = stays.lengths.cpu().numpy()
    return np.where((greatest >= 0) & (lengths == lengths.max()), greatest - least, -1)


def chosen_stays(stays: Stays) -> np.ndarray:
    """`CHOSEN` of the longest stays, from the least to the greatest spread of the first label.

    Where it is known which stays end in death, half of them do; where nothing is labelled they are the first.
    """
    spread = label_spread(stays)
    deaths = stays.outcomes["death"].cpu().numpy() if "death" in stays.outcomes else np.zeros(len(stays))
    groups = [np.flatnonzero((spread >= 0) & (deaths == end)) for end in (0, 1)]
    groups = [group for group in groups if len(group)] or [np.arange(min(CHOSEN, len(stays)))]
    chosen = []
    for group in groups:
        ranked = group[np.argsort(spread[group], kind="stable")]
        places = np.linspace(0, len(ranked) - 1, min(CHOSEN // len(groups), len(ranked)))
        chosen.extend(ranked[places.round().astype(int)])
    return np.array(chosen)
