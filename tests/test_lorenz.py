"""Lorenz' attractor: the trajectories solve the equations, are normalised and labelled by their wing."""

from functools import partial
from pathlib import Path

from experiments.ingredients import cohorts
from experiments.ingredients.lorenz import derivative, lorenz_trajectories

import numpy as np
import pytest
import torch

SETTINGS = dict(trajectories=[20, 5, 5], length=60, step=0.05, transient=10.0, noise=0.0)


def test_shapes_and_normalisation():
    inputs, labels = lorenz_trajectories(**SETTINGS)
    assert inputs.shape == (30, 60, 3)
    assert labels.shape == (30, 60)
    training = inputs[:20].double()
    np.testing.assert_allclose(training.mean(dim=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(training.std(dim=(0, 1), correction=0), 1, atol=1e-5)
    assert 0.3 < labels.double().mean() < 0.7
    assert inputs[0, 0].tolist() != inputs[1, 0].tolist()


def test_derivative_at_known_points():
    states = np.array([[1.0, -4.0], [2.0, 5.0], [20.0, 30.0]])
    np.testing.assert_allclose(derivative(states), [[10, 90], [6, 3], [2 - 160 / 3, -20 - 80]])


def test_points_follow_one_another_as_the_equations_say():
    """dx/dt = 10 (y - x): central differences of the normalised x are linear in the normalised x and y."""
    inputs, labels = lorenz_trajectories(**SETTINGS | {"step": 0.001})
    x, y, _ = inputs.double().numpy().transpose(2, 0, 1)
    assert x[labels == 0].max() < x[labels == 1].min()  # one border between the wings
    velocity = ((x[:, 2:] - x[:, :-2]) / 0.002).ravel()
    design = np.stack([x[:, 1:-1].ravel(), y[:, 1:-1].ravel(), np.ones_like(velocity)], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, velocity)
    np.testing.assert_allclose(design @ coefficients, velocity, atol=0.01 * np.abs(velocity).max())
    assert coefficients[0] == pytest.approx(-10, rel=0.01)


def test_the_step_is_the_time_between_points():
    now, _ = lorenz_trajectories(**SETTINGS | {"trajectories": [5, 1, 1], "transient": 0.0})
    twice, _ = lorenz_trajectories(**SETTINGS | {"trajectories": [5, 1, 1], "transient": 0.0, "step": 0.1})
    z, every_second = now[..., 2], twice[..., 2]
    correlation = np.corrcoef(z[:, ::2][:, :10].ravel(), every_second[:, :10].ravel())[0, 1]
    assert correlation > 0.9999  # both are normalised by themselves


def test_noise_and_repetition():
    clean, labels = lorenz_trajectories(**SETTINGS)
    noisy, same_labels = lorenz_trajectories(**SETTINGS | {"noise": 0.3})
    assert (noisy - clean).std().item() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_array_equal(labels, same_labels)
    np.testing.assert_array_equal(clean, lorenz_trajectories(**SETTINGS)[0])


def test_the_first_trajectories_train_and_each_has_noise_of_its_own(monkeypatch):
    settings = SETTINGS | {"noise": 0.3}
    monkeypatch.setattr(cohorts, "lorenz_trajectories", partial(lorenz_trajectories, **settings))
    stays = cohorts.load_lorenz(Path(), settings["trajectories"], settings["step"])
    (noisy, labels), (clean, _) = lorenz_trajectories(**settings), lorenz_trajectories(**SETTINGS)
    for name, rows in (("train", slice(20)), ("validation", slice(20, 25)), ("test", slice(25, 30))):
        assert torch.equal(stays.part(name).inputs, noisy[rows])
        assert torch.equal(stays.part(name).labels["wing"].long(), labels[rows])
    noise = (noisy - clean).flatten(1)
    assert np.abs(np.corrcoef(noise) - np.eye(30)).max() < 0.5


def test_a_limit_leaves_the_first_of_every_split(monkeypatch):
    monkeypatch.setattr(cohorts, "lorenz_trajectories", partial(lorenz_trajectories, **SETTINGS))
    load = partial(cohorts.load_lorenz, trajectories=SETTINGS["trajectories"], step=SETTINGS["step"])
    monkeypatch.setitem(cohorts.COHORTS, "lorenz", load)
    for limit, counts in ((3, [3, 3, 3]), (None, [20, 5, 5])):
        parts = cohorts.load_parts("lorenz", "data", limit)
        assert [len(part) for part in parts.values()] == counts
