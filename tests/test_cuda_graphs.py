"""Recorded training steps: a replayed run is the launched run."""

from functools import partial

from experiments import dpsom, somvae, stays_baselines, tdpsom, topography, tpae
from experiments.engine.cuda_graphs import Recorded
from experiments.errors import UserError
from experiments.ingredients import compute

import command_line
import pytest
import torch
from torch import nn

CASES = {
    "DPSOM": (dpsom.ex, "fast"),
    "DPSOM, dropout, batch normalisation, full covariance": (
        dpsom.ex,
        "fast model.dropout=0.3 model.normalization=batch model.posterior=full model.assignment=sample "
        "training.target=sample",
    ),
    "DPSOM, convolutions in bfloat16": (
        dpsom.ex,
        "fast model.network=conv compute.precision=bf16 compute.deterministic=True",
    ),
    "SOM-VAE, sequences": (somvae.ex, "fast"),
    "SOM-VAE, convolutions": (somvae.ex, "fast series.enabled=False loss.gamma=0 loss.tau=0 model.network=conv"),
    "T-DPSOM": (tdpsom.ex, "fast"),
    "SOM-VAE on stays": (stays_baselines.ex, "fast"),
    "TPAE": (tpae.ex, "fast"),
    "TPAE, Gumbel noise, recomputed": (tpae.ex, "fast model.assignment=gumbel model.recompute=True"),
    "TPAE, residual encoder, augmentation, discriminator": (
        tpae.ex,
        "fast model.encoder=residual model.width=4 augmentation.flip=True loss.adversarial=0.1",
    ),
    "Topography": (topography.ex, "fast"),
}


@pytest.mark.gpu
@pytest.mark.parametrize(("experiment", "arguments"), CASES.values(), ids=CASES)
@pytest.mark.usefixtures("in_process")
def test_a_replayed_run_is_the_launched_run(tmp_path, experiment, arguments):
    curves = []
    for graphs in (True, False):
        finished = command_line.run(
            experiment, tmp_path / str(graphs), f"{arguments} compute.graphs={graphs}", device="cuda"
        )
        assert finished.status == 0, finished.errors
        rows = finished.record["curve"]
        curves.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    replayed, launched = curves
    for one, other in zip(replayed, launched, strict=True):
        numbers = {key: value for key, value in other.items() if isinstance(value, float)}
        assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).cuda()


def gradients(model, inputs):
    model.zero_grad()
    loss = model(inputs).square().sum()
    loss.backward()
    return {"loss": loss.detach()}


@pytest.mark.gpu
def test_every_call_sees_its_own_values_and_draws(model):
    """Gradients are those of the call, buffers move once a call, and dropout draws anew."""
    step, inputs = partial(gradients, model), torch.randn(5, 8, 4, device="cuda")
    found = []
    for function in (step, Recorded(step, model)):
        torch.manual_seed(1)
        model[1].reset_running_stats()
        seen = []
        for batch in inputs:
            loss = function(inputs=batch)["loss"].item()
            seen.append((loss, model[0].weight.grad.tolist(), model[1].running_mean.tolist()))
        found.append(seen)
    launched, replayed = found
    assert replayed == launched
    assert len({loss for loss, _, _ in launched}) == len(inputs)


@pytest.mark.gpu
def test_two_recorded_steps_keep_their_gradients_apart(model):
    first, second = (Recorded(lambda inputs, layer=layer: part(model, layer, inputs), model) for layer in (0, 1))
    inputs = torch.randn(8, 4, device="cuda")
    for _ in range(2):
        first(inputs=inputs)
        assert model[0].weight.grad is not None
        assert model[1].weight.grad is None
        second(inputs=inputs)
        assert model[0].weight.grad is None
        assert model[1].weight.grad is not None


def part(model, layer, inputs):
    model.zero_grad()
    loss = model[layer](inputs if layer == 0 else inputs[:, :3]).sum()
    loss.backward()
    return {"loss": loss.detach()}


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_said_in_one_line(model):
    def waiting(inputs):
        return {"loss": torch.tensor(inputs.sum().item())}

    with pytest.raises(UserError, match=r"^a training step cannot be recorded \(.*\): use compute.graphs=False$"):
        Recorded(waiting, model)(inputs=torch.ones(2, device="cuda"))


def test_only_where_it_is_wanted(monkeypatch):
    model = nn.Linear(4, 3)
    step = partial(gradients, model)
    for device, graphs, expected in (("cuda", True, Recorded), ("cuda", False, partial), ("cpu", True, partial)):
        monkeypatch.setattr(compute.recorded, "config", {"graphs": graphs})
        assert type(compute.recorded(step, model, torch.device(device))) is expected
