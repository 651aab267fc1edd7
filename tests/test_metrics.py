"""The metrics against independent oracles: definitions by brute force, MiniSom, scikit-learn."""

import itertools
import time

from experiments.measures.metrics import (
    RANKED_POINTS,
    _rank_preservation,
    clustering_metrics,
    topology_metrics,
    winners,
)
from models.grid import Grid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minisom import MiniSom
from sklearn.manifold import trustworthiness
from sklearn.metrics import mutual_info_score
from threadpoolctl import threadpool_limits

TOPOLOGY = {"quantization_error", "topographic_error", "topographic_error_4", "trustworthiness", "continuity"}


def assignments(max_units=6):
    """Labels and units of the same points."""
    pairs = st.tuples(st.integers(0, 4), st.integers(0, max_units - 1))
    return st.lists(pairs, min_size=1, max_size=40).map(lambda rows: tuple(np.array(rows).T))


def entropy(*variables):
    _, counts = np.unique(np.stack(variables), axis=1, return_counts=True)
    shares = counts / counts.sum()
    return -(shares * np.log(shares)).sum()


# Clustering


@given(assignments())
def test_nmi_by_entropies(pair):
    labels, units = pair
    found = clustering_metrics(labels, units, 6)
    of_labels, of_units = entropy(labels), entropy(units)
    shared = of_labels + of_units - entropy(labels, units)
    if min(of_labels, of_units) > 0:
        assert found["nmi_geometric"] == pytest.approx(shared / np.sqrt(of_labels * of_units), abs=1e-9)
        assert found["nmi_arithmetic"] == pytest.approx(2 * shared / (of_labels + of_units), abs=1e-9)


@settings(max_examples=50)
@given(assignments())
def test_ari_by_counting_pairs(pair):
    labels, units = pair
    together = [
        (labels[i] == labels[j], units[i] == units[j]) for i, j in itertools.combinations(range(len(labels)), 2)
    ]
    both, of_labels, of_units = (
        sum(rule(*pair) for pair in together) for rule in (min, lambda a, _: a, lambda _, b: b)
    )
    expected, most = of_labels * of_units / max(len(together), 1), (of_labels + of_units) / 2
    if most != expected:
        assert clustering_metrics(labels, units, 6)["ari"] == pytest.approx((both - expected) / (most - expected))


@settings(max_examples=50)
@given(assignments(max_units=4))
def test_purity_and_accuracy_by_trying_everything(pair):
    labels, units = pair
    found = clustering_metrics(labels, units, 4)
    majority = sum(max((labels[units == unit] == label).sum() for label in labels) for unit in set(units.tolist()))
    # four units, five classes: every way to give each unit a class of its own
    matched = max((np.array(names)[units] == labels).sum() for names in itertools.permutations(range(5), 4))
    assert found["purity"] == majority / len(labels)
    assert found["accuracy"] == matched / len(labels)


@given(assignments(), st.permutations(range(5)), st.permutations(range(6)), st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(pair, new_labels, new_units, random):
    labels, units = pair
    order = random.sample(range(len(labels)), len(labels))
    renamed = clustering_metrics(np.array(new_labels)[labels][order], np.array(new_units)[units][order], 6)
    assert renamed == pytest.approx(clustering_metrics(labels, units, 6), abs=1e-9)


@given(assignments())
def test_bounds(pair):
    labels, units = pair
    found = clustering_metrics(labels, units, 6)
    classes = len(set(labels.tolist()))
    assert 0 < found["accuracy"] <= found["purity"] <= 1
    assert found["purity"] >= 1 / classes
    assert found["used_units"] == len(set(units.tolist()))
    assert -1e-9 <= found["nmi_arithmetic"] <= found["nmi_geometric"] + 1e-9
    assert found["nmi_geometric"] <= 1 + 1e-9
    assert max(found["ami"], found["ari"]) <= 1 + 1e-9
    assert all(isinstance(value, float) for value in found.values())


def test_perfect_clustering_scores_one_everywhere():
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    found = clustering_metrics(labels, np.array([7, 7, 3, 3, 5, 5, 5]), 8)
    assert found.pop("used_units") == 3
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


def test_splitting_classes_keeps_purity_and_costs_accuracy():
    labels = np.repeat([0, 1], 20)
    found = clustering_metrics(labels, np.arange(40) // 5, 8)
    assert found["purity"] == 1
    assert found["accuracy"] == 10 / 40  # two of eight equal units can be matched


@pytest.mark.parametrize(
    ("labels", "units", "nmi", "purity"),
    [([0, 1, 2, 0], [3, 3, 3, 3], 0, 0.5), ([2, 2, 2], [0, 1, 2], 0, 1), ([5], [1], 1, 1)],
)
def test_one_unit_one_class_one_point(labels, units, nmi, purity):
    found = clustering_metrics(np.array(labels), np.array(units), 4)
    assert found["nmi_geometric"] == pytest.approx(nmi, abs=1e-12)
    assert found["purity"] == purity
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(("labels", "units"), [([], []), ([0, 1], [0]), ([0, 1], [0, 4]), ([0, 1], [-1, 0])])
def test_impossible_assignments_are_refused(labels, units):
    with pytest.raises(ValueError, match="units"):
        clustering_metrics(np.array(labels, int), np.array(units, int), 4)


# Topology


def random_map(seed=0, shape=(5, 7), torus=False, number=400, dimension=6):
    random = np.random.default_rng(seed)
    grid = Grid(*shape, torus)
    return random.normal(size=(number, dimension)), random.normal(size=(grid.size, dimension)), grid


def steps_between(grid, a, b):
    """Rows and columns from unit a to unit b by trying every way around."""
    (height, width), turns = grid.shape, (-1, 0, 1) if grid.torus else (0,)
    rows, columns = a // width - b // width, a % width - b % width
    return min(abs(rows + t * height) for t in turns), min(abs(columns + t * width) for t in turns)


@pytest.mark.parametrize("torus", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (1, 9), (2, 3), (12, 4)])
def test_errors_by_brute_force(shape, torus):
    points, centroids, grid = random_map(shape=shape, torus=torus)
    to_winner, wrong, wrong_4 = [], [], []
    for point in points:
        distances = [float(np.sqrt(((point - centroid) ** 2).sum())) for centroid in centroids]
        best, second = sorted(range(grid.size), key=distances.__getitem__)[:2]
        rows, columns = steps_between(grid, best, second)
        to_winner.append(distances[best])
        wrong.append(max(rows, columns) > 1)
        wrong_4.append(rows + columns > 1)
    found = topology_metrics(points, centroids, grid)
    assert found["quantization_error"] == pytest.approx(np.mean(to_winner), rel=1e-12)
    assert found["topographic_error"] == np.mean(wrong)
    assert found["topographic_error_4"] == np.mean(wrong_4)


@pytest.mark.parametrize("shape", [(8, 8), (4, 12)])
def test_errors_against_minisom(shape):
    points, centroids, grid = random_map(seed=3, shape=shape)
    som = MiniSom(*shape, points.shape[1], random_seed=0)
    som._weights = centroids.reshape(*shape, -1)
    for steps in (0, 2000):  # an unordered and an ordered map
        som.train(points, steps) if steps else None
        found = topology_metrics(points, som.get_weights().reshape(grid.size, -1), grid)
        assert found["quantization_error"] == pytest.approx(som.quantization_error(points), rel=1e-9)
        assert found["topographic_error"] == pytest.approx(som.topographic_error(points), abs=1e-12)


def test_winners_across_chunks_and_in_single_precision():
    points, centroids, _ = random_map(number=20_000, dimension=3)
    first, second, distance = winners(points.astype(np.float32), centroids.astype(np.float32))
    exact = np.linalg.norm(points[:, None].astype(np.float32) - centroids.astype(np.float32), axis=2)
    order = exact.argsort(axis=1)
    assert (first == order[:, 0]).mean() > 0.9999
    assert (second == order[:, 1]).mean() > 0.9999
    assert distance == pytest.approx(exact.min(axis=1), abs=1e-6)


def test_far_from_the_origin_distances_stay_exact():
    points, centroids, grid = random_map()
    near, far = topology_metrics(points, centroids, grid), topology_metrics(points + 1e4, centroids + 1e4, grid)
    assert far == pytest.approx(near, rel=1e-6)


def rank_preservation_by_lot(points, units, grid, k, draws=4000):
    """Trustworthiness and continuity by their definition, ties in both spaces broken by lot, averaged over draws."""
    random, n = np.random.default_rng(0), len(points)
    latent = np.linalg.norm(points[:, None] - points[None], axis=2)
    on_map = np.array([[np.hypot(*steps_between(grid, a, b)) for b in units] for a in units])
    totals = np.zeros(2)
    for _ in range(draws):
        ranks = []
        for distances in (latent, on_map):
            distances = distances + random.uniform(0, 1e-6, distances.shape)
            np.fill_diagonal(distances, -1)
            ranks.append(distances.argsort(axis=1).argsort(axis=1))
        for index, (near, far) in enumerate([(ranks[1], ranks[0]), (ranks[0], ranks[1])]):
            totals[index] += np.maximum(far - k, 0)[(near >= 1) & (near <= k)].sum()
    return 1 - totals / draws * 2 / (n * k * (2 * n - 3 * k - 1))


@pytest.mark.parametrize(("torus", "k"), [(False, 3), (True, 3), (True, 1), (True, 8)])
def test_ranks_with_ties_are_the_mean_over_lots(torus, k):
    points, centroids, grid = random_map(seed=1, shape=(3, 4), torus=torus, number=24, dimension=2)
    points = points.round()  # some coincide, many are equally far from each other
    units = winners(points, centroids)[0]
    found = _rank_preservation(points, units, grid.distances("euclidean").numpy(), k)
    assert found == pytest.approx(rank_preservation_by_lot(points, units, grid, k), abs=0.003)


def test_ranks_against_scikit_learn():
    """One point per unit of a 1 × K map: jitter decides its two-fold ties evenly, so scikit-learn's mean is ours."""
    random = np.random.default_rng(0)
    points, grid, k = random.normal(size=(40, 3)), Grid(1, 40, False), 5
    units = random.permutation(40)
    trust, continuity = _rank_preservation(points, units, grid.distances("euclidean").numpy(), k)
    places = [(units + random.uniform(-0.01, 0.01, 40))[:, None] for _ in range(800)]
    assert trust == pytest.approx(
        np.mean([trustworthiness(points, place, n_neighbors=k) for place in places]), abs=3e-3
    )
    # continuity is trustworthiness with the spaces exchanged
    reverse = [trustworthiness(place, points, n_neighbors=k) for place in places]
    assert continuity == pytest.approx(np.mean(reverse), abs=3e-3)


@pytest.mark.parametrize("torus", [False, True])
@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_only_a_torus_can_be_rolled(torus, seed, rows, columns):
    points, centroids, grid = random_map(seed=seed, torus=torus, number=150)
    rolled = np.roll(centroids.reshape(*grid.shape, -1), (rows, columns), axis=(0, 1)).reshape(centroids.shape)
    before, after = topology_metrics(points, centroids, grid), topology_metrics(points, rolled, grid)
    if torus:
        assert after == pytest.approx(before, abs=1e-9)
    else:
        assert after["quantization_error"] == pytest.approx(before["quantization_error"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_reflection_order_and_scale_change_nothing(seed, torus):
    points, centroids, grid = random_map(seed=seed, torus=torus, number=120)
    points = points.round()  # ties in latent space
    found = topology_metrics(points, centroids, grid)
    mirrored = centroids.reshape(*grid.shape, -1)[:, ::-1].reshape(centroids.shape)
    again = topology_metrics(np.random.default_rng(seed).permutation(points), mirrored, grid)
    assert again == pytest.approx(found, abs=1e-9)
    scaled = topology_metrics(4 * points, 4 * centroids, grid)
    assert scaled.pop("quantization_error") == pytest.approx(4 * found.pop("quantization_error"))
    assert scaled == pytest.approx(found, abs=1e-9)
    assert all(0 <= value <= 1 for value in found.values())


def test_ordered_map_beats_the_same_units_shuffled():
    random = np.random.default_rng(0)
    grid = Grid(8, 8, False)
    centroids = grid.coordinates.numpy().astype(float)
    points = random.uniform(-0.5, 7.5, size=(3000, 2))
    ordered = topology_metrics(points, centroids, grid)
    shuffled = topology_metrics(points, random.permutation(centroids), grid)
    assert ordered["quantization_error"] == pytest.approx(shuffled["quantization_error"])
    assert ordered["topographic_error"] == ordered["topographic_error_4"] == 0
    assert min(ordered["trustworthiness"], ordered["continuity"]) > 0.95
    assert max(shuffled["trustworthiness"], shuffled["continuity"]) < 0.7
    assert shuffled["topographic_error_4"] >= shuffled["topographic_error"] > 0.7


def test_edges_meet_only_on_a_torus():
    """Points between the two ends of a chain that is bent into a ring."""
    angles = 2 * np.pi * np.arange(12) / 12
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.array([[np.cos(-np.pi / 12 + tilt), np.sin(-np.pi / 12 + tilt)] for tilt in (-0.1, 0, 0.1)])
    for grid, error in ((Grid(1, 12, True), 0), (Grid(1, 12, False), 1), (Grid(12, 1, True), 0)):
        found = topology_metrics(points, centroids, grid)
        assert found["topographic_error"] == found["topographic_error_4"] == error


def test_diagonal_neighbours_count_in_the_8_neighbourhood_only():
    centroids = np.array([[0.0, 0], [9, 9], [9, -9], [1, 0]])  # units (0, 0) and (1, 1) are nearest to each other
    found = topology_metrics(np.array([[0.4, 0.0]]), centroids, Grid(2, 2, False))
    assert (found["topographic_error"], found["topographic_error_4"]) == (0, 1)


def test_large_sets_are_ranked_on_a_fixed_subsample():
    points, centroids, grid = random_map(number=RANKED_POINTS + 500)
    found = topology_metrics(points, centroids, grid)
    assert found == topology_metrics(points, centroids, grid)
    everything = _rank_preservation(points, winners(points, centroids)[0], grid.distances("euclidean").numpy(), 357)
    assert (found["trustworthiness"], found["continuity"]) == pytest.approx(everything, abs=0.01)


@pytest.mark.parametrize("torus", [False, True])
def test_one_unit_used_is_chance(torus):
    points, centroids, grid = random_map(torus=torus)
    centroids[1:] += 1e3
    found = topology_metrics(points, centroids, grid)
    assert found.keys() == TOPOLOGY
    assert found["trustworthiness"] == pytest.approx(found["continuity"])
    assert 0.4 < found["trustworthiness"] < 0.6


def test_what_is_not_defined_is_nan():
    one_unit = topology_metrics(np.eye(4), np.zeros((1, 4)), Grid(1, 1, True))
    assert one_unit["quantization_error"] == 1
    assert np.isnan([one_unit["topographic_error"], one_unit["topographic_error_4"]]).all()
    assert np.isfinite([one_unit["trustworthiness"], one_unit["continuity"]]).all()
    one_point = topology_metrics(np.ones((1, 2)), np.array([[1.0, 1], [1, 0]]), Grid(1, 2, False))
    assert (one_point["quantization_error"], one_point["topographic_error"]) == (0, 0)
    assert np.isnan([one_point["trustworthiness"], one_point["continuity"]]).all()


@pytest.mark.parametrize(
    ("points", "centroids"),
    [
        (np.zeros((0, 2)), np.zeros((4, 2))),
        (np.zeros((5, 2)), np.zeros((3, 2))),
        (np.zeros((5, 3)), np.zeros((4, 2))),
        (np.full((5, 2), np.nan), np.zeros((4, 2))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(points, centroids):
    with pytest.raises(ValueError, match="points"):
        topology_metrics(points, centroids, Grid(2, 2, False))


def test_the_test_set_takes_about_a_second_of_one_core():
    points, centroids, grid = random_map(shape=(8, 8), torus=True, number=10_000, dimension=100)
    labels = np.arange(len(points)) % 10
    with threadpool_limits(1):
        start = time.process_time()
        topology_metrics(points, centroids, grid)
        clustering_metrics(labels, winners(points, centroids)[0], grid.size)
        assert time.process_time() - start < 3  # generous: about 0.5 s alone on a core


def test_ami_is_adjusted_by_the_mean_over_shuffled_units():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    units = 2 * labels + random.integers(0, 2, 60) + 3 * (random.random(60) < 0.2)
    chance = np.mean([mutual_info_score(labels, random.permutation(units)) for _ in range(1500)])
    entropies = (mutual_info_score(labels, labels) + mutual_info_score(units, units)) / 2
    expected = (mutual_info_score(labels, units) - chance) / (entropies - chance)
    assert clustering_metrics(labels, units, 9)["ami"] == pytest.approx(expected, abs=0.01)


def test_the_subsample_is_of_the_whole_set():
    random, grid = np.random.default_rng(0), Grid(4, 4, False)
    centroids = grid.coordinates.numpy().astype(float)
    points = np.concatenate([random.normal(0, 0.1, (2000, 2)), random.uniform(-0.5, 3.5, (2000, 2))])
    assert topology_metrics(points, centroids, grid) == pytest.approx(
        topology_metrics(points[::-1], centroids, grid), abs=0.03
    )
