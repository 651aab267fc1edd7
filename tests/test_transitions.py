"""Tables of transitions: counting, likelihood, drawn paths, and the pictures of them."""

from itertools import pairwise

from experiments.analyses import transitions
from experiments.analyses.transitions import (
    SeriesOnMap,
    Transitions,
    counted_transitions,
    evaluate_series,
    sampled_path,
    transition_metrics,
    transition_nll,
)
from experiments.drawing import figures_series
from experiments.ingredients.series import Series
from models.grid import Grid

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

GRID = Grid(2, 3, torus=False)


def moves_of(units):
    return torch.stack([units[:, :-1], units[:, 1:]], dim=2).view(-1, 2)


def walks(table, count, length):
    torch.manual_seed(0)
    return torch.tensor([sampled_path(table, index % len(table), length) for index in range(count)])


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(1)
    return (3 * torch.randn(6, 6)).softmax(dim=1)


def test_counting_equals_a_plain_loop():
    units = torch.randint(0, 4, (5, 7), generator=torch.Generator().manual_seed(0))
    counts = np.full((4, 4), 1 / 4)
    for sequence in units.tolist():
        for before, after in pairwise(sequence):
            counts[before, after] += 1
    expected = torch.from_numpy(counts / counts.sum(axis=1, keepdims=True)).float()
    torch.testing.assert_close(counted_transitions(moves_of(units), 4), expected)


def test_a_unit_that_never_occurs_may_lead_anywhere():
    assert torch.equal(counted_transitions(torch.zeros(3, 2, dtype=torch.long), 4)[3], torch.full((4,), 0.25))


def test_no_table_explains_sequences_better_than_their_own_counts(table):
    moves = moves_of(walks(table, 200, 40))
    counted = counted_transitions(moves, 6)
    assert transition_nll(counted, moves) < transition_nll(table, moves) < transition_nll(table.roll(1, 0), moves)
    assert (counted - table).abs().max() < 0.06


def test_walks_follow_their_table(table):
    following = [sampled_path(table, 2, 2)[1] for _ in range(3000)]
    often = (table[2] * 3000 > 5).numpy()
    observed = torch.bincount(torch.tensor(following), minlength=6).numpy()[often]
    expected = table[2].double().numpy()[often]
    assert chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-3


def test_the_graph_draws_where_used_units_go_when_they_do_not_stay(table):
    hits = np.array([4, 0, 2, 1, 5, 3])
    figure = figures_series.transition_graph(table.numpy(), hits, GRID)
    used = hits > 0
    moving = (table / (1 - table.diag()[:, None])).numpy()
    expected = [(i, j) for i in range(6) for j in range(6) if i != j and used[i] and used[j] and moving[i, j] >= 0.1]
    assert len(figure.axes[0].patches) == len(expected)
    (discs,) = figure.axes[0].collections
    assert len(discs.get_offsets()) == used.sum()


def test_the_graph_shows_units_that_never_move():
    assert not figures_series.transition_graph(np.eye(6), np.ones(6), GRID).axes[0].patches


def test_paths_join_the_units_of_their_sequences():
    paths = np.array([[0, 1, 5, 5], [3, 3, 0, 2]])
    lines = figures_series.paths_on_map(paths, GRID).axes[0].collections[1].get_segments()
    places = GRID.coordinates.numpy()[:, ::-1]
    for (start, end), before, after in zip(lines, paths[:, :-1].ravel(), paths[:, 1:].ravel(), strict=True):
        assert np.abs(start - places[before]).max() <= 0.25
        assert np.abs(end - places[after]).max() <= 0.25


def test_an_attractor_is_painted_in_the_colours_of_its_units():
    points, units = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 6
    colours = figures_series.unit_colours(GRID)
    assert len(np.unique(colours.round(3), axis=0)) == 6
    first, *_ = figures_series.attractor(points, units, GRID, ("x", "y", "z")).axes
    np.testing.assert_allclose(first.collections[0].get_facecolors()[:, :3], colours[units])


def test_film_strips_have_a_line_for_each_sequence():
    pictures = np.random.default_rng(0).random((2, 5, 1, 4, 4))
    axes = figures_series.film_strips(pictures, "Paths", "").axes[0]
    assert axes.images[0].get_array().shape[:2] == (8, 20)


def test_moves_go_forward_and_each_table_has_its_own_name():
    units = torch.tensor([[0, 1, 2], [3, 3, 1]])
    moves = SeriesOnMap(None, None, units).moves()
    assert moves.tolist() == [[0, 1], [1, 2], [3, 3], [3, 1]]
    torch.manual_seed(1)
    learned, counted = (3 * torch.randn(2, 6, 6)).softmax(dim=2)
    assert transition_metrics(Transitions(learned, counted), moves) == {
        "counted_transition_nll": transition_nll(counted, moves), "transition_nll": transition_nll(learned, moves),
    }  # fmt: skip
    assert transition_metrics(Transitions(None, counted), moves).keys() == {"counted_transition_nll"}


def test_transitions_are_counted_on_the_training_sequences(monkeypatch):
    monkeypatch.setattr(transitions, "draw_transitions", lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    units = {name: torch.randint(0, 6, (8, 9), generator=generator) for name in ("train", "validation", "test")}
    parts = {name: Series(found[..., None, None, None].float(), found) for name, found in units.items()}
    found = evaluate_series(
        None, parts, encode=lambda frames: frames.flatten(1), centroids=torch.arange(6.0)[:, None],
        grid=Grid(2, 3, False), learned=None, decoded=None, metrics_of=lambda *_: {}, step=1,
    )  # fmt: skip
    counted = counted_transitions(moves_of(units["train"]), 6)
    for name in ("validation", "test"):
        expected = transition_nll(counted, moves_of(units[name]))
        assert found[f"{name}_series/counted_transition_nll"] == pytest.approx(expected)
