"""Topography: a self-organising map of the inputs themselves, trained as a layer with a loss.

    python experiments/topography.py with mnist
    python experiments/topography.py with digits training.sigma='[5.0, 5.0]'

The second command shows what a neighbourhood that never shrinks costs. `experiments/baselines.py` trains the package
MiniSom on the same pixels; `training.minisom_steps` trains it here, on the same latents.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from experiments.analyses.images_map import draw_map
from experiments.configuration import at_least, one_of, positive
from experiments.datasets.samples import Samples
from experiments.drawing import figures
from experiments.engine.optimization import OPTIMIZERS
from experiments.engine.plain_som import minisom
from experiments.errors import UserError
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.data import Split, data, load_dataset, scale_
from experiments.ingredients.evaluation import (
    SHOWN_RECONSTRUCTIONS,
    Collapse,
    by_part,
    check_map_size,
    evaluated_parts,
    evaluation,
    in_chunks,
    learning_curve,
    map_metrics,
    reconstruction_error,
)
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Phase, Trainer, Update, training_ingredient
from experiments.launch import launch
from experiments.record import Provenance, finish
from experiments.registration import register
from models.grid import Grid
from models.topography import LatentTopography, Topography

import numpy as np
import torch
from sacred import Experiment
from torch import Tensor

training = training_ingredient(
    encoder_epochs=20,  # of the autoencoder, with model.encoder=dense
    encoder_learning_rate=0.001,
    epochs=50,
    minisom_steps=0,  # above 0, the map is trained by the package MiniSom instead, one random sample a step
    optimizer="adam",  # adam or sgd (with momentum 0.9)
    sigma=[4.0, 0.5],  # width of the neighbourhood in steps of the grid: first and last epoch, geometric in between
)
ex = Experiment("topography", ingredients=[data, compute, training, evaluation, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run to continue
    model=dict(
        encoder="none",  # what the map is of: none, the inputs themselves; dense, latents of a dense autoencoder
        latent_dim=10,  # of that autoencoder
        map_size=[8, 8],  # rows, columns
        torus=False,  # opposite edges of the map touch
        grid_metric="euclidean",  # distance between units on the grid: euclidean, manhattan or chebyshev
        unit_norm=False,  # scale inputs and centroids to unit length before they are compared
    ),
)
register(
    ex,
    {
        "model.encoder": one_of("none", "dense"),
        "model.latent_dim": at_least(1),
        "model.map_size": at_least(1),
        "model.grid_metric": one_of("euclidean", "manhattan", "chebyshev"),
        "training.encoder_epochs": at_least(1),
        "training.encoder_learning_rate": positive,
        "training.epochs": at_least(1),
        "training.minisom_steps": at_least(0),
        "training.optimizer": one_of(*OPTIMIZERS),
        "training.sigma": positive,
    },
)


def build(config: Mapping[str, Any], samples: Samples) -> Topography:
    """The map of a configuration for samples of any shape.

    Raises:
        UserError: a map that MiniSom does not have, where MiniSom is to train it.
    """
    model = config["model"]
    is_plain = not (model["torus"] or model["unit_norm"]) and model["grid_metric"] == "euclidean"
    if config["training"]["minisom_steps"] and not is_plain:
        raise UserError(
            "training.minisom_steps trains a plain map: it needs model.torus=False, model.unit_norm=False and "
            "model.grid_metric=euclidean"
        )
    grid = Grid(*model["map_size"], torus=model["torus"])
    options = {key: model[key] for key in ("grid_metric", "unit_norm")}
    if model["encoder"] == "dense":
        return LatentTopography(samples.shape, model["latent_dim"], grid, **options)
    return Topography(math.prod(samples.shape), grid, **options)


def phases(topography: Topography, training: dict[str, Any]) -> list[Phase]:
    """One phase, in which the neighbourhood shrinks; before it the autoencoder's, if there is one."""
    stages = []
    if isinstance(topography, LatentTopography):
        update = Update(topography.autoencoder_loss, (training["encoder_learning_rate"],))
        stages.append(Phase("encoder", training["encoder_epochs"], (update,)))
    if not training["minisom_steps"]:
        sigmas = np.geomspace(*training["sigma"], training["epochs"]).tolist()
        update = Update(topography.loss, (training["learning_rate"],), {"sigma": tuple(sigmas)})
        stages.append(Phase("map", training["epochs"], (update,)))
    return stages


@torch.no_grad()
def fit_minisom(topography: Topography, inputs: Tensor, training: dict[str, Any], seed: int) -> float:
    """Train the centroids by the package MiniSom, from the first sigma on; returns the seconds it took."""
    features = in_chunks(topography, topography.features, inputs).cpu().numpy()
    steps, sigma = training["minisom_steps"], training["sigma"][0]
    start = time.perf_counter()
    found = minisom(features, topography.grid, steps=steps, sigma=sigma, learning_rate=0.5, seed=seed)
    seconds = time.perf_counter() - start
    topography.centroids.copy_(torch.from_numpy(found))
    return seconds


def metrics_of(topography: Topography, split: Split) -> dict[str, float]:
    """Metrics of the map on a split: clustering and topology."""
    features = in_chunks(topography, topography.features, split.inputs)
    return map_metrics(features, split.labels, topography.units(), topography.grid, topology=True)


def final_metrics(topography: Topography, split: Split) -> dict[str, float]:
    """All metrics of a split: clustering, topology, reconstruction."""
    return metrics_of(topography, split) | {"reconstruction_error": reconstruction_error(topography, split.inputs)}


@torch.no_grad()
def draw(tracker: Tracker, topography: Topography, split: Split, classes: tuple[str, ...], step: int) -> None:
    """Pictures of the map over a split; units without a scale of their own by their largest pixel."""
    features = in_chunks(topography, topography.features, split.inputs)
    pictures = topography.decode(topography.units(), split.inputs.shape[1:])
    draw_map(
        tracker,
        split,
        classes,
        topography.grid,
        latents=features,
        centroids=topography.units(),
        decoded_centroids=scale_(pictures.clone(), "per_image_max", 1.0) if topography.unit_norm else pictures,
        reconstructed=in_chunks(topography, topography.reconstruct, split.inputs[:SHOWN_RECONSTRUCTIONS]),
        step=step,
    )
    if features.shape[1] == 2:
        plane = figures.map_in_plane(features.cpu().numpy(), topography.units().cpu().numpy(), topography.grid)
        tracker.figure("map_in_plane", plane, step)


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    dataset = load_dataset().to(device)
    inputs = dataset.train.inputs
    check_map_size(model["map_size"], len(inputs))
    topography = build(_config, dataset.samples).to(device)
    stages = phases(topography, training)
    parts = evaluated_parts(dataset.held_out, training["batch_size"])
    optimizer = OPTIMIZERS[training["optimizer"]]
    advice = "lower training.learning_rate, or raise training.encoder_epochs if there is an encoder"
    collapse = Collapse(topography.grid, advice, only_at_the_end=True, phase="map")
    curve = learning_curve(parts, lambda part: metrics_of(topography, part), collapse)
    with Tracker(_run) as tracker:
        training_run = Trainer(topography, stages, inputs, tracker, curve, _config, dataset.checksum, optimizer)
        progress = training_run.run()
        if training["minisom_steps"] and "map" not in progress.seconds:
            progress.seconds["map"] = fit_minisom(topography, inputs, training, seed)
            training_run.save()
        metrics = by_part(parts, lambda part: final_metrics(topography, part))
        step = max(len(progress.history), 1)
        tracker.scalars(metrics, step)
        draw(tracker, topography, parts["validation"], dataset.classes, step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, dataset.samples)


if __name__ == "__main__":
    launch(ex)
