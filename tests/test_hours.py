"""Metrics of hours: oracles from scikit-learn and PySAL, plain loops, and intervals that cover what they should."""

from experiments.measures.hours import (
    Hours,
    agreement,
    all_metrics,
    map_autocorrelation,
    mean_with_interval,
    morans_i,
    movement,
    nmi_geometric,
    unit_table,
)
from models.grid import Grid

import numpy as np
import pytest
from esda import Moran
from libpysal.weights import full2W
from sklearn.metrics import normalized_mutual_info_score

GRID = Grid(3, 4, torus=True)


def hours(stays=60, seed=0):
    """Stays of 1 … 10 hours whose score follows their unit; the last hour of each has no label."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 11, stays)
    of_stay = np.repeat(np.arange(stays), lengths)
    units = generator.integers(0, GRID.size - 1, len(of_stay))
    score = units // 3 + generator.integers(0, 3, len(of_stay))
    score[np.append(of_stay[1:] != of_stay[:-1], True)] = -1
    death = (generator.random(stays) < 0.3).astype(np.float32)
    death[3] = np.nan
    return Hours(units, of_stay, {"score_1": score, "score_6": np.minimum(score, 1)}, {"death": death})


def test_nmi_of_counts_is_scikit_learns():
    data = hours()
    known = data.labels["score_1"] >= 0
    expected = normalized_mutual_info_score(
        data.labels["score_1"][known], data.units[known], average_method="geometric"
    )
    assert agreement(data, GRID.size)["nmi_geometric_score_1"] == pytest.approx(expected)
    found = all_metrics(data, GRID.size)
    assert found["nmi_geometric_score_1"] == pytest.approx(expected)
    middle = (found["nmi_geometric_score_1_low"] + found["nmi_geometric_score_1_high"]) / 2
    assert found["nmi_geometric_score_1_low"] < middle == pytest.approx(expected)
    assert nmi_geometric(np.array([[5, 0], [0, 5]])) == pytest.approx(1)
    assert nmi_geometric(np.array([[5, 5]])) == 0


def test_draws_without_a_labelled_hour_do_not_count():
    assert np.isnan(nmi_geometric(np.zeros((2, 2))))
    of_stay, units = np.repeat(np.arange(10), 4), np.tile([0, 1, 2, 3], 10)
    score = np.where(of_stay < 2, units // 2, -1)  # agrees alike in any draw that holds one of the two
    found = all_metrics(Hours(units, of_stay, {"score_1": score}, {"death": np.full(10, np.nan)}), GRID.size)
    assert found["nmi_geometric_score_1_low"] == pytest.approx(found["nmi_geometric_score_1"])


def test_the_purity_of_two_known_deaths_has_an_interval():
    of_stay, units = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    death = np.array([1.0, 0.0] + [np.nan] * 8)
    found = all_metrics(Hours(units, of_stay, {}, {"death": death}), GRID.size)
    assert found["purity_death"] == pytest.approx(0.5)
    assert found["purity_death_low"] < 0.5 < found["purity_death_high"]


def test_purity_of_death_and_units_equal_plain_loops():
    data = hours()
    death = data.outcomes["death"][data.stays]
    most = 0
    table = unit_table(data, GRID)
    for unit in range(GRID.size):
        mine = data.units == unit
        dead, alive = (mine & (death == 1)).sum(), (mine & (death == 0)).sum()
        most += max(dead, alive)
        row = table[unit]
        assert (row["row"], row["column"]) == divmod(unit, 4)
        assert row["hours"] == mine.sum()
        assert row["stays"] == len(np.unique(data.stays[mine]))
        if not mine.any():
            assert np.isnan(row["death"])
            continue
        assert row["death"] == pytest.approx(dead / (dead + alive))
        known = mine & (data.labels["score_1"] >= 0)
        assert row["score_1"] == pytest.approx(data.labels["score_1"][known].mean())
        assert row["score_1_low"] <= row["score_1"] <= row["score_1_high"]
    assert all_metrics(data, GRID.size)["purity_death"] == pytest.approx(most / (~np.isnan(death)).sum())


def test_units_whose_stays_all_survived_have_no_interval():
    data = hours()
    data.outcomes["death"][np.unique(data.stays[data.units == 2])] = 0
    spared, other = unit_table(data, GRID)[2:4]
    assert spared["death"] == 0 < other["death_low"]
    assert np.isnan([spared["death_low"], spared["death_high"]]).all()
    assert spared["score_1_low"] < spared["score_1_high"]


def test_movement_ends_with_the_stay():
    data = Hours(np.array([0, 0, 1, 11, 5]), np.array([0, 0, 0, 1, 1]), {}, {})
    assert data.moves().tolist() == [[0, 0], [0, 1], [11, 5]]
    steps = GRID.distances()[11, 5].item()
    assert movement(data, GRID) == {"unit_changes": pytest.approx(2 / 3), "jump": pytest.approx((0 + 1 + steps) / 3)}
    assert movement(Hours(np.array([0, 1]), np.array([0, 1]), {}, {}), GRID) == {}


def test_morans_i_is_pysals():
    values = np.random.default_rng(1).normal(size=GRID.size)
    weights = np.exp(-GRID.distances().numpy().astype(float))
    np.fill_diagonal(weights, 0)
    expected = Moran(values, full2W(weights), transformation="O", permutations=0).I
    assert morans_i(values - values.mean(), weights) == pytest.approx(expected)


def test_map_autocorrelation_knows_a_smooth_map_from_a_shuffled_one():
    grid = Grid(6, 6, torus=True)
    units = np.repeat(np.arange(grid.size), 5)
    smooth = np.rint(4 + 4 * np.sin(2 * np.pi * grid.coordinates[:, 0].numpy() / 6)).astype(int)
    stays = np.arange(len(units))
    ordered = map_autocorrelation(Hours(units, stays, {"score_1": smooth[units]}, {}), grid)
    shuffled = np.random.default_rng(0).permutation(smooth)
    mixed = map_autocorrelation(Hours(units, stays, {"score_1": shuffled[units]}, {}), grid)
    assert ordered["morans_i"] > 0.4 > 0.2 > mixed["morans_i"]


def test_original_morans_i_counts_empty_units_as_zero():
    grid = Grid(1, 3, torus=False)
    data = Hours(np.array([0, 0, 1]), np.arange(3), {"score_1": np.array([2, 4, 6])}, {})
    deviations = [3 - 4, 6 - 4, 0 - 4]
    weights = [[np.exp(-abs(i - j)) for j in range(3)] for i in range(3)]
    cross = sum(weights[i][j] * deviations[i] * deviations[j] for i in range(3) for j in range(3))
    expected = 3 / np.sum(weights) * cross / sum(d * d for d in deviations)
    assert map_autocorrelation(data, grid)["morans_i_original"] == pytest.approx(expected)


def test_intervals_are_those_of_the_mean():
    values = np.random.default_rng(2).normal(3, 2, 400)
    found = mean_with_interval("error", values, True)
    assert found["error"] == pytest.approx(values.mean())
    assert found["error_low"] < found["error"] < found["error_high"]
    assert mean_with_interval("error", values, False) == {"error": pytest.approx(values.mean())}


def test_morans_i_leaves_out_units_without_hours():
    data = Hours(np.array([0, 0, 1]), np.arange(3), {"score_1": np.array([2, 4, 6])}, {})
    assert map_autocorrelation(data, Grid(1, 3, torus=False))["morans_i"] == pytest.approx(-1)


def test_intervals_hold_95_percent():
    values = np.random.default_rng(2).normal(3, 2, 400)
    found = mean_with_interval("error", values, True)
    assert found["error_high"] - found["error_low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    died = np.random.default_rng(3).random(400) < 0.3
    data = Hours(np.zeros(400, int), np.arange(400), {"score_1": died.astype(int)}, {"death": died.astype(np.float32)})
    row, half = unit_table(data, Grid(1, 1, False))[0], 1.96 * died.std() / 20
    for name in ("score_1", "death"):
        assert row[f"{name}_high"] - row[f"{name}_low"] == pytest.approx(2 * half, rel=0.1)
