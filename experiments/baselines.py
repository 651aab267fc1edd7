"""Baselines of SOM-VAE's paper that work on pixels: k-means (scikit-learn) and a plain self-organising map (MiniSom).

    python experiments/baselines.py with mnist_kmeans
    python experiments/baselines.py with mnist_minisom seed=3 model.map_size='[8, 8]'

They share data, splits, metrics and records with the models; VQ-VAE is a configuration of SOM-VAE.
"""

import time
from collections.abc import Callable

from experiments.analyses.images_map import draw_map
from experiments.analyses.transitions import evaluate_series
from experiments.configuration import at_least, one_of, positive
from experiments.engine.kmeans import kmeans
from experiments.engine.plain_som import minisom
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.data import Split, data, load_dataset
from experiments.ingredients.evaluation import (
    SHOWN_RECONSTRUCTIONS,
    by_part,
    check_map_size,
    map_metrics,
    squared_error,
)
from experiments.ingredients.series import evaluated_series, series
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Progress
from experiments.launch import launch
from experiments.measures.metrics import winners
from experiments.record import Provenance, finish
from experiments.registration import register
from models.grid import Grid

import numpy as np
import torch
from sacred import Experiment
from torch import Tensor

ex = Experiment("baselines", ingredients=[data, series, compute, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    model=dict(
        name="kmeans",  # kmeans or minisom
        map_size=[4, 4],  # rows, columns; k-means takes as many clusters and knows no map
        restarts=10,  # of k-means, the best of which is kept
        steps=45000,  # of MiniSom, one random sample each
        sigma=1.0,  # width of MiniSom's neighbourhood at the start, in units
        learning_rate=0.5,  # of MiniSom at the start
        sequence_length=32,  # frames of a sequence, with series.enabled
    ),
)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "kmeans": lambda samples, model, grid, seed: kmeans(samples, grid.size, model["restarts"], seed),
    "minisom": lambda samples, model, grid, seed: minisom(
        samples, grid, steps=model["steps"], sigma=model["sigma"], learning_rate=model["learning_rate"], seed=seed
    ),
}
"""From samples `[N, D]` to centroids `[K, D]`."""

register(
    ex,
    {
        "model.name": one_of(*METHODS),
        "model.map_size": at_least(1),
        "model.restarts": at_least(1),
        "model.steps": at_least(1),
        "model.sigma": positive,
        "model.learning_rate": positive,
        "model.sequence_length": at_least(2),
        "compute.device": one_of("auto", "cpu"),  # scikit-learn and MiniSom know no GPU ...
        "compute.precision": one_of("fp32"),  # ... nor this
        "compute.compile": one_of(False),
    },
)


def nearest(centroids: Tensor, inputs: Tensor) -> Tensor:
    """The centroid `[N, C, H, W]` nearest to each of `inputs`."""
    units = winners(inputs.flatten(1).numpy(), centroids.numpy())[0]
    return centroids[torch.from_numpy(units)].view_as(inputs)


def final_metrics(centroids: Tensor, split: Split, grid: Grid, has_map: bool) -> dict[str, float]:
    """Metrics of a split; those of topology only where the method has one."""
    metrics = map_metrics(split.inputs.flatten(1), split.labels, centroids, grid, topology=has_map)
    return metrics | {
        "reconstruction_error": squared_error(split.inputs, nearest(centroids, split.inputs)).mean().item()
    }


@ex.main
def main(_run, _config, seed, model, series) -> dict[str, float | None]:
    provenance = Provenance.of(_run)
    prepare()
    dataset = load_dataset()
    grid = Grid(*model["map_size"], torus=False)
    held_out = evaluated_series(dataset, model["sequence_length"]) if series["enabled"] else None
    samples = (held_out["train"].frames() if held_out else dataset.train).inputs.flatten(1).numpy()
    check_map_size(model["map_size"], len(samples))
    has_map = model["name"] != "kmeans"
    with Tracker(_run) as tracker:
        start = time.perf_counter()
        found = METHODS[model["name"]](samples, model, grid, seed)
        progress = Progress(seconds={"fit": time.perf_counter() - start})
        centroids = torch.from_numpy(np.asarray(found, np.float32))
        metrics = by_part(dataset.held_out, lambda split: final_metrics(centroids, split, grid, has_map))
        if held_out:
            metrics |= evaluate_series(
                tracker,
                held_out,
                encode=lambda frames: frames.flatten(1),
                centroids=centroids,
                grid=grid,
                learned=None,
                decoded=centroids.view(-1, *dataset.train.inputs.shape[1:]),
                metrics_of=lambda frames, _: final_metrics(centroids, frames, grid, has_map),
                step=1,
            )
        tracker.scalars(metrics, 1)
        shown = dataset.validation.inputs[:SHOWN_RECONSTRUCTIONS]
        draw_map(
            tracker,
            dataset.validation,
            dataset.classes,
            grid,
            latents=dataset.validation.inputs.flatten(1),
            centroids=centroids,
            decoded_centroids=centroids.view(-1, *shown.shape[1:]),
            reconstructed=nearest(centroids, shown),
            step=1,
        )
        cpu = torch.device("cpu")
        return finish(tracker, ex.path, _config, metrics, progress, provenance, cpu, dataset.samples)


if __name__ == "__main__":
    launch(ex)
