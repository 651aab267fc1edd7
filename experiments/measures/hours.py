"""How well clusters of hours tell what becomes of the patients, and how they follow one another.

NumPy arrays in, floats out. Stays, not hours, are drawn anew for the intervals: the hours of one patient resemble one
another. Intervals are at 95 % and from `scipy.stats.bootstrap`: of a number 1.96 standard errors either way, in the
table of units its percentiles.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from experiments.datasets.stays import Stays
from experiments.measures.metrics import clustering_metrics, winners
from models.grid import Grid

import numpy as np
from scipy import sparse, stats
from torch import Tensor

REPORTED = ("nmi_geometric", "nmi_arithmetic", "ami", "purity")
RESAMPLES = 500
Sums = Callable[[sparse.csr_array], np.ndarray]


@dataclass(frozen=True, eq=False)
class Hours:
    """The hours of a split, as rows, stay after stay.

    Attributes:
        units: winner of every hour, `[n]`.
        stays: which stay it belongs to, `[n]`, rising from 0.
        labels: by name, `[n]`; -1 for none.
        outcomes: by name, of whole stays, `[N]`; NaN for not known.
    """

    units: np.ndarray
    stays: np.ndarray
    labels: dict[str, np.ndarray]
    outcomes: dict[str, np.ndarray]

    @classmethod
    def of(cls, stays: Stays, units: np.ndarray) -> "Hours":
        """The hours of `stays`, as rows, won by `units` [n]."""
        mask = stays.mask
        return cls(
            units=units,
            stays=mask.nonzero()[:, 0].cpu().numpy(),
            labels={name: label[mask].cpu().numpy().astype(np.int64) for name, label in stays.labels.items()},
            outcomes={name: outcome.cpu().numpy() for name, outcome in stays.outcomes.items()},
        )

    @classmethod
    def nearest(cls, stays: Stays, latents: Tensor, centroids: Tensor) -> "Hours":
        """The hours of `stays` with latents `[n, D]`, won by the nearest of the centroids `[K, D]`."""
        return cls.of(stays, winners(latents.cpu().numpy(), centroids.detach().cpu().numpy())[0])

    @property
    def number_of_stays(self) -> int:
        return int(self.stays[-1]) + 1

    def moves(self) -> np.ndarray:
        """Every unit but a stay's last, and the one that follows it, `[m, 2]`."""
        same_stay = self.stays[1:] == self.stays[:-1]
        return np.stack([self.units[:-1], self.units[1:]], axis=1)[same_stay]

    @property
    def first_label(self) -> str:
        """The first label, the one with the shortest name, by which maps are coloured."""
        return next(iter(self.labels))


def agreement(hours: Hours, number_of_units: int) -> dict[str, float]:
    """`nmi_geometric_<label>` of every label, and how many units are used."""
    return {"used_units": float(len(np.unique(hours.units)))} | {
        f"nmi_geometric_{name}": float(nmi_geometric(table(hours.units[known], label[known], number_of_units)))
        for name, label in hours.labels.items()
        if (known := label >= 0).any()
    }


def clustering(stays: Stays, latents: Tensor, centroids: Tensor, grid: Grid) -> dict[str, float]:
    """How well the map agrees with the labels, and how the stays move over it, for latents `[n, D]` of their hours."""
    hours = Hours.nearest(stays, latents, centroids)
    return agreement(hours, grid.size) | movement(hours, grid)


def all_metrics(hours: Hours, number_of_units: int) -> dict[str, float]:
    """Agreement with every label: `<metric>_<label>` as `clustering_metrics` has them, and an interval of the NMI.

    `used_units` is of all hours. Where it is known which stays end in death, `purity_death` is the share of hours whose
    stay ends as most hours of their unit do, with its interval.
    """
    metrics = {"used_units": float(len(np.unique(hours.units)))}
    for name, label in hours.labels.items():
        known = label >= 0
        if not known.any():
            continue
        found = clustering_metrics(label[known], hours.units[known], number_of_units)
        metrics |= {f"{metric}_{name}": value for metric, value in found.items() if metric in REPORTED}
        classes = int(label.max()) + 1
        counts = count_by_stay(hours, hours.units * classes + label, number_of_units * classes, known)

        def nmi(sums: Sums, counts=counts, classes=classes) -> np.ndarray:
            return nmi_geometric(sums(counts).reshape(-1, number_of_units, classes))

        metrics |= interval(f"nmi_geometric_{name}", nmi, hours.number_of_stays)
    if "death" in hours.outcomes:
        metrics |= death_purity(hours, number_of_units)
    return metrics


def movement(hours: Hours, grid: Grid) -> dict[str, float]:
    """From hour to hour: share of changes of the unit, `unit_changes`, and mean way over the map, `jump`, in steps."""
    before, after = hours.moves().T
    way = grid.distances("manhattan").numpy()[before, after]
    return {"unit_changes": float((before != after).mean()), "jump": float(way.mean())} if len(way) else {}


# -------------------------------------------------------------------------------------------------------- unit by unit


def death_purity(hours: Hours, number_of_units: int) -> dict[str, float]:
    """`purity_death` and its interval."""
    died, total = deaths(hours, number_of_units)

    def purity(sums: Sums) -> np.ndarray:
        dead, all_hours = sums(died), sums(total)
        return np.maximum(dead, all_hours - dead).sum(axis=-1) / all_hours.sum(axis=-1)

    value = float(purity(all_stays(hours.number_of_stays))[0])
    return {"purity_death": value} | interval("purity_death", purity, hours.number_of_stays)


def deaths(hours: Hours, number_of_units: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Hours of stays that end in death, and of all whose end is known; both by stay and unit, `[N, K]`."""
    death = hours.outcomes["death"][hours.stays]
    died, known = (count_by_stay(hours, hours.units, number_of_units, chosen) for chosen in (death == 1, death >= 0))
    return died, known


def unit_table(hours: Hours, grid: Grid) -> list[dict[str, float | int]]:
    """For each unit: row, column, hours, stays, mean of the first label and share of hours before a death, intervals.

    The keys `<name>`, `<name>_low` and `<name>_high` are NaN for units that win no hour, the bounds also where
    they agree: who visits a unit is then too few or too much alike for a bootstrap to say how sure the value is.
    """
    every = count_by_stay(hours, hours.units, grid.size, np.ones(len(hours.units), bool))
    rows: list[dict[str, float | int]] = [
        {"unit": unit, "row": row, "column": column, "hours": int(count), "stays": int(visits)}
        for unit, ((row, column), count, visits) in enumerate(
            zip(grid.coordinates.tolist(), every.sum(axis=0), (every > 0).sum(axis=0), strict=True)
        )
    ]
    label = hours.labels[hours.first_label]
    known = label >= 0
    quantities = {
        hours.first_label: (
            count_by_stay(hours, hours.units, grid.size, known, label),
            count_by_stay(hours, hours.units, grid.size, known),
        )
    }
    if "death" in hours.outcomes:
        quantities["death"] = deaths(hours, grid.size)
    for name, (part, whole) in quantities.items():

        def share(sums: Sums, part=part, whole=whole) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return sums(part) / sums(whole)

        value = share(all_stays(hours.number_of_stays))[0]
        bounds = np.full((2, grid.size), np.nan)
        if hours.number_of_stays > 1:
            drawn = draws(lambda sums, share=share: share(sums).T, hours.number_of_stays)
            with warnings.catch_warnings(action="ignore"):  # of units that win no hour at all
                bounds = np.nanquantile(drawn, (0.025, 0.975), axis=-1)
            bounds[:, np.ptp(bounds, axis=0) < 1e-9] = np.nan
        for row, centre, low, high in zip(rows, value, *bounds, strict=True):
            row |= {name: float(centre), f"{name}_low": float(low), f"{name}_high": float(high)}
    return rows


def unit_means(hours: Hours, number_of_units: int) -> np.ndarray:
    """Mean first label of the hours of each unit, `[K]`; NaN without any."""
    label = hours.labels[hours.first_label]
    known = label >= 0
    total = np.bincount(hours.units[known], label[known], minlength=number_of_units)
    count = np.bincount(hours.units[known], minlength=number_of_units)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def map_autocorrelation(hours: Hours, grid: Grid) -> dict[str, float]:
    """`morans_i`: do neighbouring units have similar scores? Moran's I of the used units' mean first label.

    Weights fall with the distance on the grid, `exp(-Manhattan distance)`. `morans_i_original` is what the code of
    T-DPSOM computes: a unit is its own neighbour, one without hours has score 0, deviations are from the mean of hours.
    """
    means = unit_means(hours, grid.size)
    weights = np.exp(-grid.distances("manhattan").numpy().astype(np.float64))
    label = hours.labels[hours.first_label]
    original = np.nan_to_num(means) - label[label >= 0].mean()
    used = ~np.isnan(means)
    neighbours = weights[np.ix_(used, used)] * (1 - np.eye(used.sum()))
    return {
        "morans_i": morans_i(means[used] - means[used].mean(), neighbours),
        "morans_i_original": morans_i(original, weights),
    }


def morans_i(deviations: np.ndarray, weights: np.ndarray) -> float:
    """`K / sum(w) * sum_ij w_ij d_i d_j / sum_i d_i^2` (Moran, 1950); NaN where nothing varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = deviations @ weights @ deviations / (deviations @ deviations)
        return float(len(deviations) / weights.sum() * shared)


# ------------------------------------------------------------------------------------------------- counts and intervals


def table(units: np.ndarray, labels: np.ndarray, number_of_units: int) -> np.ndarray:
    """How often each unit meets each label, `[K, labels]`."""
    classes = int(labels.max(initial=0)) + 1
    return np.bincount(units * classes + labels, minlength=number_of_units * classes).reshape(number_of_units, classes)


def nmi_geometric(counts: np.ndarray) -> np.ndarray:
    """Mutual information over the geometric mean of both entropies, of tables `[..., K, labels]`; NaN of empty ones."""

    def entropy(numbers: np.ndarray) -> np.ndarray:
        share = numbers / numbers.sum(axis=-1, keepdims=True)
        return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1)

    counts = np.asarray(counts, np.float64)
    of_units, of_labels = entropy(counts.sum(axis=-1)), entropy(counts.sum(axis=-2))
    mutual = of_units + of_labels - entropy(counts.reshape(*counts.shape[:-2], -1))
    scale = np.sqrt(of_units * of_labels)
    found = np.where(scale > 1e-12, np.maximum(mutual, 0) / np.where(scale > 1e-12, scale, 1), 0.0)
    return np.where(counts.any(axis=(-2, -1)), found, np.nan)


def count_by_stay(
    hours: Hours, cells: np.ndarray, number: int, chosen: np.ndarray, weights: np.ndarray | None = None
) -> sparse.csr_array:
    """`[N, number]`: how many of a stay's `chosen` hours fall into each cell, or the sum of their `weights`."""
    values = np.ones(chosen.sum()) if weights is None else weights[chosen].astype(np.float64)
    shape = (hours.number_of_stays, number)
    return sparse.coo_array((values, (hours.stays[chosen], cells[chosen])), shape).tocsr()


def interval(name: str, statistic: Callable[[Sums], np.ndarray], stays: int) -> dict[str, float]:
    """`<name>_low` and `<name>_high` of one number, a statistic as `draws` takes it; nothing of a single stay.

    Draws for which the statistic is NaN, such as those without a labelled hour, do not count.
    """
    if stays < 2:
        return {}
    centre = float(statistic(all_stays(stays))[0])
    half = 1.96 * float(np.nanstd(draws(statistic, stays), ddof=1))
    return {f"{name}_low": centre - half, f"{name}_high": centre + half}


def all_stays(stays: int) -> Sums:
    """Adds the rows of `[N, cells]` up, each once: `[1, cells]`."""
    return lambda counts: np.ones((1, stays)) @ counts


def draws(statistic: Callable[[Sums], np.ndarray], stays: int) -> np.ndarray:
    """The bootstrap distribution of a statistic of sums over at least two stays, `[..., RESAMPLES]`.

    Args:
        statistic: takes a function that adds the rows of `[N, cells]` up for each of R draws, `[R, cells]`; returns
            `[..., R]`.
        stays: N.
    """

    def of_draws(drawn: np.ndarray, axis: int) -> np.ndarray:
        drawn = np.atleast_2d(drawn)
        offsets = np.arange(len(drawn))[:, None] * stays
        times = np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * stays).reshape(len(drawn), stays)
        return statistic(lambda counts: times @ counts)

    with warnings.catch_warnings(action="ignore"):  # of draws in which a unit wins no hour
        return stats.bootstrap(
            (np.arange(stays),),
            of_draws,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=50,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution


def mean_with_interval(name: str, values: np.ndarray, with_interval: bool) -> dict[str, float]:
    """Mean of one value per stay, `[N]`, and its interval where asked for."""
    if not with_interval or not len(values):
        return {name: float(np.mean(values))} if len(values) else {}
    column = sparse.csr_array(np.asarray(values, np.float64)[:, None])
    bounds = interval(name, lambda sums: sums(column)[:, 0] / len(values), len(values))
    return {name: float(np.mean(values))} | bounds
