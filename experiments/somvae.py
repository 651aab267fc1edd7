"""SOM-VAE: train an autoencoder and the self-organising map in its latent space together, in one phase.

    python experiments/somvae.py with mnist
    python experiments/somvae.py with mnist_series seed=3 model.map_size='[4, 12]'

Source: Fortuin et al., "SOM-VAE: Interpretable Discrete Representation Learning on Time Series", ICLR 2019, and its
code, ratschlab/SOM-VAE. The `*_faithful` configs compute what that code computes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.analyses.images_map import draw_map
from experiments.analyses.transitions import evaluate_series
from experiments.configuration import at_least, one_of, positive, weights_of
from experiments.datasets.samples import Samples
from experiments.errors import UserError
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.data import Split, data, load_dataset
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
    squared_error,
)
from experiments.ingredients.series import evaluated_series, sequences, series
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Phase, Trainer, Update, training_ingredient
from experiments.launch import launch
from experiments.record import Provenance, finish
from experiments.registration import register
from models.grid import Grid
from models.somvae import NETWORKS, SOMVAE, LossWeights

import torch
from sacred import Experiment
from torch import Tensor

training = training_ingredient(
    joint_epochs=20,  # of everything together
    transition_learning_rate=0.05,  # of the second step per batch, which trains the transitions alone
)
ex = Experiment("somvae", ingredients=[data, series, compute, training, evaluation, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run to continue
    model=dict(
        network="conv",  # conv, conv_small, dense or identity (the paper's GB-SOM: a map of the pixels)
        latent_dim=64,
        map_size=[8, 8],  # rows, columns
        torus=False,  # opposite edges of the map touch
        gradients="full",  # how reconstruction trains the latents: full, straight_through (gradcopy) or none (no_grads)
    ),
    loss=dict(
        alpha=1.0,  # weighs the commitment of latents and centroids to each other
        beta=0.9,  # weighs the neighbourhood of the map
        gamma=0.0,  # weighs the likelihood of the transitions; above 0 they have a second step per batch
        tau=0.0,  # weighs the smoothness of sequences
        gamma_twice=False,  # the original multiplies the transitions by gamma once more in the joint loss
    ),
)
CHUNK = 200  # images evaluated at once: 256 feature maps of 28 x 28 take 160 MB

register(
    ex,
    weights_of(LossWeights)
    | {
        "model.network": one_of(*NETWORKS),
        "model.latent_dim": at_least(1),
        "model.map_size": at_least(1),
        "model.gradients": one_of("full", "straight_through", "none"),
        "training.joint_epochs": at_least(0),
        "training.transition_learning_rate": positive,
    },
)


def build(config: Mapping[str, Any], samples: Samples) -> SOMVAE:
    """The model of a configuration for images.

    Raises:
        UserError: images that do not fit the network.
    """
    model = config["model"]
    options = {key: value for key, value in model.items() if key not in ("map_size", "torus")}
    grid = Grid(*model["map_size"], torus=model["torus"])
    try:
        return SOMVAE(samples.shape, grid, weights=LossWeights(**config["loss"]), **options)
    except ValueError as error:
        raise UserError(f"{error}: change data.image_size, model.latent_dim or model.network") from error


def phases(
    somvae: SOMVAE,
    labels: Tensor,
    sequence: Callable[..., dict[str, Tensor]] | None,
    training: dict[str, Any],
) -> list[Phase]:
    """The only phase of the paper, on images or on sequences.

    Raises:
        UserError: transitions between images that have no order.
    """
    if somvae.weights.temporal and not sequence:
        raise UserError("loss.gamma and loss.tau need an order in time: use series.enabled=True, or set both to 0")
    updates = [Update(somvae.joint_loss, (training["learning_rate"],))]
    if somvae.weights.gamma > 0:
        updates.append(Update(somvae.transition_loss, (training["transition_learning_rate"],)))
    columns = (lambda: {"labels": labels}) if sequence else None
    return [Phase("joint", training["joint_epochs"], tuple(updates), columns, sequence)]


def latents_of(somvae: SOMVAE, inputs: Tensor) -> Tensor:
    """Latents `[N, D]` of images."""
    return in_chunks(somvae, somvae.encode, inputs, CHUNK)


def prototypes(somvae: SOMVAE) -> Tensor:
    """The centroids as images, `[K, C, H, W]`."""
    return in_chunks(somvae, somvae.decode, somvae.centroids.detach())


def reconstructed(somvae: SOMVAE, latents: Tensor) -> Tensor:
    """Images `[N, C, H, W]` as the map sees them: the prototype nearest to each latent `[N, D]`."""
    return prototypes(somvae)[somvae.distances(latents).argmin(dim=1)]


def clustering(somvae: SOMVAE, split: Split) -> dict[str, float]:
    """Clustering metrics of a split."""
    latents = latents_of(somvae, split.inputs)
    return map_metrics(latents, split.labels, somvae.centroids, somvae.grid, topology=False)


def final_metrics(somvae: SOMVAE, split: Split, latents: Tensor) -> dict[str, float]:
    """All metrics of a split and its latents: clustering, topology, reconstruction."""
    errors = squared_error(split.inputs, reconstructed(somvae, latents))
    metrics = map_metrics(latents, split.labels, somvae.centroids, somvae.grid, topology=True)
    return metrics | {"reconstruction_error": errors.mean().item()}


def draw(tracker: Tracker, somvae: SOMVAE, split: Split, latents: Tensor, classes: tuple[str, ...], step: int) -> None:
    """Pictures of the map over a split and its latents."""
    draw_map(
        tracker,
        split,
        classes,
        somvae.grid,
        latents=latents,
        centroids=somvae.centroids,
        decoded_centroids=prototypes(somvae),
        reconstructed=reconstructed(somvae, latents[:SHOWN_RECONSTRUCTIONS]),
        step=step,
    )


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    dataset = load_dataset().to(device)
    train = dataset.train
    check_map_size(model["map_size"], len(train))
    somvae = build(_config, dataset.samples).to(device)
    sequence = sequences(train, len(dataset.classes), training["batch_size"])
    stages = phases(somvae, train.labels, sequence, training)
    parts = evaluated_parts(dataset.held_out, training["batch_size"])
    held_out = evaluated_series(dataset, training["batch_size"]) if sequence else None
    collapse = Collapse(somvae.grid, "lower training.learning_rate", only_at_the_end=True)
    may_collapse = model["gradients"] == "none"  # then it is the result, and published
    curve = learning_curve(parts, lambda part: clustering(somvae, part), None if may_collapse else collapse)
    with Tracker(_run) as tracker:
        progress = Trainer(somvae, stages, train.inputs, tracker, curve, _config, dataset.checksum).run()
        seen = {name: (part, latents_of(somvae, part.inputs)) for name, part in parts.items()}
        metrics = by_part(seen, lambda part: final_metrics(somvae, *part))
        step = len(progress.history)
        draw(tracker, somvae, *seen["validation"], dataset.classes, step)
        if held_out:
            metrics |= evaluate_series(
                tracker,
                held_out,
                encode=lambda frames: latents_of(somvae, frames),
                centroids=somvae.centroids,
                grid=somvae.grid,
                learned=somvae.learned_transitions(),
                decoded=prototypes(somvae),
                metrics_of=lambda frames, latents: final_metrics(somvae, frames, latents),
                step=step,
            )
        tracker.scalars(metrics, step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, dataset.samples)


if __name__ == "__main__":
    launch(ex)
