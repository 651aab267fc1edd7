"""How good is a map? Agreement of its units with known classes, and preservation of topology.

Pure functions: NumPy arrays in, a dictionary of floats out. A value that is not defined for the given data is NaN.
"""

from models.grid import Grid

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

ROWS_AT_ONCE = 16_384
RANKED_POINTS = 2_000


def clustering_metrics(labels: np.ndarray, units: np.ndarray, number_of_units: int) -> dict[str, float]:
    """Agreement between classes `labels` [N] and the winning `units` [N] (integers in 0 … number_of_units - 1).

    - `nmi_geometric`, `nmi_arithmetic`: normalised mutual information, the normaliser being the geometric or the
      arithmetic mean of both entropies; `ami`: mutual information adjusted for chance (arithmetic mean); `ari`:
      adjusted Rand index. All from scikit-learn.
    - `purity`: share of points that carry the majority class of their unit. It never falls when units are split, so
      compare it only between maps of one size.
    - `accuracy`: share of points on the best one-to-one matching of units and classes (Hungarian method). With more
      units than classes only one unit can stand for each class and the points of all other units count as wrong, so
      a 64-unit map of ten balanced classes scores low however pure it is; with as many units as classes it is the
      usual clustering accuracy. It never exceeds purity.
    - `used_units`: number of units that win at least one point.

    Raises ValueError when there are no points, the lengths differ, or a unit lies outside the map.
    """
    labels, units = np.asarray(labels), np.asarray(units)
    if labels.ndim != 1 or labels.shape != units.shape or labels.size == 0:
        raise ValueError(f"labels and units must be vectors of one length ≥ 1, not {labels.shape} and {units.shape}")
    if units.min() < 0 or units.max() >= number_of_units:
        raise ValueError(f"units must lie in 0 … {number_of_units - 1}, found {units.min()} … {units.max()}")
    counts = contingency_matrix(labels, units)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "nmi_geometric": float(normalized_mutual_info_score(labels, units, average_method="geometric")),
        "nmi_arithmetic": float(normalized_mutual_info_score(labels, units, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(labels, units)),
        "ari": float(adjusted_rand_score(labels, units)),
        "purity": float(counts.max(axis=0).sum() / labels.size),
        "accuracy": float(matched / labels.size),
        "used_units": float(counts.shape[1]),
    }


def winners(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest and second-nearest unit of each of `points` [N, D] among `centroids` [K, D], and the way to the first.

    Returns units [N], runners-up [N] (-1 everywhere when K = 1) and Euclidean distances to the winner [N]. Equally
    near units: the lower index comes first.
    """
    points, centroids = np.asarray(points, np.float64), np.asarray(centroids, np.float64)
    first = np.empty(len(points), np.int64)
    second = np.full(len(points), -1, np.int64)
    distance = np.empty(len(points))
    squared_norms = (centroids**2).sum(axis=1)
    for start in range(0, len(points), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        # |x - c|² without |x|², which is the same for every unit
        relative = squared_norms - 2 * points[rows] @ centroids.T
        first[rows] = relative.argmin(axis=1)
        if len(centroids) > 1:
            relative[np.arange(len(relative)), first[rows]] = np.inf
            second[rows] = relative.argmin(axis=1)
        distance[rows] = np.linalg.norm(points[rows] - centroids[first[rows]], axis=1)
    return first, second, distance


def topology_metrics(points: np.ndarray, centroids: np.ndarray, grid: Grid) -> dict[str, float]:
    """How well the map with `centroids` [K, D] represents latent `points` [N, D] and keeps their neighbourhoods.

    - `quantization_error`: mean Euclidean distance (not squared) of a point to its winner, in latent units.
    - `topographic_error`: share of points whose best and second-best units are not neighbours in the
      8-neighbourhood of the grid (diagonals included); `topographic_error_4`: the same in the 4-neighbourhood.
      On a torus opposite edges touch. NaN on a map of one unit.
    - `trustworthiness`, `continuity` (Venna and Kaski 2001; 1 is best, about 0.5 is chance): are a point's k nearest
      points on the map also near in latent space, and the reverse? A point lies on the map where its winner lies;
      distances on the map are Euclidean between grid positions, around the torus where the grid is one.
      k is the number of points that a unit and its four neighbours hold on average, 5 N / K, and below N / 2: with a
      smaller k one would compare points within a unit and learn nothing of how the units are arranged.
      All points of one unit share one place, so ranks on the map are tied. Each value is the exact expectation when
      every tie is broken at random: deterministic, and independent of the order of points and units.
      Of more than 2,000 points a fixed random 2,000 are used. NaN below three points.

    Raises ValueError for arrays that do not fit together, no points, or values that are not finite.
    """
    points, centroids = np.asarray(points, np.float64), np.asarray(centroids, np.float64)
    if points.ndim != 2 or len(points) == 0 or centroids.shape != (grid.size, points.shape[1]):
        raise ValueError(f"points {points.shape} and centroids {centroids.shape} do not fit a map of {grid.size} units")
    if not (np.isfinite(points).all() and np.isfinite(centroids).all()):
        raise ValueError("points and centroids must be finite")
    between_units = grid.distances("euclidean").numpy()
    first, second, distance = winners(points, centroids)
    # grid distances are 0, 1, √2, 2, …: one step to a 4-neighbour, √2 to a diagonal one
    steps = between_units[first, second]

    chosen = np.random.default_rng(0).permutation(len(points))[:RANKED_POINTS]
    k = min(round(5 * len(chosen) / grid.size), (len(chosen) - 1) // 2)
    trustworthiness, continuity = _rank_preservation(points[chosen], first[chosen], between_units, max(k, 1))
    return {
        "quantization_error": float(distance.mean()),
        "topographic_error": float((steps > 1.5).mean()) if grid.size > 1 else float("nan"),
        "topographic_error_4": float((steps > 1.1).mean()) if grid.size > 1 else float("nan"),
        "trustworthiness": trustworthiness,
        "continuity": continuity,
    }


def _rank_preservation(points: np.ndarray, units: np.ndarray, between_units: np.ndarray, k: int) -> tuple[float, float]:
    """Expected trustworthiness and continuity of `points` [n, D] placed on `units` [n], ties broken at random.

    `k` nearest points, 1 ≤ k < n / 2; NaN below three points.
    scikit-learn's `trustworthiness` takes neither distances around a torus nor ties, hence our own. In each of the
    two spaces a pair (i, j) has a chance that j is among the k nearest of i, and an expected excess rank
    E[max(0, rank - k)]. The penalty of trustworthiness is chance on the map × excess in latent space; that of
    continuity is the reverse.
    """
    n = len(points)
    if n < 3:
        return float("nan"), float("nan")

    # Latent space: direct differences, so that duplicates are exactly tied. The point itself comes first, at rank 0.
    distances = cdist(points, points)
    np.fill_diagonal(distances, -1.0)
    order = distances.argsort(axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    rank = np.broadcast_to(np.arange(n), (n, n))
    starts = np.ones((n, n), bool)
    starts[:, 1:] = distances[:, 1:] != distances[:, :-1]
    ends = np.ones((n, n), bool)
    ends[:, :-1] = starts[:, 1:]
    nearer = np.maximum.accumulate(np.where(starts, rank, 0), axis=1) - 1
    not_farther = np.minimum.accumulate(np.where(ends, rank, n)[:, ::-1], axis=1)[:, ::-1]
    latent_chance, latent_excess = _chance_and_excess(nearer, not_farther, k)

    # The map: what holds for a pair of points follows from their units, so count points by unit and grid distance.
    levels, level = np.unique(np.rint(between_units**2), return_inverse=True)  # squares are whole numbers
    at_level = np.zeros((len(between_units), len(levels)))
    np.add.at(at_level, (np.arange(len(level))[:, None], level), np.bincount(units, minlength=len(level)))
    at_level[:, 0] -= 1  # not the point itself
    not_farther = at_level.cumsum(axis=1)
    map_chance, map_excess = _chance_and_excess(not_farther - at_level, not_farther, k)
    sources, targets = units[:, None], units[order]
    pair_level = level[sources, targets]
    map_chance, map_excess = map_chance[sources, pair_level], map_excess[sources, pair_level]

    worst = n * k * (2 * n - 3 * k - 1) / 2
    others = slice(1, None)
    trustworthiness = 1 - (map_chance * latent_excess)[:, others].sum() / worst
    continuity = 1 - (latent_chance * map_excess)[:, others].sum() / worst
    return float(trustworthiness), float(continuity)


def _chance_and_excess(nearer: np.ndarray, not_farther: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For a rank drawn evenly from nearer + 1 … not_farther: the chance of rank ≤ k, and E[max(0, rank - k)]."""
    tied = np.maximum(not_farther - nearer, 1)
    chance = np.clip(k - nearer, 0, tied) / tied
    low, high = np.maximum(nearer - k, 0), np.maximum(not_farther - k, 0)
    return chance, (high * (high + 1) - low * (low + 1)) / (2 * tied)
