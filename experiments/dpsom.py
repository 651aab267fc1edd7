"""DPSOM: pretrain a variational autoencoder, lay a map into its latent space, then train both together.

    python experiments/dpsom.py with mnist
    python experiments/dpsom.py with fmnist_conv seed=3 model.map_size='[4, 12]'

Source: Manduchi et al., "T-DPSOM: An Interpretable Clustering Method for Unsupervised Learning of Patient Health
States", CHIL 2021, and its code, ratschlab/dpsom. The `*_faithful` configs compute what that code computes.
"""

from collections.abc import Mapping
from typing import Any

from experiments.analyses.images_map import draw_map
from experiments.configuration import any_length, at_least, between, one_of, positive, weights_of
from experiments.datasets.samples import Samples
from experiments.errors import UserError
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.data import Split, data, load_dataset
from experiments.ingredients.evaluation import (
    COLLAPSE_ADVICE,
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
from models.assignment import target_distribution
from models.dpsom import DPSOM, POSTERIORS, LossWeights
from models.grid import Grid

import torch
from sacred import Experiment
from torch import Tensor

training = training_ingredient(
    pretrain_epochs=15,  # of the autoencoder alone
    som_epochs=20,  # of the centroids alone, an equal share at each rate
    som_learning_rates=[0.9, 0.3, 0.1, 0.01],
    joint_epochs=300,  # of everything together
    target="sample",  # latents that the target distribution is made of: mean or sample
)
ex = Experiment("dpsom", ingredients=[data, compute, training, evaluation, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run to continue
    model=dict(
        network="dense",  # dense or conv
        latent_dim=100,
        map_size=[8, 8],  # rows, columns
        torus=True,  # opposite edges of the map touch
        alpha=10.0,  # degrees of freedom of the Student-t assignment
        posterior="diagonal",  # covariance of q(z|x): diagonal or full
        normalization="affine",  # of every hidden layer: affine (the originals'), batch or none
        normalize_before=False,  # ... before the activation instead of behind it
        dropout=0.0,  # rate in the encoder
        leaky_logits=True,  # the original's leaky ReLU on the dense decoder's logits
        assignment="mean",  # latents that are assigned to units when the map is evaluated: mean or sample
    ),
    loss=dict(
        theta=1.0,  # weighs the reconstruction (the ELBO)
        gamma=20.0,  # weighs the commitment to the target distribution
        beta=0.25,  # weighs the neighbourhood of the map
        prior=0.5,  # weighs KL(posterior || prior) inside the ELBO
    ),
)
register(
    ex,
    weights_of(LossWeights)
    | {
        "model.network": one_of("dense", "conv"),
        "model.latent_dim": at_least(1),
        "model.map_size": at_least(1),
        "model.alpha": positive,
        "model.posterior": one_of(*POSTERIORS),
        "model.normalization": one_of("affine", "batch", "none"),
        "model.dropout": between(0.0, 0.95),
        "model.assignment": one_of("mean", "sample"),
        "training.target": one_of("mean", "sample"),
        "training.pretrain_epochs": at_least(0),
        "training.som_epochs": at_least(0),
        "training.som_learning_rates": any_length(positive),
        "training.joint_epochs": at_least(0),
    },
)


def build(config: Mapping[str, Any], samples: Samples) -> DPSOM:
    """The model of a configuration for images.

    Raises:
        UserError: images that do not fit the network.
    """
    model = config["model"]
    options = {key: value for key, value in model.items() if key not in ("map_size", "torus", "assignment")}
    grid = Grid(*model["map_size"], torus=model["torus"])
    try:
        return DPSOM(samples.shape, grid, weights=LossWeights(**config["loss"]), **options)
    except ValueError as error:
        raise UserError(f"{error}: change data.image_size or use model.network=dense") from error


def latents_of(dpsom: DPSOM, inputs: Tensor, kind: str) -> Tensor:
    """The latents `[N, D]` of images: posterior means, or one sample each."""
    return in_chunks(dpsom, dpsom.mean if kind == "mean" else lambda chunk: dpsom.encode(chunk)[0], inputs)


def phases(dpsom: DPSOM, inputs: Tensor, training: dict[str, Any]) -> list[Phase]:
    """The three phases of the paper."""
    rate = (training["learning_rate"],)

    @torch.no_grad()
    def target() -> dict[str, Tensor]:
        return {"target": target_distribution(dpsom.assign(latents_of(dpsom, inputs, training["target"])))}

    return [
        Phase("pretrain", training["pretrain_epochs"], (Update(dpsom.pretraining_loss, rate),)),
        Phase(
            "som",
            training["som_epochs"],
            (Update(dpsom.som_initialization_loss, tuple(training["som_learning_rates"])),),
        ),
        Phase("joint", training["joint_epochs"], (Update(dpsom.joint_loss, rate),), columns=target),
    ]


def clustering(dpsom: DPSOM, split: Split, assignment: str) -> dict[str, float]:
    """Clustering metrics of a split."""
    latents = latents_of(dpsom, split.inputs, assignment)
    return map_metrics(latents, split.labels, dpsom.centroids, dpsom.grid, topology=False)


def final_metrics(dpsom: DPSOM, split: Split, latents: Tensor) -> dict[str, float]:
    """All metrics of a split and its latents: clustering, topology, reconstruction."""
    metrics = map_metrics(latents, split.labels, dpsom.centroids, dpsom.grid, topology=True)
    return metrics | {"reconstruction_error": reconstruction_error(dpsom, split.inputs)}


def draw(tracker: Tracker, dpsom: DPSOM, split: Split, latents: Tensor, classes: tuple[str, ...], step: int) -> None:
    """Pictures of the map over a split and its latents."""
    draw_map(
        tracker,
        split,
        classes,
        dpsom.grid,
        latents=latents,
        centroids=dpsom.centroids,
        decoded_centroids=in_chunks(dpsom, dpsom.decode, dpsom.centroids.detach()),
        reconstructed=in_chunks(dpsom, dpsom.reconstruct, split.inputs[:SHOWN_RECONSTRUCTIONS]),
        step=step,
    )


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    if model["normalization"] == "batch" and training["batch_size"] == 1:
        raise UserError("training.batch_size=1 is too small for model.normalization=batch: raise it or use affine")
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    dataset = load_dataset().to(device)
    check_map_size(model["map_size"], len(dataset.train))
    dpsom = build(_config, dataset.samples).to(device)
    parts = evaluated_parts(dataset.held_out, training["batch_size"])
    assignment = model["assignment"]
    stages = phases(dpsom, dataset.train.inputs, training)
    collapse = Collapse(dpsom.grid, COLLAPSE_ADVICE, only_at_the_end=False)
    curve = learning_curve(parts, lambda part: clustering(dpsom, part, assignment), collapse)
    with Tracker(_run) as tracker:
        progress = Trainer(dpsom, stages, dataset.train.inputs, tracker, curve, _config, dataset.checksum).run()
        seen = {name: (part, latents_of(dpsom, part.inputs, assignment)) for name, part in parts.items()}
        metrics = by_part(seen, lambda part: final_metrics(dpsom, *part))
        step = len(progress.history)
        tracker.scalars(metrics, step)
        draw(tracker, dpsom, *seen["validation"], dataset.classes, step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, dataset.samples)


if __name__ == "__main__":
    launch(ex)
