"""SOM-VAE computes what the original TensorFlow code computes: golden numbers of tests/fixtures or PARITY_FIXTURES."""

from experiments.engine.optimization import PhasedAdam
from models import somvae
from models.grid import Grid
from models.somvae import SOMVAE
from scripts import parity
from scripts.golden import Golden, compare_forward, compare_gradients, compare_losses, compare_training

import pytest
import torch
import torch.nn.functional as F
from deviations import assert_within, beyond

MODEL = parity.MODELS["SOM-VAE"]


@pytest.fixture(scope="module")
def deviations():
    return parity.compare_model(MODEL)


@pytest.mark.parametrize("quantity", MODEL.quantities)
def test_equals_the_original(deviations, quantity):
    assert_within(deviations, quantity)


# --------------------------------------------------------------- the comparison notices what it is there to notice


def at_the_recipe():
    """A golden file and our model at its weights."""
    golden = Golden(parity.golden_file(MODEL))
    return golden, parity.SOMVAEPort(golden)


def weights_with_gamma_once(**weights):
    return somvae.LossWeights(**{**weights, "gamma_twice": False})


LOSS_DEFECTS = {
    "torus": (parity, "Grid", lambda height, width, torus: Grid(height, width, torus=True)),
    "gamma once": (parity, "SOMVAELossWeights", weights_with_gamma_once),
    "successors for predecessors": (
        somvae,
        "predecessors",
        lambda winners, starts: torch.cat([winners[1:], winners[-1:]]),
    ),
}


@pytest.mark.parametrize("defect", LOSS_DEFECTS)
def test_defect_in_the_losses_is_noticed(monkeypatch, defect):
    monkeypatch.setattr(*LOSS_DEFECTS[defect])
    assert "loss terms" in beyond(compare_losses(*at_the_recipe()))


def test_defect_in_the_padding_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.nn, "ZeroPad2d", lambda padding: torch.nn.ConstantPad2d((2, 1, 2, 1), 0.0))
    assert "forward arrays" in beyond(compare_forward(*at_the_recipe()))


def decoded_straight_through(self, latents, winners):
    return self.decode(latents + (self.centroids[winners] - latents).detach())


def joint_loss_with_one_sided_commitment(self, inputs):
    terms = joint_loss(self, inputs)
    latents = self.encode(inputs)
    return {**terms, "commitment": F.mse_loss(latents, self.quantize(latents).detach())}


joint_loss = SOMVAE.joint_loss
GRADIENT_DEFECTS = {
    "straight through": ("decode_winners", decoded_straight_through),
    "one-sided commitment": ("joint_loss", joint_loss_with_one_sided_commitment),
}


@pytest.mark.parametrize("defect", GRADIENT_DEFECTS)
def test_defect_in_the_gradients_alone_is_noticed(monkeypatch, defect):
    monkeypatch.setattr(SOMVAE, *GRADIENT_DEFECTS[defect])
    golden, port = at_the_recipe()
    assert not beyond(compare_losses(golden, port))
    assert "variables a loss reaches" in beyond(compare_gradients(golden, port))


class OwnCounter(PhasedAdam):
    """The transitions' steps do not advance the counter, as if they had an Adam of their own."""

    def step_at(self, learning_rate):
        group = self.param_groups[0]
        before = group["count"], group["beta_powers"]
        super().step_at(learning_rate)
        if learning_rate > 0.01:
            group["count"], group["beta_powers"] = before


def test_defect_in_the_optimiser_is_noticed():
    golden, port = at_the_recipe()
    assert "loss along the training" in beyond(compare_training(golden, port, OwnCounter))
