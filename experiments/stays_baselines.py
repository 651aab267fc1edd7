"""Baselines of T-DPSOM: k-means (scikit-learn) of the raw hours of all stays, and SOM-VAE on the same stays.

    python experiments/stays_baselines.py with physionet2012_kmeans
    python experiments/stays_baselines.py with physionet2012_somvae_prob seed=3

They share stays, splits, metrics and records with T-DPSOM. DPSOM without time is a configuration of T-DPSOM.

Source of SOM-VAE: Fortuin et al., "SOM-VAE: Interpretable Discrete Representation Learning on Time Series", ICLR 2019.
"""

import time
from collections.abc import Mapping
from typing import Any

from experiments.analyses.transitions import Transitions, counted_transitions, draw_transitions, transition_metrics
from experiments.configuration import at_least, one_of, positive, weights_of
from experiments.datasets.samples import Samples
from experiments.datasets.stays import Stays
from experiments.drawing.figures import hit_map
from experiments.drawing.figures_series import attractor
from experiments.drawing.trajectories import write_trajectories
from experiments.engine.kmeans import kmeans
from experiments.errors import UserError
from experiments.ingredients.cohorts import data, load_parts, samples_of
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.evaluation import (
    Collapse,
    by_part,
    check_map_size,
    evaluated_parts,
    evaluation,
    in_chunks,
    learning_curve,
    reconstruction_error,
)
from experiments.ingredients.lorenz import lorenz
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Phase, Progress, Trainer, Update, training_ingredient
from experiments.launch import launch
from experiments.measures.hours import Hours, all_metrics, clustering, map_autocorrelation, movement, unit_table
from experiments.measures.metrics import topology_metrics
from experiments.record import Provenance, finish
from experiments.registration import register
from models.assignment import squared_distances
from models.grid import Grid
from models.somvae import LossWeights
from models.somvae_hours import SOMVAEOfHours

import numpy as np
import torch
from sacred import Experiment
from torch import Tensor, nn

training = training_ingredient(
    joint_epochs=20,  # of SOM-VAE
    transition_learning_rate=0.05,  # of its second step per batch, which trains the transitions alone
)
ex = Experiment(
    "stays_baselines", ingredients=[data, lorenz, compute, training, evaluation, tracking], save_git_info=False
)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run of SOM-VAE to continue
    model=dict(
        name="kmeans",  # kmeans or somvae
        map_size=[16, 16],  # rows, columns; k-means takes as many clusters and knows no map
        restarts=3,  # of k-means, the best of which is kept
        latent_dim=50,  # of SOM-VAE
    ),
    loss=dict(
        alpha=1.0,  # weighs SOM-VAE's commitment of latents and centroids to each other
        beta=0.9,  # weighs the neighbourhood of the map
        gamma=0.0,  # weighs the likelihood of the transitions; above 0 it is SOM-VAE-prob
        tau=0.0,  # weighs the smoothness of series
    ),
)
register(
    ex,
    weights_of(LossWeights)
    | {
        "model.name": one_of("kmeans", "somvae"),
        "model.map_size": at_least(1),
        "model.restarts": at_least(1),
        "model.latent_dim": at_least(1),
        "training.joint_epochs": at_least(0),
        "training.transition_learning_rate": positive,
    },
)


class KMeansOfHours(nn.Module):
    """The hours themselves are the latents, and clusters have no places on a map.

    Args:
        train: the stays whose hours are clustered.
        number: of clusters.
        restarts: of k-means, the best of which is kept.
        seed: of its start.
    """

    def __init__(self, train: Stays, number: int, restarts: int, seed: int) -> None:
        super().__init__()
        hours = train.inputs[train.mask].numpy()
        self.register_buffer("centroids", torch.from_numpy(kmeans(hours, number, restarts, seed)))

    def latents(self, hours: Tensor) -> Tensor:
        """Hours `[n, C]`, as they are."""
        return hours

    def reconstruct(self, hours: Tensor) -> Tensor:
        """The centroid nearest to each of the hours `[n, C]`."""
        return self.centroids[squared_distances(hours, self.centroids).argmin(dim=1)]

    def transitions(self) -> Tensor | None:
        return None


def build(config: Mapping[str, Any], samples: Samples) -> SOMVAEOfHours:
    """SOM-VAE of a configuration for series; its scale is that of no data yet.

    Raises:
        UserError: the configuration is one of k-means.
    """
    model = config["model"]
    if model["name"] == "kmeans":
        raise UserError("k-means leaves no model to take up: only runs with model.name=somvae do")
    grid = Grid(*model["map_size"], torus=False)
    return SOMVAEOfHours(samples.shape[-1], grid, model["latent_dim"], LossWeights(**config["loss"]))


def phases(model: SOMVAEOfHours, mask: Tensor, training: dict[str, Any]) -> list[Phase]:
    """Its one phase; `mask` `[N, T]` says which hours of the training stays count."""
    updates = [Update(model.somvae.joint_loss, (training["learning_rate"],))]
    if model.somvae.weights.gamma > 0:
        updates.append(Update(model.somvae.transition_loss, (training["transition_learning_rate"],)))
    epochs, alike = training["joint_epochs"], bool(mask.all())
    return [Phase("joint", epochs, tuple(updates), lambda: {"mask": mask}, model.rows, same_shapes=alike)]


Model = KMeansOfHours | SOMVAEOfHours


def latents_of(model: Model, stays: Stays) -> Tensor:
    """What is compared with the centroids, `[n, D]`."""
    return in_chunks(model, model.latents, stays.inputs[stays.mask])


def final_metrics(model: Model, part: Stays, hours: Hours, latents: Tensor, grid: Grid) -> dict[str, float]:
    """Metrics of a split; those of the map only where the method has one."""
    metrics, way = all_metrics(hours, grid.size), movement(hours, grid)
    metrics["reconstruction_error"] = reconstruction_error(model, part.inputs[part.mask])
    if isinstance(model, KMeansOfHours):
        return metrics | {"unit_changes": way["unit_changes"]} if way else metrics
    points, centroids = latents.cpu().numpy(), model.centroids.detach().cpu().numpy()
    return metrics | way | map_autocorrelation(hours, grid) | topology_metrics(points, centroids, grid)


def evaluate(tracker: Tracker, model: Model, parts: dict[str, Stays], grid: Grid, step: int) -> dict[str, float]:
    """All metrics of `validation` and `test`, and pictures of the first."""
    seen = {}
    for name, part in parts.items():
        latents = latents_of(model, part)
        seen[name] = part, Hours.nearest(part, latents, model.centroids), latents
    moves = {name: torch.from_numpy(hours.moves()) for name, (_, hours, _) in seen.items()}
    tables = Transitions(model.transitions(), counted_transitions(moves["train"], grid.size))
    draw(tracker, model, *seen["validation"][:2], tables, grid, step)
    held_out = {name: (*seen[name], moves[name]) for name in ("validation", "test")}
    return by_part(held_out, lambda part: final_metrics(model, *part[:3], grid) | transition_metrics(tables, part[3]))


def draw(
    tracker: Tracker, model: Model, stays: Stays, hours: Hours, tables: Transitions, grid: Grid, step: int
) -> None:
    """Pictures of the map in time, and of points of three values; of a map also `trajectories.npz`."""
    if isinstance(model, SOMVAEOfHours):
        centroids = model.centroids.detach().cpu().numpy()
        tracker.artifact(write_trajectories(tracker.folder, stays, hours, grid, centroids, unit_table(hours, grid)))
    tracker.figure("hit_map", hit_map(np.bincount(hours.units, minlength=grid.size), grid), step)
    whole = (stays.lengths == stays.inputs.shape[1]).cpu().numpy()
    if whole.any():
        paths = torch.from_numpy(hours.units[whole[hours.stays]]).view(-1, stays.inputs.shape[1])
        draw_transitions(tracker, paths, tables, grid, decoded=None, step=step)
    if stays.inputs.shape[2] == 3:
        names = [channel.name for channel in stays.description.channels]
        points = stays.inputs[stays.mask].cpu().numpy()
        tracker.figure("attractor", attractor(points, hours.units, grid, names), step)


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    splits = load_parts()
    train, samples = splits["train"], samples_of(splits)
    splits |= evaluated_parts(splits, training["batch_size"])
    check_map_size(model["map_size"], int(train.mask.sum()))
    grid = Grid(*model["map_size"], torus=False)
    with Tracker(_run) as tracker:
        if model["name"] == "kmeans":
            device, start = torch.device("cpu"), time.perf_counter()
            clusters = KMeansOfHours(train, grid.size, model["restarts"], seed)
            progress, parts = Progress(seconds={"fit": time.perf_counter() - start}), splits
        else:
            clusters = build(_config, samples).set_scale(train.inputs[train.mask]).to(device)
            parts = {name: part.to(device) for name, part in splits.items()}
            stages = phases(clusters, parts["train"].mask, training)
            evaluated = {name: parts[name] for name in ("validation", "test")}
            train_inputs = parts["train"].inputs
            collapse = Collapse(grid, "lower training.learning_rate", only_at_the_end=True)
            curve = learning_curve(
                evaluated,
                lambda part: clustering(part, latents_of(clusters, part), clusters.centroids, grid),
                collapse,
            )
            progress = Trainer(clusters, stages, train_inputs, tracker, curve, _config, samples.checksum).run()
        step = max(len(progress.history), 1)
        metrics = evaluate(tracker, clusters, parts, grid, step)
        tracker.scalars(metrics, step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, samples)


if __name__ == "__main__":
    launch(ex)
