"""DPSOM computes what the original TensorFlow code computes: golden numbers of tests/fixtures or PARITY_FIXTURES."""

import json
import math

from experiments import PROJECT
from experiments.engine.optimization import PhasedAdam
from experiments.errors import UserError
from models import assignment, networks
from models.dpsom import DPSOM, POSTERIORS
from models.gaussian import PosteriorFull
from models.grid import Grid
from scripts import parity
from scripts.golden import (
    Deviation,
    Golden,
    compare_forward,
    compare_gradients,
    compare_losses,
    compare_training,
    over,
    statistics,
)

import numpy as np
import pytest
import torch
from deviations import assert_within, beyond

DENSE, CONV = "DPSOM dense", "DPSOM conv"


@pytest.fixture(scope="module", params=[DENSE, CONV])
def deviations(request):
    return parity.compare_model(parity.MODELS[request.param])


@pytest.mark.parametrize("quantity", parity.MODELS[DENSE].quantities)
def test_equals_the_original(deviations, quantity):
    assert_within(deviations, quantity)


# --------------------------------------------------------------- the comparison notices what it is there to notice


def dense():
    """A golden file and our model at its weights."""
    golden = Golden(parity.golden_file(parity.MODELS[DENSE]))
    return golden, parity.DPSOMPort(golden)


def configured(**changes):
    return lambda *arguments, **settings: DPSOM(*arguments, **{**settings, **changes})


class PosteriorInOurOrder(PosteriorFull):
    def tfp_order(self):
        return torch.arange(self.number_of_parameters - self.latent_dim)


FORWARD_DEFECTS = {
    "leaky ReLU of slope 0.01": (networks, "LEAK", 0.01),
    "no torus": (parity, "Grid", lambda height, width, torus: Grid(height, width, torus=False)),
    "linear logits": (parity, "DPSOM", configured(leaky_logits=False)),
    "normalisation before the activation": (parity, "DPSOM", configured(normalize_before=True)),
    "one degree of freedom less": (parity, "DPSOM", configured(alpha=9.0)),
    "dropout": (parity, "DPSOM", configured(dropout=0.4)),
    "order of the Cholesky factor": (parity, "DPSOM", configured(posterior="ours")),
}


@pytest.mark.parametrize("defect", FORWARD_DEFECTS)
def test_defect_in_the_forward_pass_is_noticed(monkeypatch, defect):
    owner, name, value = FORWARD_DEFECTS[defect]
    monkeypatch.setitem(POSTERIORS, "ours", PosteriorInOurOrder)
    monkeypatch.setattr(owner, name, value)
    golden, port = dense()
    assert "loss terms" in beyond(compare_losses(golden, port))
    if defect != "no torus":  # which shows in the losses alone when no winner lies on the edge
        assert "forward arrays" in beyond(compare_forward(golden, port))


def joint_loss_through_q(self, inputs, target, noise):
    """The map's loss as a public PyTorch port has it: its gradient also pulls through q."""
    terms = joint_loss(self, inputs, target, noise)
    soft = self.assign(self.encode(inputs, noise)[0])
    return {**terms, "som": assignment.soft_som_loss(soft, soft, self.adjacency)}


def joint_loss_through_p(self, inputs, target, noise):
    """The target as part of the graph: the same values, other gradients."""
    soft = self.assign(self.encode(inputs, noise)[0])
    return joint_loss(self, inputs, assignment.target_distribution(soft), noise)


joint_loss = DPSOM.joint_loss


@pytest.mark.parametrize(
    ("defect", "noticed"),
    [
        (joint_loss_through_q, {"variables a loss reaches", "gradients", "whole gradients of the map"}),
        (joint_loss_through_p, {"gradients", "whole gradients of the map"}),
    ],
)
def test_defect_in_the_gradients_alone_is_noticed(monkeypatch, defect, noticed):
    monkeypatch.setattr(DPSOM, "joint_loss", defect)
    golden, port = dense()
    assert not beyond(compare_losses(golden, port))
    assert beyond(compare_gradients(golden, port)) == noticed


class EpsilonInside(PhasedAdam):
    """PyTorch's Adam: epsilon joins the bias-corrected root."""

    def step_at(self, learning_rate):
        group = self.param_groups[0]
        group["epsilon_hat"] = 1e-8 * math.sqrt(1.0 - group["betas"][1] ** (group["count"] + 1))
        super().step_at(learning_rate)


class OwnCounters(PhasedAdam):
    """A counter that starts anew with the second phase, as a second Adam would have it."""

    restarted = False

    def step_at(self, learning_rate):
        if learning_rate == 0.9 and not self.restarted:
            self.restarted = True
            self.param_groups[0].update(count=0, beta_powers=list(self.param_groups[0]["betas"]))
        super().step_at(learning_rate)


class NoDecay(PhasedAdam):
    """The rate stays where it was when it should decay."""

    def step_at(self, learning_rate):
        super().step_at(0.01 if learning_rate == pytest.approx(0.0099) else learning_rate)


@pytest.mark.parametrize(
    ("optimizer", "noticed"),
    [
        (EpsilonInside, "final map"),
        (OwnCounters, "loss along the training"),
        (NoDecay, "change of the map across the decay"),
    ],
)
def test_defect_in_the_optimiser_is_noticed(optimizer, noticed):
    golden, port = dense()
    assert noticed in beyond(compare_training(golden, port, optimizer))


def test_recipe_is_checked(tmp_path, monkeypatch):
    source = parity.golden_file(parity.MODELS[DENSE])
    with np.load(source) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    meta["variables"][3]["seed"] += 1
    np.savez(tmp_path / source.name, **{**arrays, "meta": np.array(json.dumps(meta))})
    monkeypatch.setenv("PARITY_FIXTURES", str(tmp_path))
    with pytest.raises(UserError, match="enc/bn1/gamma made from the recipe"):
        dense()


def test_numbers_nobody_compares_are_an_error(tmp_path, monkeypatch):
    source = parity.golden_file(parity.MODELS[DENSE])
    with np.load(source) as file:
        np.savez(tmp_path / source.name, **file, **{"traj/forgotten": np.zeros(1)})
    monkeypatch.setenv("PARITY_FIXTURES", str(tmp_path))
    monkeypatch.setattr(parity, "compare", lambda golden, port: [])
    with pytest.raises(UserError, match="traj/forgotten"):
        parity.compare_model(parity.MODELS[DENSE])


def test_missing_file_names_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PARITY_FIXTURES", str(tmp_path))
    with pytest.raises(UserError, match="PARITY_FIXTURES"):
        dense()


def record_of(tmp_path, monkeypatch, value):
    """What the script writes when every quantity deviates by `value`; its exit status."""
    monkeypatch.setattr(parity, "RECORD", tmp_path / "parity_golden.json")
    monkeypatch.setattr(
        parity, "compare_model", lambda model: [Deviation(name, "item", value) for name in model.quantities]
    )
    status = parity.main()
    return json.loads(parity.RECORD.read_text()) if parity.RECORD.exists() else None, status


def test_record_has_a_row_for_every_model_and_quantity(tmp_path, monkeypatch):
    record, status = record_of(tmp_path, monkeypatch, 0.0)
    assert status == 0
    assert record["format"] == 1
    rows = [(row["model"], row["quantity"]) for row in record["rows"]]
    assert rows == [(name, quantity) for name, model in parity.MODELS.items() for quantity in model.quantities]
    assert str(PROJECT) not in json.dumps(record)


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_nothing_is_recorded_beyond_a_tolerance(tmp_path, monkeypatch, value):
    assert record_of(tmp_path, monkeypatch, value) == (None, 1)


def test_statistics_equal_their_definition():
    value = np.random.default_rng(0).standard_normal((3, 9001)).astype(np.float32)
    flat = value.ravel().astype(np.float64)
    wave = np.sin(np.arange(1, flat.size + 1, dtype=np.float64))
    expected = [np.linalg.norm(flat), flat.sum(), flat @ wave, np.abs(flat).sum(), np.abs(flat).max()]
    np.testing.assert_allclose(statistics(value), expected, rtol=1e-9)


def test_nan_and_a_nonzero_beside_zero_are_never_within_a_tolerance():
    assert math.isnan(over(np.array([1.0, math.nan]), np.ones(2), 1.0))
    assert over(np.array([0.0, 1e-30]), np.zeros(2), 0.0) == math.inf
    assert over(np.zeros(2), np.zeros(2), 0.0) == 0.0
