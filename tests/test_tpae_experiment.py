"""The TPAE experiment from its command line to its record, interrupted and resumed."""

import math
import os
import signal
from functools import partial

from experiments import tpae
from experiments.datasets.samples import Samples
from experiments.engine.optimization import PhasedAdam
from experiments.errors import UserError
from models.grid import Grid
from models.soft_som import SoftSOM

import pytest
import torch
from command_line import run as run_experiment

pytestmark = pytest.mark.usefixtures("in_process")
PICTURES = {
    "decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions", "decoded_map_block1",
    "decoded_map_block2", "reconstructions_by_block", "walk", "activation_maps",
}  # fmt: skip
QUIET = "tracking.figures=False"
run = partial(run_experiment, tpae.ex)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    finished = run(tmp_path_factory.mktemp("fast"), "fast")
    assert finished.status == 0, finished.errors
    return finished


def test_a_run_leaves_its_record_and_its_pictures(fast):
    record = fast.record
    assert {path.stem for path in (fast.folder / "figures").glob("*.png")} == PICTURES
    assert (fast.folder / "map.npz").exists()
    assert [(row["phase"], row["epoch"]) for row in record["curve"]] == [
        ("reconstruct", 1), ("organise", 1), ("organise", 2), ("joint", 1), ("joint", 2),
    ]  # fmt: skip
    assert {"train", "validation", "test"} == {name.partition("/")[0] for name in fast.metrics}
    for split in ("validation", "test"):
        for name in ("topographic_error", "trustworthiness", "used_units", "reconstruction_error", "picture_error"):
            assert fast.metrics[f"{split}/{name}"] == fast.metrics[f"{split}/block2_{name}"]
            assert f"{split}/block1_{name}" in fast.metrics
    assert all(0 <= fast.metrics[f"{split}/classifier_accuracy"] <= 1 for split in ("train", "validation", "test"))


@pytest.mark.parametrize(
    "settings",
    [
        "model.sampling=downsampled model.assignment=gumbel loss.adversarial=0.1 loss.diversity=0",
        "model.assignment=hard model.encoder=residual model.width=2 model.recompute=True model.torus=True",
        "training.reconstruct_epochs=0 training.organise_epochs=0 loss.neighbourhood=0 loss.pairwise=0",
        "model.network=cnn training.reconstruct_epochs=0 training.organise_epochs=0",
    ],
)
def test_variants(tmp_path, settings):
    finished = run(tmp_path, f"fast {settings} data.limit=100 training.joint_epochs=1 {QUIET}")
    assert finished.status == 0, finished.errors
    assert all(value is None or math.isfinite(value) for value in finished.metrics.values())


@pytest.mark.parametrize("step", [5, 11])  # organising, and joint with two optimiser steps a batch
def test_interrupted_and_resumed_it_ends_with_the_same_numbers(tmp_path, monkeypatch, step):
    settings = f"fast model.assignment=gumbel augmentation.flip=True loss.adversarial=0.1 data.limit=100 {QUIET}"
    whole = run(tmp_path / "whole", settings)
    step_at, steps = PhasedAdam.step_at, []

    def stopping(self, learning_rate):
        step_at(self, learning_rate)
        steps.append(learning_rate)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PhasedAdam, "step_at", stopping)
    runs_dir = tmp_path / "parts"
    assert run(runs_dir, settings).status == 143
    resumed = run(runs_dir, f"resume={runs_dir}/tpae/1")
    assert resumed.status == 0, resumed.errors
    assert resumed.metrics == whole.metrics
    assert len(steps) == 2 + 4 + 2 * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("model.temperature=0", "model.temperature is 0: it must be a number, greater than 0"),
        ("model.width=0", "model.width is 0: it must be an integer, at least 1"),
        ("model.latent_dim=0", "model.latent_dim is 0: it must be an integer, at least 1"),
        ("training.sigma='[3, 0]'", "training.sigma is [3, 0]: it must be a list of 2 values, each a number, greater"),
        ("model.map_size='[3000, 3000]'", "model.map_size=[3000, 3000] has 9,000,000 prototypes, and the distances"),
        ("data.image_size=10", "not 10 x 10: change data.image_size"),
        (
            "model.network=cnn training.reconstruct_epochs=0 training.organise_epochs=0 data.image_size=10",
            "not 10 x 10",
        ),
        ("augmentation.shift=8", "augmentation.shift=8 is as large as the pictures: lower it"),
        ("model.network=cnn", "model.network=cnn only classifies: set training.reconstruct_epochs and organise_epochs"),
        ("loss.neighbourhood=0", "there is nothing to organise: set training.organise_epochs to 0"),
        ("loss.reconstruction=0.0 loss.pictures=0.0", "nothing to train: give one of loss.reconstruction, loss.p"),
        ("model.encoder=residual training.batch_size=1", "training.batch_size=1 is too small for the batch normal"),
        ("training.learning_rate=1e30", "is not finite in reconstruct epoch 1: lower training.learning_rate"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, message):
    finished = run(tmp_path, f"fast {settings}")
    assert finished.status == 2, finished.errors
    assert message in finished.errors.splitlines()[-1]
    assert "Traceback" not in finished.errors


def test_memory_is_asked_for_before_it_is_taken():
    tpae.require_memory([10, 10], available=tpae.BYTES_A_PAIR * 100**2)
    with pytest.raises(UserError, match=r"has 110 prototypes, and the distances between them take 0 GiB of 0"):
        tpae.require_memory([10, 11], available=tpae.BYTES_A_PAIR * 100**2)


def test_the_joint_rate_falls_along_half_a_cosine():
    settings = TRAINING | {"joint_epochs": 2}
    net = tpae.build({"model": MODEL, "loss": LOSS}, Samples((1, 8, 8), classes=("a", "b")))
    (phase,) = [stage for stage in tpae.phases(net, torch.zeros(1), settings, steps_per_epoch=51) if stage.epochs]
    rates = phase.updates[0].learning_rates
    assert len(rates) == 102
    assert (rates[0], rates[-1]) == (pytest.approx(0.1), pytest.approx(0.01))
    assert (rates[50] + rates[51]) / 2 == pytest.approx(0.055)
    assert phase.updates[0].schedules == {"sigma": (0.7,)}


MODEL = dict(
    network="tpae", blocks=1, encoder="published", width=1, latent_dim=4, map_size=[3, 4], torus=False,
    temperature=0.4, assignment="soft", sampling="native", normalize_latents=True, recompute=False,
)  # fmt: skip
LOSS = {name: 1.0 for name in tpae.LossWeights.__annotations__}
TRAINING = dict(
    reconstruct_epochs=0, organise_epochs=0, joint_epochs=0, learning_rate=0.1, final_rate=0.1, sigma=[3.0, 0.7],
    organise_learning_rates=[0.05, 0.005],
)  # fmt: skip


def test_a_walk_passes_through_the_prototypes_on_its_way():
    som = SoftSOM(Grid(3, 4, torus=False), 2, temperature=1.0)
    with torch.no_grad():
        som.prototypes.copy_(som.grid.coordinates)  # each prototype is its own place
        walks = tpae.walks_across(som)
    steps = tpae.WALK_STEPS * 3 + 1
    place = torch.linspace(0, 1, steps)
    torch.testing.assert_close(walks["middle row"], torch.stack([torch.ones(steps), 3 * place], dim=1))
    torch.testing.assert_close(walks["middle column"], torch.stack([2 * place, 2 * torch.ones(steps)], dim=1))
    torch.testing.assert_close(walks["diagonal"], torch.stack([2 * place, 3 * place], dim=1))


def test_neighbourhood_and_rate_fall_geometrically_while_organising():
    settings = TRAINING | {"organise_epochs": 3, "sigma": [4.0, 1.0], "organise_learning_rates": [0.16, 0.01]}
    net = tpae.build({"model": MODEL, "loss": LOSS}, Samples((1, 8, 8), classes=("a", "b")))
    organise = tpae.phases(net, torch.zeros(1), settings, steps_per_epoch=1)[1].updates[0]
    assert organise.learning_rates == pytest.approx((0.16, 0.04, 0.01))
    assert organise.schedules["sigma"] == pytest.approx((4.0, 2.0, 1.0))


@pytest.mark.parametrize("network", ["tpae", "cnn"])
def test_every_phase_trains_on_augmented_pictures_and_the_last_at_the_falling_rate(monkeypatch, network):
    monkeypatch.setattr(tpae.augmented, "config", {"flip": True, "shift": 0})
    epochs = 0 if network == "cnn" else 1
    settings = TRAINING | {"reconstruct_epochs": epochs, "organise_epochs": epochs, "joint_epochs": 2}
    net = tpae.build({"model": MODEL | {"network": network}, "loss": LOSS}, Samples((1, 8, 8), classes=("a", "b")))
    labels, inputs = torch.arange(40) % 2, torch.rand(40, 1, 8, 8)
    stages = tpae.phases(net, labels, settings, steps_per_epoch=51)
    for stage in stages:
        assert torch.equal(stage.columns()["labels"], labels)
        batch = stage.prepare(inputs=inputs, labels=labels)
        assert torch.equal(batch["labels"], labels)
        same = (batch["inputs"] == inputs).flatten(1).all(dim=1)
        assert 5 < same.sum() < 35
    rates = stages[-1].updates[0].learning_rates
    assert (rates[0], rates[-1]) == (pytest.approx(0.1), pytest.approx(0.01))
