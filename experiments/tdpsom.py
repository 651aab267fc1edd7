"""T-DPSOM: DPSOM's map over every hour of every patient's stay, smooth in time, with a forecast of the next hours.

    python experiments/tdpsom.py with physionet2012
    python experiments/tdpsom.py with lorenz seed=3 model.map_size='[8, 8]'

Source: Manduchi et al., "T-DPSOM: An Interpretable Clustering Method for Unsupervised Learning of Patient Health
States", CHIL 2021, and its code, ratschlab/dpsom. The `*_faithful` configs compute what that code computes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from experiments.analyses.forecasting import forecast_metrics
from experiments.analyses.stays_map import draw_stays
from experiments.configuration import any_length, at_least, between, one_of, positive, weights_of
from experiments.datasets.samples import Samples
from experiments.datasets.stays import Stays
from experiments.errors import UserError
from experiments.ingredients.cohorts import data, load_parts, samples_of
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.evaluation import (
    COLLAPSE_ADVICE,
    Collapse,
    by_part,
    check_map_size,
    evaluated_parts,
    evaluation,
    in_chunks,
    learning_curve,
)
from experiments.ingredients.lorenz import lorenz
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Phase, Trainer, Update, training_ingredient
from experiments.launch import launch
from experiments.measures.hours import Hours, all_metrics, clustering, map_autocorrelation, movement
from experiments.measures.metrics import topology_metrics
from experiments.record import Provenance, finish
from experiments.registration import register
from models.assignment import target_distribution
from models.grid import Grid
from models.lstm import RECURRENT_ACTIVATIONS
from models.tdpsom import TDPSOM, LossWeights, SeriesLayout

import torch
from sacred import Experiment
from torch import Tensor

training = training_ingredient(
    pretrain_epochs=50,  # of the autoencoder alone
    som_epochs=48,  # of the centroids alone, an equal share at each rate
    som_learning_rates=[0.1, 0.01, 0.01],
    joint_epochs=100,  # of everything together, each batch with a second step of the forecaster alone
    prediction_epochs=50,  # of the forecaster alone
    target="mean",  # latents that the target distribution is made of: mean or sample
)
ex = Experiment("tdpsom", ingredients=[data, lorenz, compute, training, evaluation, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run to continue
    model=dict(
        latent_dim=50,
        map_size=[16, 16],  # rows, columns
        torus=True,  # opposite edges of the map touch
        alpha=10.0,  # degrees of freedom of the Student-t assignment
        lstm_units=200,  # of the forecaster
        recurrent_activation="sigmoid",  # of the forecaster's gates: sigmoid or hard_sigmoid (the original's)
        normalization="batch",  # of every hidden layer: affine (the originals'), batch or none
        normalize_before=True,  # ... before the activation instead of behind it
        dropout=0.0,  # rate in the encoder
        scale_minimum=0.1,  # smallest standard deviation of encoder, decoder and forecaster; the original has none
        assignment="mean",  # latents that are assigned to units when the map is evaluated: mean or sample
    ),
    loss=dict(
        theta=1.0,  # weighs the reconstruction (the ELBO)
        gamma=50.0,  # weighs the commitment to the target distribution
        beta=10.0,  # weighs the neighbourhood of the map
        kappa=1.0,  # weighs the smoothness in time
        eta=1.0,  # weighs the forecast; at 0 the forecaster is not trained
        prior=0.00001,  # weighs KL(posterior || prior) inside the ELBO
    ),
)
register(
    ex,
    weights_of(LossWeights)
    | {
        "model.latent_dim": at_least(1),
        "model.map_size": at_least(1),
        "model.alpha": positive,
        "model.lstm_units": at_least(1),
        "model.recurrent_activation": one_of(*RECURRENT_ACTIVATIONS),
        "model.normalization": one_of("affine", "batch", "none"),
        "model.dropout": between(0.0, 0.95),
        "model.scale_minimum": at_least(0.0),
        "model.assignment": one_of("mean", "sample"),
        "training.target": one_of("mean", "sample"),
        "training.pretrain_epochs": at_least(0),
        "training.som_epochs": at_least(0),
        "training.som_learning_rates": any_length(positive),
        "training.joint_epochs": at_least(0),
        "training.prediction_epochs": at_least(0),
    },
)


def build(config: Mapping[str, Any], samples: Samples) -> TDPSOM:
    """The model of a configuration for series."""
    model = config["model"]
    options = {key: value for key, value in model.items() if key not in ("map_size", "torus", "assignment")}
    grid = Grid(*model["map_size"], torus=model["torus"])
    return TDPSOM(samples.shape[-1], grid, weights=LossWeights(**config["loss"]), **options)


def latents_of(tdpsom: TDPSOM, stays: Stays, kind: str) -> Tensor:
    """The latents `[N, L]` of hours, as rows: posterior means, or one sample each."""
    encode = tdpsom.mean if kind == "mean" else lambda chunk: tdpsom.encode(chunk)[0]
    return in_chunks(tdpsom, encode, stays.inputs[stays.mask])


def phases(tdpsom: TDPSOM, train: Stays, training: dict[str, Any]) -> list[Phase]:
    """The four phases of the paper; without a weight of the forecast the last has no epochs."""
    rate, predicts = (training["learning_rate"],), tdpsom.weights.eta > 0
    mask = None if train.mask.all() else train.mask
    padding = {} if mask is None else {"mask": mask}

    @torch.no_grad()
    def target() -> dict[str, Tensor]:
        rows = target_distribution(tdpsom.assign(latents_of(tdpsom, train, training["target"])))
        return {"target": SeriesLayout(train.inputs, mask).series(rows), **padding}

    def forecaster_alone(target: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        return tdpsom.prediction_loss(**batch)

    together = (Update(tdpsom.joint_loss, rate), *([Update(forecaster_alone, rate)] if predicts else []))
    forecaster = Update(tdpsom.prediction_loss, rate)
    som = Update(tdpsom.som_initialization_loss, tuple(training["som_learning_rates"]))
    stage = partial(Phase, same_shapes=mask is None)
    return [
        stage("pretrain", training["pretrain_epochs"], (Update(tdpsom.pretraining_loss, rate),), lambda: padding),
        stage("som", training["som_epochs"], (som,), lambda: padding),
        stage("joint", training["joint_epochs"], together, target),
        stage("prediction", training["prediction_epochs"] if predicts else 0, (forecaster,), lambda: padding),
    ]


def final_metrics(tdpsom: TDPSOM, part: Stays, hours: Hours, latents: Tensor) -> dict[str, float]:
    """All metrics of a split, its hours and their latents: clustering, topology, movement, forecast."""
    metrics = all_metrics(hours, tdpsom.grid.size) | movement(hours, tdpsom.grid)
    metrics |= map_autocorrelation(hours, tdpsom.grid)
    metrics |= topology_metrics(latents.cpu().numpy(), tdpsom.centroids.detach().cpu().numpy(), tdpsom.grid)
    return metrics | forecast_metrics(tdpsom, part)


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    splits = {name: part.to(device) for name, part in load_parts().items()}
    train, parts = splits["train"], evaluated_parts(splits, training["batch_size"])
    if model["normalization"] == "batch" and training["batch_size"] == train.lengths.min() == 1:
        raise UserError("training.batch_size=1 is too small for batch normalisation of stays of one hour: raise it")
    check_map_size(model["map_size"], int(train.mask.sum()))
    samples = samples_of(splits)
    tdpsom = build(_config, samples).to(device)
    assignment = model["assignment"]
    stages = phases(tdpsom, train, training)
    collapse = Collapse(tdpsom.grid, COLLAPSE_ADVICE, only_at_the_end=False)
    curve = learning_curve(
        parts,
        lambda part: clustering(part, latents_of(tdpsom, part, assignment), tdpsom.centroids, tdpsom.grid),
        collapse,
    )
    with Tracker(_run) as tracker:
        progress = Trainer(tdpsom, stages, train.inputs, tracker, curve, _config, samples.checksum).run()
        seen = {}
        for name, part in parts.items():
            latents = latents_of(tdpsom, part, assignment)
            seen[name] = part, Hours.nearest(part, latents, tdpsom.centroids), latents
        metrics = by_part(seen, lambda part: final_metrics(tdpsom, *part))
        step = len(progress.history)
        tracker.scalars(metrics, step)
        draw_stays(tracker, tdpsom, *seen["validation"], step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, samples)


if __name__ == "__main__":
    launch(ex)
