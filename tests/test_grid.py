"""The geometry of the map, for every small shape with and without torus."""

import math

from models.grid import Grid

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

METRICS = ("manhattan", "euclidean", "chebyshev")
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # down, up, right, left

patient = settings(deadline=None)  # the machine may be busy
grids = st.builds(Grid, st.integers(1, 6), st.integers(1, 6), st.booleans())
metrics = st.sampled_from(METRICS)


def shifted(grid, rows, columns):
    """`[K]`: the unit that a torus puts in each unit's place when it is rolled by so many rows and columns."""
    units = torch.arange(grid.size).view(grid.shape)
    return units.roll((rows, columns), dims=(0, 1)).flatten()


@patient
@given(grids)
def test_units_are_counted_row_by_row(grid):
    height, width = grid.shape
    assert grid.size == height * width
    assert grid.coordinates.tolist() == [[row, column] for row in range(height) for column in range(width)]


@patient
@given(grids, metrics)
def test_distances_are_a_metric_on_the_grid(grid, metric):
    distances = grid.distances(metric)
    assert torch.equal(distances, distances.t())
    assert torch.equal(distances == 0, torch.eye(grid.size, dtype=torch.bool))
    through = (distances[:, :, None] + distances[None]).amin(dim=1)  # the best detour over one unit
    assert (distances <= through + 1e-5).all()


@patient
@given(grids)
def test_distances_by_hand(grid):
    height, width = grid.shape
    combinations = {"manhattan": lambda a, b: a + b, "chebyshev": max, "euclidean": math.hypot}
    for metric, combine in combinations.items():
        distances = grid.distances(metric)
        for first in range(grid.size):
            for second in range(grid.size):
                down, right = abs(first // width - second // width), abs(first % width - second % width)
                if grid.torus:
                    down, right = min(down, height - down), min(right, width - right)
                assert distances[first, second].item() == pytest.approx(combine(down, right))


@patient
@given(st.integers(1, 6), st.integers(1, 6), metrics, st.integers(0, 5), st.integers(0, 5))
def test_a_torus_looks_the_same_from_everywhere(height, width, metric, rows, columns):
    grid = Grid(height, width, torus=True)
    moved = shifted(grid, rows, columns)
    assert torch.equal(grid.distances(metric)[moved][:, moved], grid.distances(metric))


@patient
@given(grids)
def test_neighbours_are_one_step_down_up_right_and_left(grid):
    height, width = grid.shape
    for unit, found in enumerate(grid.neighbours.tolist()):
        for (down, right), neighbour in zip(STEPS, found, strict=True):
            row, column = unit // width + down, unit % width + right
            inside = 0 <= row < height and 0 <= column < width
            expected = row % height * width + column % width if inside or grid.torus else -1
            assert neighbour == expected


@patient
@given(grids)
def test_neighbours_are_the_units_at_distance_one(grid):
    """A torus one unit high or wide also makes a unit its own neighbour."""
    for unit, row in enumerate(grid.distances("manhattan")):
        near = {neighbour for neighbour in grid.neighbours[unit].tolist() if neighbour not in (-1, unit)}
        assert near == set((row == 1).nonzero().flatten().tolist())


@patient
@given(st.integers(2, 6), st.integers(2, 6))
def test_corners_and_edges_lack_neighbours_only_without_torus(height, width):
    missing = (Grid(height, width, torus=False).neighbours == -1).sum(dim=1).tolist()
    assert missing.count(2) == 4
    assert missing.count(1) == 2 * (height - 2) + 2 * (width - 2)
    assert missing.count(0) == (height - 2) * (width - 2)
    assert (Grid(height, width, torus=True).neighbours >= 0).all()


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_a_map_of_one_row_is_a_chain_or_a_ring(shape):
    chain, ring = Grid(*shape, torus=False), Grid(*shape, torus=True)
    assert chain.distances()[0].tolist() == [0, 1, 2, 3, 4]
    assert ring.distances()[0].tolist() == [0, 1, 2, 2, 1]
    assert (chain.neighbours >= 0).sum(dim=1).tolist() == [1, 2, 2, 2, 1]


def test_on_a_torus_two_units_high_up_and_down_meet():
    grid = Grid(2, 4, torus=True)
    down, up, right, left = grid.neighbours.t()
    assert torch.equal(down, up)
    assert (right != left).all()


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (-1, 3)])
def test_an_empty_map_is_refused(height, width):
    with pytest.raises(ValueError, match=f"not {height} x {width}"):
        Grid(height, width, torus=True)
