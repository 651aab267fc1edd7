"""How well the last hours of a stay are forecast: the model runs freely on its own predictions, beside persistence."""

from experiments.datasets.stays import Stays
from experiments.ingredients.compute import autocast
from experiments.measures.hours import mean_with_interval
from models.tdpsom import TDPSOM

import numpy as np
import torch
from torch import Tensor

STEPS = 6  # last hours of a stay that are forecast
CHUNK = 100  # stays forecast at once


def forecast_metrics(tdpsom: TDPSOM, stays: Stays) -> dict[str, float]:
    """Mean over stays of the squared errors of `forecast_errors`; empty where all stays are too short.

    `forecast_gain` is persistence's error of the measured values minus the model's. These three have intervals.
    """
    errors = forecast_errors(tdpsom, stays)
    if not errors:
        return {}
    if "forecast_measured" in errors:
        errors["forecast_gain"] = errors["persistence_measured"] - errors["forecast_measured"]
    metrics: dict[str, float] = {}
    for name, values in errors.items():
        metrics |= mean_with_interval(name, values[~np.isnan(values)], name.endswith(("_measured", "_gain")))
    return metrics


@torch.no_grad()
def forecast_errors(tdpsom: TDPSOM, stays: Stays) -> dict[str, np.ndarray]:
    """Mean squared errors over the last hours of each stay that is longer than them, `[n]`.

    `forecast_latent`: of the latents (posterior means); `forecast_reconstruction`: of what is decoded from them;
    `forecast_data`: of that against the data; `forecast_measured`: the same, only where a value was measured (NaN for
    stays without one), because filled values persist by construction. `persistence_...`: the same when the last known
    hour, of the latents or of the data, simply stays. Models without a forecaster have persistence's errors alone.
    """
    tdpsom.eval()
    found: list[dict[str, Tensor]] = []
    for length in stays.lengths.unique().tolist():
        if length <= STEPS:
            continue
        chosen = (stays.lengths == length).nonzero().squeeze(1)
        for rows in chosen.split(CHUNK):
            with autocast(device_type=stays.inputs.device.type):
                found.append(_errors(tdpsom, stays.inputs[rows, :length], stays.observed[rows, :length]))
    if not found:
        return {}
    return {name: torch.cat([errors[name] for errors in found]).cpu().numpy() for name in found[0]}


def _errors(tdpsom: TDPSOM, inputs: Tensor, observed: Tensor) -> dict[str, Tensor]:
    """Errors `[B]` of whole series `[B, T, C]`."""
    latents = tdpsom.mean(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
    known, coming = latents[:, :-STEPS], latents[:, -STEPS:]
    data, measured = inputs[:, -STEPS:], observed[:, -STEPS:]

    def decoded(series: Tensor) -> Tensor:
        return tdpsom.decode(series.flatten(0, 1)).mean.unflatten(0, series.shape[:2])

    def errors(name: str, predicted: Tensor, values: Tensor) -> dict[str, Tensor]:
        squared = (values - data).square()
        return {
            f"{name}_latent": (predicted - coming).square().mean(dim=(1, 2)),
            f"{name}_reconstruction": (decoded(predicted) - reconstruction).square().mean(dim=(1, 2)),
            f"{name}_data": squared.mean(dim=(1, 2)),
            f"{name}_measured": (squared * measured).sum(dim=(1, 2)) / measured.sum(dim=(1, 2)),
        }

    reconstruction = decoded(coming)
    found = errors("persistence", known[:, -1:].expand_as(coming), inputs[:, -STEPS - 1, None].expand_as(data))
    if tdpsom.weights.eta > 0:
        predicted = tdpsom.forecast(known, STEPS)
        found |= errors("forecast", predicted, decoded(predicted))
    return found
