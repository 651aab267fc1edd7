"""The Topography experiment from its command line to its record, interrupted and resumed."""

import math
import os
import signal
from functools import partial

from experiments import topography
from experiments.datasets.samples import Samples
from experiments.engine.optimization import MomentumSGD
from experiments.engine.plain_som import minisom
from experiments.ingredients.compute import autocast
from experiments.ingredients.data import Split
from models.grid import Grid
from models.topography import Topography
from scripts.scheduling.plan import resolve_config

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import run as run_experiment

pytestmark = pytest.mark.usefixtures("in_process")
PICTURES = {"decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions"}
run = partial(run_experiment, topography.ex)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("fast")
    finished = run(runs_dir, "fast")
    assert finished.status == 0, finished.errors
    return finished


def test_a_run_leaves_its_record_and_its_pictures(fast):
    record = fast.record
    assert {"test/quantization_error", "test/topographic_error_4", "test/nmi_geometric"} < set(fast.metrics)
    assert {path.stem for path in (fast.folder / "figures").glob("*.png")} == PICTURES
    assert (fast.folder / "map.npz").exists()
    assert [row["epoch"] for row in record["curve"]] == [1, 2, 3, 4, 5, 6]
    assert record["curve"][-1]["validation/quantization_error"] < record["curve"][0]["validation/quantization_error"]


@pytest.mark.parametrize(
    "settings",
    [
        "model.unit_norm=True training.optimizer=sgd training.epochs=1",
        "model.map_size='[2, 5]' model.torus=True model.grid_metric=manhattan training.sigma='[1, 1]'",
        "model.encoder=dense model.latent_dim=3 model.unit_norm=True training.encoder_epochs=6",
        "model.encoder=dense model.latent_dim=3 training.encoder_epochs=1 training.minisom_steps=20",
    ],
)
def test_maps_of_other_kinds(tmp_path, settings):
    finished = run(tmp_path, f"fast {settings}")
    assert finished.status == 0, finished.errors
    assert all(math.isfinite(value) for value in finished.metrics.values())


def test_a_collapsed_map_ends_the_run_with_one_line(tmp_path):
    finished = run(
        tmp_path, "fast model.encoder=dense model.latent_dim=3 model.unit_norm=True training.encoder_epochs=1"
    )
    assert finished.status == 2
    assert "the map collapsed: after map epoch 6 one unit holds all of the validation split" in finished.errors


def test_data_in_the_plane_get_a_picture_of_the_map_among_them(tmp_path):
    finished = run(tmp_path, "square training.epochs=1")
    assert finished.status == 0, finished.errors
    assert {path.stem for path in (finished.folder / "figures").glob("*.png")} == PICTURES | {"map_in_plane"}


@pytest.mark.parametrize("step", [7, 12])  # within an epoch of four steps, and at its end
def test_interrupted_and_resumed_it_ends_with_the_same_numbers(tmp_path, monkeypatch, step):
    settings = "fast training.optimizer=sgd training.learning_rate=0.5 training.epochs=5"
    whole = run(tmp_path / "whole", settings)
    step_at, steps = MomentumSGD.step_at, []

    def stopping(self, learning_rate):
        step_at(self, learning_rate)
        steps.append(learning_rate)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MomentumSGD, "step_at", stopping)
    runs_dir = tmp_path / "parts"
    assert run(runs_dir, settings).status == 143
    resumed = run(runs_dir, f"resume={runs_dir}/topography/1")
    assert resumed.status == 0, resumed.errors
    assert len(steps) == 20
    assert resumed.metrics == whole.metrics


def test_a_finished_map_of_minisom_is_evaluated_and_not_trained_again(tmp_path, monkeypatch):
    settings = "fast model.encoder=dense model.latent_dim=3 training.encoder_epochs=1 training.minisom_steps=20"
    whole = run(tmp_path, settings)
    monkeypatch.delattr(topography, "fit_minisom")
    again = run(tmp_path, f"resume={tmp_path}/topography/1")
    assert again.status == 0, again.errors
    assert again.metrics == whole.metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "training.sigma='[4, 0]'",
            "training.sigma is [4, 0]: it must be a list of 2 values, each a number, greater",
        ),
        ("training.sigma='[-1, 1]'", "training.sigma is [-1, 1]: it must be a list of 2 values, each a number, gr"),
        (
            "training.optimizer=rmsprop",
            "training.optimizer is 'rmsprop': it must be a string, one of 'adam', 'sgd'",
        ),
        ("model.map_size='[10, 21]'", "model.map_size=[10, 21] has more units than the 200 samples: lower"),
        (
            "training.minisom_steps=20 model.torus=True",
            "trains a plain map: it needs model.torus=False",
        ),
        ("training.minisom_steps=20 model.grid_metric=manhattan", "and model.grid_metric=euclidean"),
        ("training.learning_rate=1e30", "is not finite in map epoch 1: lower training.learning_rate"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, message):
    finished = run(tmp_path, f"fast {settings}")
    assert finished.status == 2, finished.errors
    assert message in finished.errors.splitlines()[-1]
    assert "Traceback" not in finished.errors


def test_the_phases_and_the_grids_metric_are_those_of_the_configuration():
    updates = {
        "model": {"encoder": "dense", "grid_metric": "manhattan"},
        "training": {"encoder_learning_rate": 0.3, "learning_rate": 0.05, "epochs": 3, "sigma": [4.0, 1.0]},
    }
    config = resolve_config(topography.ex, "fast", updates=updates)
    made = topography.build(config, Samples((1, 2, 2)))
    assert torch.equal(made.grid_distances, made.grid.distances("manhattan"))
    encoder, maps = (stage.updates[0] for stage in topography.phases(made, config["training"]))
    assert (encoder.learning_rates, maps.learning_rates) == ((0.3,), (0.05,))
    assert maps.schedules["sigma"] == pytest.approx((4.0, 2.0, 1.0))


@pytest.mark.parametrize("seed", [0, 3])
def test_minisom_trains_the_features_with_the_runs_seed(monkeypatch, seed):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    made, inputs = Topography(4, Grid(2, 3, torus=False)), torch.rand(30, 1, 2, 2)
    topography.fit_minisom(made, inputs, {"minisom_steps": 50, "sigma": [1.5, 0.5]}, seed)
    expected = minisom(inputs.flatten(1).numpy(), made.grid, steps=50, sigma=1.5, learning_rate=0.5, seed=seed)
    np.testing.assert_allclose(made.centroids.detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("unit_norm", [False, True])
def test_errors_are_those_of_the_units_as_they_are_compared(monkeypatch, unit_norm):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    torch.manual_seed(0)
    made = Topography(4, Grid(2, 3, torus=False), unit_norm=unit_norm)
    split = Split(torch.rand(30, 1, 2, 2), torch.arange(30) % 3)
    with torch.no_grad():
        made.centroids.mul_(torch.linspace(0.5, 3, 6)[:, None])
    points, units = split.inputs.flatten(1), made.centroids.detach()
    lengths = points.norm(dim=1, keepdim=True) if unit_norm else torch.ones(30, 1)
    units = F.normalize(units) if unit_norm else units
    distances, winners = torch.cdist(points / lengths, units).min(dim=1)
    found = topography.final_metrics(made, split)
    assert found["quantization_error"] == pytest.approx(distances.mean().item(), rel=1e-5)
    assert found["reconstruction_error"] == pytest.approx(F.mse_loss(lengths * units[winners], points).item(), rel=1e-5)
