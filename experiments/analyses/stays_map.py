"""The pictures and the table of units that a run on stays leaves, all over the validation split."""

import csv
import io
from collections.abc import Sequence

from experiments.analyses.forecasting import STEPS
from experiments.datasets.stays import Channel, Stays
from experiments.drawing import figures, figures_stays
from experiments.drawing.figures_stays import Line
from experiments.drawing.trajectories import label_spread, quantity_words, write_trajectories
from experiments.files import write_atomically
from experiments.ingredients.compute import autocast, seeded
from experiments.ingredients.evaluation import in_chunks
from experiments.ingredients.tracking import Tracker
from experiments.measures.hours import Hours, unit_table
from models.tdpsom import TDPSOM

import numpy as np
import torch
from torch import Tensor

UNITS = "units.csv"
SHOWN_VARIABLES = 6  # that are measured most often
TYPICAL_UNITS, TYPICAL_STAYS, TYPICAL_VARIABLES = 5, 3, 4
FORECASTS = 300  # samples of the fan


def draw_stays(tracker: Tracker, tdpsom: TDPSOM, stays: Stays, hours: Hours, latents: Tensor, step: int) -> None:
    """Log risk maps, hit map, U-matrix, component planes, a trajectory, a forecast and typical stays.

    Keeps `units.csv` and, for reports, `trajectories.npz`.

    Args:
        hours: of `stays`, with the units that win them.
        latents: `[n, L]` of these hours.
    """
    grid = tdpsom.grid
    table, centroids = unit_table(hours, grid), tdpsom.centroids.detach().cpu().numpy()
    tracker.artifact(write_units(tracker, table))
    tracker.artifact(write_trajectories(tracker.folder, stays, hours, grid, centroids, table))
    pictures = {
        "hit_map": figures.hit_map(np.array([row["hours"] for row in table]), grid),
        "u_matrix": figures.u_matrix(centroids, grid),
        "component_planes": planes(tdpsom, stays),
    }
    label, risks = hours.first_label, quantity_words(stays)
    values = {name: np.array([row[name] for row in table]) for name in risks}
    for name, words in risks.items():
        pictures[f"risk_{name}"] = figures_stays.risk_map(values[name], grid, f"Risk map: {name}", words)
    shown = int(label_spread(stays).argmax())
    subject = f"validation stay {stays.name(shown)}"
    rows = np.flatnonzero(hours.stays == shown)
    soft = tdpsom.assign(latents[torch.from_numpy(rows).to(latents.device)]).detach().cpu().numpy()
    pictures["trajectory"] = figures_stays.trajectory(
        soft, values[label], risks[label], grid, subject, hours.labels[label][rows], label
    )
    variables = often_measured(stays)
    if len(rows) > STEPS and tdpsom.weights.eta > 0:
        lines = clinical_lines(stays, shown, variables[:SHOWN_VARIABLES])
        samples = clinical_forecasts(tdpsom, stays, shown, variables[:SHOWN_VARIABLES])
        pictures["forecast"] = figures_stays.forecast_fan(lines, samples, subject)
    if np.isfinite(values[label]).any():
        pictures["typical_stays"] = typical(tdpsom, stays, hours, latents, values[label], variables[:TYPICAL_VARIABLES])
    for name, figure in pictures.items():
        tracker.figure(name, figure, step)


def write_units(tracker: Tracker, table: list[dict[str, float | int]]):
    """`units.csv` in the run folder: the table of `unit_table`."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, table[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()} for row in table
    )
    path = tracker.folder / UNITS
    write_atomically(path, buffer.getvalue().encode())
    return path


def planes(tdpsom: TDPSOM, stays: Stays):
    """Component planes of the decoded centroids."""
    decoded = in_chunks(tdpsom, lambda chunk: tdpsom.decode(chunk).mean, tdpsom.centroids.detach()).cpu().numpy()
    channels = stays.description.channels
    values, labels = in_clinical_units(decoded, channels), [channel.label for channel in channels]
    return figures_stays.component_planes(values.T, labels, decoded.std(axis=0), tdpsom.grid)


def in_clinical_units(values: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """Normalised values `[..., C]` of these channels in their own units."""
    mean, scale = np.array([(channel.mean, channel.scale) for channel in channels]).T
    return values * scale + mean


def often_measured(stays: Stays) -> list[int]:
    """Channels, those measured in most hours first."""
    return stays.observed.float().mean(dim=(0, 1)).argsort(descending=True, stable=True).tolist()


def clinical_lines(stays: Stays, stay: int, variables: list[int]) -> list[Line]:
    """These variables of one stay, in clinical units; NaN before they are first measured."""
    length = int(stays.lengths[stay])
    inputs, observed = stays.inputs[stay, :length].cpu().numpy(), stays.observed[stay, :length].cpu().numpy()
    channels = stays.description.channels
    values = in_clinical_units(np.where(np.maximum.accumulate(observed, axis=0), inputs, np.nan), channels)
    return [Line(channels[index].label, values[:, index], observed[:, index]) for index in variables]


@torch.no_grad()
def clinical_forecasts(tdpsom: TDPSOM, stays: Stays, stay: int, variables: list[int]) -> np.ndarray:
    """Samples `[S, steps, C]` of the last hours of one stay, in clinical units."""
    tdpsom.eval()
    inputs = stays.inputs[stay, : int(stays.lengths[stay]) - STEPS]
    with seeded(0), autocast(device_type=inputs.device.type):
        known = tdpsom.mean(inputs).expand(FORECASTS, -1, -1)
        coming = tdpsom.forecast(known, STEPS, sampled=True)
        values = tdpsom.decode(coming.flatten(0, 1)).sample().unflatten(0, coming.shape[:2])
    channels = [stays.description.channels[index] for index in variables]
    return in_clinical_units(values[..., variables].cpu().numpy(), channels)


def typical(tdpsom: TDPSOM, stays: Stays, hours: Hours, latents: Tensor, risk: np.ndarray, variables: list[int]):
    """The stays nearest to the centroids of units from the least to the greatest `risk` [K]."""
    common = often_visited(np.bincount(hours.units, minlength=tdpsom.grid.size), risk)
    ranked = common[np.argsort(risk[common], kind="stable")]
    chosen = ranked[np.unique(np.linspace(0, len(ranked) - 1, TYPICAL_UNITS).round().astype(int))]
    points, centroids = latents.cpu().numpy(), tdpsom.centroids.detach().cpu().numpy()
    first = np.cumsum(stays.lengths.cpu().numpy()) - stays.lengths.cpu().numpy()
    pictures = {}
    for unit in chosen:
        members = np.flatnonzero(hours.units == unit)
        order = members[np.argsort(np.linalg.norm(points[members] - centroids[unit], axis=1), kind="stable")]
        _, unique = np.unique(hours.stays[order], return_index=True)
        nearest = order[np.sort(unique)[:TYPICAL_STAYS]]
        row, column = divmod(int(unit), tdpsom.grid.shape[1])
        pictures[f"unit ({row}, {column})\nmean {risk[unit]:.1f}"] = [
            (int(hour - first[hours.stays[hour]]), clinical_lines(stays, int(hours.stays[hour]), variables))
            for hour in nearest
        ]
    return figures_stays.typical_stays(pictures)


def often_visited(visits: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """The units with a known `risk` [K] that are visited at least as often as half of these."""
    known = np.isfinite(risk)
    return np.flatnonzero(known & (visits >= np.median(visits[known])))
