"""k-means and SOM-VAE of the hours of stays: what they see, at which rates, and what they are measured by."""

from functools import partial

from experiments import stays_baselines
from experiments.analyses.transitions import counted_transitions, transition_nll
from experiments.drawing.trajectories import TRAJECTORIES
from experiments.engine.kmeans import kmeans
from experiments.ingredients.compute import autocast
from experiments.measures.hours import Hours
from models.grid import Grid
from models.somvae import LossWeights
from models.somvae_hours import SOMVAEOfHours

import command_line
import numpy as np
import pytest
import torch
from test_tdpsom_experiment import CHANNELS, stays

run = partial(command_line.run, stays_baselines.ex)


@pytest.fixture(scope="module", autouse=True)
def narrow_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.somvae_networks.DENSE_WIDTHS", (16, 8))
        yield


@pytest.mark.parametrize("name", ["kmeans", "somvae"])
def test_a_run_leaves_its_record_and_its_pictures(in_process, tmp_path, name):
    finished = run(tmp_path, f"fast model.name={name}")
    assert finished.status == 0, finished.errors
    assert 0 < finished.metrics["test/nmi_geometric_wing"] < 1
    assert ("test/morans_i" in finished.metrics) == (name == "somvae")
    assert ("test/transition_nll" in finished.metrics) == (name == "somvae")
    assert finished.metrics["test/counted_transition_nll"] > 0
    assert 0 < finished.metrics["test/reconstruction_error"] < 1 + (name == "somvae")  # of points with variance 1
    pictures = {path.stem for path in (finished.folder / "figures").glob("*.png")}
    assert pictures == {"hit_map", "transition_graph", "paths_on_map", "attractor"}
    assert (finished.folder / TRAJECTORIES).exists() == (name == "somvae")


@pytest.mark.parametrize("seed", [0, 3])
def test_kmeans_clusters_the_hours_of_the_stays_alone(seed):
    data = stays()
    found = stays_baselines.KMeansOfHours(data, 5, restarts=1, seed=seed).centroids.numpy()
    np.testing.assert_array_equal(found, kmeans(data.inputs[data.mask].numpy(), 5, 1, seed))


def test_the_counted_transitions_are_those_of_the_training_stays(monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    monkeypatch.setattr(stays_baselines, "draw", lambda *_: None)
    parts = {
        name: stays(lengths) for name, lengths in (("train", (12, 9, 7)), ("validation", (5, 11)), ("test", (12, 12)))
    }
    clusters = stays_baselines.KMeansOfHours(parts["train"], 4, restarts=1, seed=0)
    metrics = stays_baselines.evaluate(None, clusters, parts, Grid(2, 2, False), 1)
    moves = {
        name: torch.from_numpy(Hours.nearest(part, part.inputs[part.mask], clusters.centroids).moves())
        for name, part in parts.items()
    }
    counted = counted_transitions(moves["train"], 4)
    for name in ("validation", "test"):
        assert metrics[f"{name}/counted_transition_nll"] == pytest.approx(transition_nll(counted, moves[name]))


# ------------------------------------------------------------------------------------------------------------- SOM-VAE


def somvae_of_hours(data):
    weights = LossWeights(alpha=1.0, beta=0.9, gamma=1.8, tau=1.4)
    return SOMVAEOfHours(CHANNELS, Grid(2, 2, torus=False), 3, weights).set_scale(data.inputs[data.mask])


def test_somvae_sees_padded_stays_one_behind_the_other():
    data = stays()
    made, hours = somvae_of_hours(data), data.inputs[data.mask]
    batch = made.rows(data.inputs, data.mask)
    lengths = data.lengths.tolist()
    assert batch["starts"].nonzero().flatten().tolist() == (np.cumsum(lengths) - lengths).tolist()
    assert batch["inputs"].shape == (sum(lengths), CHANNELS, 1, 1)
    low, high = hours.min(dim=0).values, hours.max(dim=0).values
    torch.testing.assert_close(batch["inputs"][..., 0, 0], (hours - low) / (high - low))


def test_somvae_reconstructs_hours_in_their_own_scale():
    data = stays()
    made, hours = somvae_of_hours(data), data.inputs[data.mask]
    units = made.winners(data.inputs, data.lengths)[data.mask]
    low, high = hours.min(dim=0).values, hours.max(dim=0).values
    expected = low + (high - low) * made.somvae.decode(made.centroids[units]).flatten(1)
    torch.testing.assert_close(made.reconstruct(hours), expected)


def test_somvaes_transitions_have_a_rate_of_their_own():
    data = stays()
    made = somvae_of_hours(data)
    (phase,) = stays_baselines.phases(
        made, data.mask, dict(joint_epochs=4, learning_rate=0.001, transition_learning_rate=0.05)
    )
    assert [(update.loss, update.learning_rates) for update in phase.updates] == [
        (made.somvae.joint_loss, (0.001,)), (made.somvae.transition_loss, (0.05,)),
    ]  # fmt: skip
