"""T-DPSOM: what its losses say and reach, its forecaster, and series of different lengths."""

import math

from models.gaussian import diagonal_gaussian
from models.grid import Grid
from models.lstm import LSTM, RECURRENT_ACTIVATIONS
from models.tdpsom import TDPSOM, LossWeights

import pytest
import torch
from torch import nn

CHANNELS, LATENTS, UNITS = 5, 3, 4
WEIGHTS = LossWeights(theta=1.5, gamma=5.0, beta=2.0, kappa=3.0, eta=0.7, prior=0.1)
FORECASTER = {"lstm", "forecast_head"}


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    monkeypatch.setattr("models.networks.DENSE_WIDTHS", (16, 8, 12))


def model(weights=WEIGHTS, scale_minimum=0.0, recurrent_activation="sigmoid"):
    """In float64, with a map that the latents spread over."""
    torch.manual_seed(0)
    made = TDPSOM(
        CHANNELS,
        Grid(2, 3, torus=True),
        latent_dim=LATENTS,
        lstm_units=UNITS,
        recurrent_activation=recurrent_activation,
        normalization="affine",
        normalize_before=False,
        dropout=0.0,
        scale_minimum=scale_minimum,
        alpha=10.0,
        weights=weights,
    ).double()
    with torch.no_grad():
        made.centroids.normal_()
    return made


def batch(series=3, hours=6):
    """Inputs `[B, T, C]`, noise `[B, T, L]` and a target `[B, T, K]`."""
    return (
        torch.randn(series, hours, CHANNELS).double(),
        torch.randn(series, hours, LATENTS).double(),
        torch.rand(series, hours, 6).double().softmax(dim=2),
    )


def latents_and_winners(made, inputs, noise):
    latents, _ = made.encode(inputs.flatten(0, 1), noise.flatten(0, 1))
    winners = made.distances(latents).argmin(dim=1)
    assert len(winners.unique()) > 2
    return latents.unflatten(0, inputs.shape[:2]), winners.unflatten(0, inputs.shape[:2])


# What the losses reach


def reached(made, loss):
    """Parts of the model to which a loss sends a gradient that is not zero."""
    named = dict(made.named_parameters())
    gradients = torch.autograd.grad(loss, named.values(), retain_graph=True, allow_unused=True)
    return {
        name.partition(".")[0]
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and gradient.any()
    }


def test_what_each_loss_trains():
    made = model()
    inputs, noise, target = batch()
    terms = made.joint_loss(inputs, target, noise=noise)
    assert reached(made, terms["reconstruction"]) == {"encoder", "decoder"}
    assert reached(made, terms["kl"]) == {"encoder"}
    assert reached(made, terms["commitment"]) == {"encoder", "centroids"}
    assert reached(made, terms["som"]) == {"centroids"}
    assert reached(made, terms["smoothness"]) == {"encoder"}
    assert reached(made, terms["prediction"]) == FORECASTER
    assert reached(made, terms["loss"]) == {"encoder", "decoder", "centroids", *FORECASTER}
    assert reached(made, made.pretraining_loss(inputs)["loss"]) == {"encoder", "decoder"}
    assert reached(made, made.som_initialization_loss(inputs)["loss"]) == {"centroids"}
    assert reached(made, made.prediction_loss(inputs)["loss"]) == FORECASTER


def test_without_a_weight_the_joint_loss_predicts_nothing():
    made = model(LossWeights(theta=1.0, gamma=1.0, beta=1.0, kappa=1.0, eta=0.0, prior=0.1))
    inputs, noise, target = batch()
    terms = made.joint_loss(inputs, target, noise=noise)
    assert "prediction" not in terms
    assert reached(made, terms["loss"]) == {"encoder", "decoder", "centroids"}


# What they say


def gaussian_nll(value, loc, scale):
    return (0.5 * ((value - loc) / scale).square() + scale.log() + 0.5 * math.log(2 * math.pi)).sum()


def test_smoothness_equals_a_plain_loop():
    made = model()
    inputs, noise, target = batch()
    latents, winners = latents_and_winners(made, inputs, noise)
    kernels = []
    for stay, won in zip(latents, winners, strict=True):
        previous = won[0]
        for latent, winner in zip(stay, won, strict=True):
            squared = sum((a - b) ** 2 for a, b in zip(latent, made.centroids[previous], strict=True))
            kernels.append(1e-7 + (1 + squared / 10) ** (-11 / 2))
            previous = winner
    smoothness = made.joint_loss(inputs, target, noise=noise)["smoothness"]
    torch.testing.assert_close(smoothness, -sum(kernels) / len(kernels))


@pytest.mark.parametrize("scale_minimum", [0.0, 0.3])
def test_likelihoods_equal_plain_loops(scale_minimum):
    made = model(scale_minimum=scale_minimum)
    inputs, noise, target = batch()
    terms = made.joint_loss(inputs, target, noise=noise)
    latents, _ = latents_and_winners(made, inputs, noise)
    reconstruction, prediction = [], []
    for stay, hours in zip(inputs, latents, strict=True):
        for time, latent in enumerate(hours):
            raw = made.decoder(latent[None])[0]
            scale = raw[CHANNELS:].exp().log1p() + scale_minimum
            reconstruction.append(gaussian_nll(stay[time], raw[:CHANNELS], scale))
            raw = made.forecast_head(made.lstm(hours[None, : time + 1])[0][0, -1])
            scale = raw[LATENTS:].exp().log1p() + scale_minimum
            following = hours[min(time + 1, len(hours) - 1)]
            prediction.append(gaussian_nll(following, raw[:LATENTS], scale))
    torch.testing.assert_close(terms["negative_log_likelihood"], torch.stack(reconstruction).mean())
    torch.testing.assert_close(terms["prediction"], torch.stack(prediction).mean())
    torch.testing.assert_close(made.prediction_loss(inputs, noise=noise)["loss"], terms["prediction"])


def test_the_joint_loss_weighs_its_terms():
    made = model()
    inputs, noise, target = batch()
    terms = made.joint_loss(inputs, target, noise=noise)
    expected = 1.5 * (terms["negative_log_likelihood"] + 0.1 * terms["kl"])
    expected = expected + 5.0 * terms["commitment"] + 2.0 * terms["som"] + 3.0 * terms["smoothness"]
    torch.testing.assert_close(terms["loss"], expected + 0.7 * terms["prediction"])


def test_the_smallest_scale_holds_where_softplus_vanishes():
    scale = diagonal_gaussian(torch.tensor([[0.0, -200.0]]), 1e-3).stddev
    assert scale.item() == pytest.approx(1e-3)


# Series of different lengths


LENGTHS = (6, 1, 4)


@pytest.mark.parametrize("phase", ["pretraining_loss", "som_initialization_loss", "joint_loss", "prediction_loss"])
def test_padded_series_equal_each_alone(phase):
    made = model()
    inputs, noise, target = batch()
    latents_and_winners(made, inputs, noise)
    mask = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    for padded in (inputs, noise, target):
        padded[~mask] = torch.nan
    arguments = {"inputs": inputs, "noise": noise} | ({"target": target} if phase == "joint_loss" else {})
    loss = getattr(made, phase)
    together = loss(**arguments, mask=mask)
    alone = [
        loss(**{name: value[stay : stay + 1, :length] for name, value in arguments.items()})
        for stay, length in enumerate(LENGTHS)
    ]
    for name, value in together.items():
        mean = sum(length * terms[name] for length, terms in zip(LENGTHS, alone, strict=True)) / sum(LENGTHS)
        torch.testing.assert_close(value, mean, msg=lambda text, name=name: f"{name}: {text}")
    parameters = list(made.parameters())
    gradients = torch.autograd.grad(together["loss"], parameters, allow_unused=True)
    total = sum(length * terms["loss"] for length, terms in zip(LENGTHS, alone, strict=True)) / sum(LENGTHS)
    torch.testing.assert_close(gradients, torch.autograd.grad(total, parameters, allow_unused=True))


# The forecaster


@pytest.mark.parametrize("activation", RECURRENT_ACTIVATIONS)
def test_lstm_equals_a_plain_loop(activation):
    torch.manual_seed(0)
    lstm = LSTM(LATENTS, UNITS, activation).double()
    inputs = 3 * torch.randn(2, 5, LATENTS).double()  # far enough for the hard sigmoid's corners
    recurrent = {"sigmoid": torch.sigmoid, "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1)}[activation]
    outputs, (last_hidden, last_cell) = lstm(inputs)
    for series in range(2):
        hidden = cell = torch.zeros(UNITS).double()
        for time in range(5):
            gates = lstm.input_weight @ inputs[series, time] + lstm.recurrent_weight @ hidden + lstm.bias
            into, forget, candidate, out = gates.split(UNITS)
            cell = recurrent(forget) * cell + recurrent(into) * torch.tanh(candidate)
            hidden = recurrent(out) * torch.tanh(cell)
            torch.testing.assert_close(outputs[series, time], hidden)
        torch.testing.assert_close(last_hidden[series], hidden)
        torch.testing.assert_close(last_cell[series], cell)


def test_lstm_with_sigmoid_is_pytorchs():
    torch.manual_seed(0)
    ours, theirs = LSTM(LATENTS, UNITS, "sigmoid"), nn.LSTM(LATENTS, UNITS, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input_weight)
        theirs.weight_hh_l0.copy_(ours.recurrent_weight)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
    inputs = torch.randn(2, 5, LATENTS)
    (our_outputs, our_state), (outputs, state) = ours(inputs), theirs(inputs)
    torch.testing.assert_close(our_outputs, outputs)
    torch.testing.assert_close(our_state, tuple(part[0] for part in state))
    weighting = torch.randn_like(outputs)
    gradients = torch.autograd.grad((weighting * our_outputs).sum(), list(ours.parameters()))
    expected = torch.autograd.grad((weighting * outputs).sum(), list(theirs.parameters())[:3])
    torch.testing.assert_close(gradients, expected)


def test_lstm_starts_as_in_keras():
    lstm = LSTM(30, 20, "sigmoid")
    torch.testing.assert_close(lstm.recurrent_weight.t() @ lstm.recurrent_weight, torch.eye(20))
    assert lstm.input_weight.abs().max() <= (6 / (30 + 80)) ** 0.5
    assert lstm.bias.tolist() == [0.0] * 20 + [1.0] * 20 + [0.0] * 40
    assert lstm.bias.requires_grad


def test_forecast_equals_predicting_anew_from_the_start():
    made = model()
    latents = torch.randn(2, 4, LATENTS).double()
    series = latents
    for _ in range(3):
        series = torch.cat([series, made.predict(series).mean[:, -1:]], dim=1)
    torch.testing.assert_close(made.forecast(latents, 3), series[:, 4:])


# ------------------------------------------------------------------------------------------------------ a trained model


def test_units_of_padded_series_are_those_of_the_series_alone():
    made = model()
    inputs, _, _ = batch(series=4, hours=7)
    lengths = torch.tensor([7, 1, 4, 6])
    units = made.winners(inputs, lengths)
    for series, length, found in zip(inputs, lengths.tolist(), units, strict=True):
        alone = made.distances(made.mean(series[:length])).argmin(dim=1)
        assert found.tolist() == alone.tolist() + [-1] * (7 - length)
    assert torch.equal(made.winners(inputs), made.winners(inputs, torch.full((4,), 7)))


def test_forecast_hours_are_what_the_forecast_latents_decode_to():
    made = model()
    inputs, _, _ = batch(series=2, hours=5)
    hours = made.forecast_hours(inputs, steps=3)
    latents = torch.stack([made.mean(series) for series in inputs])
    for stay, following in zip(hours, made.forecast(latents, steps=3), strict=True):
        torch.testing.assert_close(stay, made.decode(following).mean)
    assert hours.shape == (2, 3, CHANNELS)
