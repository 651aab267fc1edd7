"""The description of ways over a map that a report reads."""

from dataclasses import replace

from experiments.datasets.stays import GENERATED, Channel, Description, Stays
from experiments.drawing.trajectories import CHOSEN, TRAJECTORIES, chosen_stays, label_spread, write_trajectories
from experiments.measures.hours import Hours, unit_table
from models.grid import Grid

import numpy as np
import pytest
import torch

GRID = Grid(3, 4, torus=True)
STAYS, LONGEST, CHANNELS = 40, 9, 3


@pytest.fixture
def patients() -> Stays:
    """Stays of five to nine hours; some hours have no score, the last stay has none at all, a third dies."""
    torch.manual_seed(0)
    lengths = torch.randint(5, LONGEST + 1, (STAYS,), dtype=torch.int32)
    behind = torch.arange(LONGEST) >= lengths[:, None]
    scores = torch.randint(-1, 8, (STAYS, LONGEST), dtype=torch.int16)
    scores[-1] = -1
    return Stays(
        inputs=torch.randn(STAYS, LONGEST, CHANNELS).masked_fill(behind[..., None], 0),
        observed=torch.ones(STAYS, LONGEST, CHANNELS, dtype=torch.bool) & ~behind[..., None],
        lengths=lengths,
        labels={"score_1": scores.masked_fill(behind, -1), "score_6": torch.full((STAYS, LONGEST), -1).to(torch.int16)},
        outcomes={"death": torch.where(torch.arange(STAYS) % 3 == 0, 1.0, 0.0)},
        static=torch.zeros(STAYS, 0),
        split=torch.ones(STAYS, dtype=torch.int8),
        description=Description("Test", tuple(Channel(name, "", 0.0, 1.0) for name in "xyz"), (), ""),
    )


def generated(stays: Stays) -> Stays:
    description = replace(
        stays.description, checksum=GENERATED, time="time", step=0.5, classes={"score_1": [f"c{n}" for n in range(8)]}
    )
    return replace(stays, outcomes={}, description=description)


def written(folder, stays: Stays) -> tuple[dict[str, np.ndarray], Hours]:
    random = np.random.default_rng(0)
    hours = Hours.of(stays, random.integers(0, GRID.size - 1, int(stays.lengths.sum())))  # the last unit wins nothing
    centroids = random.normal(size=(GRID.size, 4))
    path = write_trajectories(folder, stays, hours, GRID, centroids, unit_table(hours, GRID))
    assert path == folder / TRAJECTORIES
    assert path.stat().st_size < 100_000
    return dict(np.load(path, allow_pickle=False)), hours


def test_spread_of_the_longest_stays(patients):
    expected = []
    for length, scores in zip(patients.lengths.tolist(), patients.labels["score_1"].tolist(), strict=True):
        known = [score for score in scores[:length] if score >= 0]
        expected.append(max(known) - min(known) if known and length == LONGEST else -1)
    assert label_spread(patients).tolist() == expected


def test_half_of_the_chosen_die_and_each_half_rises_in_spread(patients):
    chosen, spread = chosen_stays(patients), label_spread(patients)
    assert patients.outcomes["death"][chosen].tolist() == [0, 0, 0, 1, 1, 1]
    deaths = patients.outcomes["death"].numpy()
    for end, half in ((0, chosen[:3]), (1, chosen[3:])):
        possible = spread[(deaths == end) & (spread >= 0)]
        assert list(spread[half]) == sorted(spread[half])
        assert (spread[half[0]], spread[half[-1]]) == (possible.min(), possible.max())


def test_without_labels_the_first_are_chosen(patients):
    nothing = {name: torch.full_like(label, -1) for name, label in patients.labels.items()}
    assert chosen_stays(replace(patients, labels=nothing)).tolist() == list(range(CHOSEN))


def test_what_is_told_of_units(patients, tmp_path):
    arrays, hours = written(tmp_path, patients)
    np.testing.assert_array_equal(arrays["hits"], np.bincount(hours.units, minlength=GRID.size))
    for unit in range(GRID.size):
        scores = hours.labels["score_1"][hours.units == unit]
        assert arrays["counts"][unit].tolist() == [(scores == score).sum() for score in range(8)]
        assert arrays["stays"][unit] == len(set(hours.stays[hours.units == unit]))
        if len(scores):
            dead = hours.outcomes["death"][hours.stays[hours.units == unit]]
            means = [scores[scores >= 0].mean(), dead.mean()]
            np.testing.assert_allclose(arrays["means"][:, unit, 0], means, rtol=1e-6)
            assert (arrays["means"][:, unit, 1] <= arrays["means"][:, unit, 2]).all()
        else:
            assert np.isnan(arrays["means"][:, unit]).all()
    assert list(arrays["quantities"]) == ["mean score_1", "share of hours before a death"]
    assert list(arrays["classes"]) == [str(score) for score in range(8)]


def test_ways_are_those_of_the_chosen_stays(patients, tmp_path):
    arrays, hours = written(tmp_path, patients)
    assert arrays["lengths"].tolist() == [LONGEST] * CHOSEN
    ends = arrays["lengths"].cumsum()
    for stay, end, death in zip(chosen_stays(patients), ends, arrays["deaths"], strict=True):
        rows = hours.stays == stay
        np.testing.assert_array_equal(arrays["path_units"][end - LONGEST : end], hours.units[rows])
        np.testing.assert_array_equal(arrays["path_labels"][end - LONGEST : end], hours.labels["score_1"][rows])
        assert death == patients.outcomes["death"][stay]
    assert (arrays["time"].item(), arrays["step"].item()) == ("hour", 1)


def test_nothing_measured_of_a_patient_is_told(patients, tmp_path):
    arrays, _ = written(tmp_path, patients)
    measured = {name for name, values in arrays.items() if "points" in name and values.size}
    assert not measured
    assert arrays["channels"].size == arrays["point_units"].size == 0
    changed = replace(patients, inputs=patients.inputs * 2)
    again, _ = written(tmp_path, changed)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)


def test_points_are_told_of_generated_data(patients, tmp_path):
    stays = generated(patients)
    arrays, hours = written(tmp_path, stays)
    points = stays.inputs[stays.mask].numpy()
    np.testing.assert_allclose(arrays["points"] / 100, points, atol=0.0051)
    np.testing.assert_array_equal(arrays["point_units"], hours.units)
    chosen = np.concatenate([points[hours.stays == stay] for stay in chosen_stays(stays)])
    np.testing.assert_allclose(arrays["path_points"] / 100, chosen, atol=0.0051)
    assert list(arrays["channels"]) == ["x", "y", "z"]
    assert list(arrays["classes"]) == [f"c{n}" for n in range(8)]
    assert np.isnan(arrays["deaths"]).all()
    assert (arrays["time"].item(), arrays["step"].item()) == ("time", 0.5)
