"""TPAE: autoencoder blocks that see pictures through the prototypes of a map, stacked below a classifier.

    python experiments/tpae.py with cifar10
    python experiments/tpae.py with cifar10_downsampled seed=3 model.map_size='[8, 12]'
    python experiments/tpae.py with cifar10 data.name=image_folder data.root=pictures    # a folder for each class

Source: `brianchristensen/ml`, archive/tpae: public code and text. `cifar10_as_published` minimises what that code does.
"""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from experiments.analyses.images_map import draw_map
from experiments.configuration import at_least, one_of, positive, weights_of
from experiments.datasets.samples import Samples
from experiments.drawing import figures
from experiments.engine.processes import one_first
from experiments.errors import UserError
from experiments.ingredients.augmentation import augmentation, augmented
from experiments.ingredients.compute import compute, prepare
from experiments.ingredients.data import Split, data, load_dataset
from experiments.ingredients.evaluation import (
    by_part,
    evaluated_parts,
    evaluation,
    in_chunks,
    learning_curve,
    map_metrics,
    prefixed,
    squared_error,
)
from experiments.ingredients.tracking import Tracker, tracking
from experiments.ingredients.training import Phase, Trainer, Update, training_ingredient
from experiments.launch import launch
from experiments.record import Provenance, finish
from experiments.registration import register
from models.grid import Grid
from models.tpae import PHASES, TPAE, LossWeights, PlainCNN, accuracy

import numpy as np
import torch
import torch.nn.functional as F
from sacred import Experiment
from torch import Tensor

training = training_ingredient(
    reconstruct_epochs=2,  # reconstruction and prototype pictures alone
    organise_epochs=3,  # the maps alone, while their neighbourhoods shrink
    joint_epochs=15,  # everything, the classifier too
    organise_learning_rates=[0.05, 0.005],  # first and last while organising, geometric in between
    sigma=[3.0, 0.7],  # width of the neighbourhood in steps of the grid: first and last while organising, then the last
    final_rate=0.05,  # the joint phase's learning rate falls along half a cosine to this share of its first
)
ex = Experiment("tpae", ingredients=[data, augmentation, compute, training, evaluation, tracking], save_git_info=False)
ex.add_config(
    seed=0,
    resume=None,  # folder of an interrupted run to continue
    model=dict(
        network="tpae",  # tpae, or cnn: the encoder with a linear classifier, the baseline
        blocks=3,  # in the stack
        encoder="published",  # published: two convolutions; residual: a small residual network with batch normalisation
        width=32,  # channels of the residual encoder at full size
        latent_dim=64,
        map_size=[10, 10],  # rows, columns of each block's map
        torus=False,  # opposite edges of the map touch
        temperature=0.4,  # of the softmax over distances to prototypes
        assignment="soft",  # soft, gumbel (noise in training) or hard (the nearest prototype, straight through)
        sampling="native",  # what the fusion decoder works at: native, or downsampled to a quarter of the sides
        normalize_latents=True,  # latents of zero mean and unit variance: a map cannot shrink to please its loss
        recompute=False,  # decoders again in the backward pass instead of keeping what they computed: less memory
    ),
    loss=dict(
        reconstruction=10.0,  # weighs the fusion decoders' squared error
        pictures=10.0,  # weighs the prototype decoders' squared error
        neighbourhood=0.1,  # weighs the distance to the winner's surroundings on the grid
        pairwise=0.01,  # weighs the distance of latents whose winners are neighbours
        diversity=0.1,  # weighs the uneven use of prototypes
        classification=1.0,  # weighs the classifier's cross entropy
        auxiliary=0.2,  # weighs the cross entropy of classifiers of the prototype decoders' pictures
        adversarial=0.0,  # weighs what a discriminator makes of the last block's pictures; above 0 it trains as well
    ),
)
CHUNK = 500  # pictures evaluated at once
TRAINING_SAMPLES = 10_000  # of the training split, on which the training accuracy is taken
SHOWN = 8  # pictures in figures of single inputs
WALK_STEPS = 3  # pictures from one prototype to the next
BYTES_A_PAIR = 48  # of units, while the map is built

register(
    ex,
    weights_of(LossWeights)
    | {
        "model.network": one_of("tpae", "cnn"),
        "model.blocks": at_least(1),
        "model.encoder": one_of("published", "residual"),
        "model.width": at_least(1),
        "model.latent_dim": at_least(1),
        "model.map_size": at_least(1),
        "model.temperature": positive,
        "model.assignment": one_of("soft", "gumbel", "hard"),
        "model.sampling": one_of("native", "downsampled"),
        "training.reconstruct_epochs": at_least(0),
        "training.organise_epochs": at_least(0),
        "training.joint_epochs": at_least(0),
        "training.organise_learning_rates": positive,
        "training.sigma": positive,
        "training.final_rate": positive,
    },
)


def build(config: Mapping[str, Any], samples: Samples) -> TPAE | PlainCNN:
    """The model of a configuration for pictures and their classes.

    Raises:
        UserError: pictures that do not fit the network, or more prototypes than fit into memory.
    """
    model, shape, classes = config["model"], samples.shape, len(samples.classes)
    options = {key: value for key, value in model.items() if key not in ("network", "map_size", "torus")}
    try:
        if model["network"] == "cnn":
            return PlainCNN(shape, classes, model["encoder"], model["width"])
        require_memory(model["map_size"], os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        grid = Grid(*model["map_size"], torus=model["torus"])
        return TPAE(shape, classes, grid, weights=LossWeights(**config["loss"]), **options)
    except ValueError as error:
        raise UserError(f"{error}: change data.image_size") from error


def require_memory(map_size: list[int], available: int) -> None:
    """Raise UserError unless the distances between all units of the map fit into so many bytes."""
    units = map_size[0] * map_size[1]
    needed = BYTES_A_PAIR * units**2
    if needed > available:
        raise UserError(
            f"model.map_size={list(map_size)} has {units:,} prototypes, and the distances between them take "
            f"{needed / 2**30:,.0f} GiB of {available / 2**30:,.0f}: make it smaller"
        )


def phases(net: TPAE | PlainCNN, labels: Tensor, training: dict[str, Any], steps_per_epoch: int) -> list[Phase]:
    """The document's three phases; of the plain CNN the last alone.

    Raises:
        UserError: phases that a plain CNN does not have, or that would do nothing.
    """
    epochs = {name: training[f"{name}_epochs"] for name in ("reconstruct", "organise", "joint")}
    rate = training["learning_rate"]
    steps = max(epochs["joint"] * steps_per_epoch, 1)
    shrinking = training["final_rate"] + (1 - training["final_rate"]) * (1 + np.cos(np.linspace(0, np.pi, steps))) / 2
    falling = tuple((rate * shrinking).tolist())

    def columns() -> dict[str, Tensor]:
        return {"labels": labels}

    def varied(inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"inputs": augmented(inputs), "labels": labels}

    if isinstance(net, PlainCNN):
        if epochs["reconstruct"] or epochs["organise"]:
            raise UserError(
                "model.network=cnn only classifies: set training.reconstruct_epochs and organise_epochs to 0"
            )
        return [Phase("joint", epochs["joint"], (Update(net.loss, falling),), columns, varied)]
    for name, terms in PHASES.items():
        if epochs[name] and not any(getattr(net.weights, term) for term in terms):
            weights = ", ".join(f"loss.{term}" for term in terms)
            raise UserError(f"nothing to train: give one of {weights} a weight, or set training.{name}_epochs to 0")
    if epochs["organise"] and not net.weights.neighbourhood:
        raise UserError("with loss.neighbourhood=0 there is nothing to organise: set training.organise_epochs to 0")
    first, last = training["sigma"]
    steps = max(epochs["organise"] * steps_per_epoch, 1)
    sigmas, map_rates = (
        tuple(np.geomspace(*training[name], steps).tolist()) for name in ("sigma", "organise_learning_rates")
    )
    reconstruct = Update(partial(net.loss, "reconstruct"), (rate,), {"sigma": (first,)})
    organise = Update(net.map_loss, map_rates, {"sigma": sigmas})
    joint = [Update(partial(net.loss, "joint"), falling, {"sigma": (last,)})]
    if net.weights.adversarial:
        joint.append(Update(net.discriminator_loss, falling))
    return [
        Phase("reconstruct", epochs["reconstruct"], (reconstruct,), columns, varied),
        Phase("organise", epochs["organise"], (organise,), columns, varied),
        Phase("joint", epochs["joint"], tuple(joint), columns, varied),
    ]


def described(net: TPAE | PlainCNN, inputs: Tensor) -> dict[str, list[Tensor]]:
    """What evaluation needs of pictures `[N, C, H, W]`, each a list over the blocks, in one pass.

    `logits` (of the last block alone) `[N, classes]`, `latents` `[N, D]`, `reconstruction_error` and `picture_error`
    `[N]`.
    """

    if isinstance(net, PlainCNN):
        logits = in_chunks(net, net.logits, inputs, CHUNK)
        return {"logits": [logits], "latents": [], "reconstruction_error": [], "picture_error": []}

    def row(chunk: Tensor) -> Tensor:
        seen = net(chunk)
        parts = [net.classify(seen)]
        parts += [one.latents for one in seen]
        parts += [squared_error(chunk, one.reconstruction)[:, None] for one in seen]
        parts += [squared_error(chunk, picture)[:, None] for picture in net.pictures(seen)]
        return torch.cat(parts, dim=1)

    blocks, (classes, latent_dim) = len(net.blocks), net.classifier.weight.shape
    widths = [classes, *[latent_dim] * blocks, *[1] * (2 * blocks)]
    logits, *others = in_chunks(net, row, inputs, CHUNK).split(widths, dim=1)
    errors = [column.squeeze(1) for column in others[blocks:]]
    return {
        "logits": [logits],
        "latents": others[:blocks],
        "reconstruction_error": errors[:blocks],
        "picture_error": errors[blocks:],
    }


def metrics_of(net: TPAE | PlainCNN, split: Split, topology: bool) -> dict[str, float]:
    """Accuracy and errors of a split and, with `topology`, the metrics of every block's map.

    Those of the last block carry no prefix, those of block i also `block<i>_`.
    """
    found = described(net, split.inputs)
    metrics = {"classifier_accuracy": accuracy(found["logits"][0], split.labels).item()}
    for name in ("reconstruction_error", "picture_error"):
        for number, errors in enumerate(found[name], start=1):
            metrics[f"block{number}_{name}"] = metrics[name] = errors.mean().item()
    if topology and found["latents"]:
        for number, (block, latents) in enumerate(zip(net.blocks, found["latents"], strict=True), start=1):
            of_map = map_metrics(latents, split.labels, block.som.prototypes, block.som.grid, topology=True)
            metrics |= of_map | {f"block{number}_{name}": value for name, value in of_map.items()}
    return metrics


def final_metrics(net: TPAE | PlainCNN, train: Split, parts: dict[str, Split]) -> dict[str, float]:
    """All metrics of the splits; of the training split, unaugmented, accuracy and errors."""
    of_training = prefixed("train", metrics_of(net, train.first(TRAINING_SAMPLES), topology=False))
    return of_training | by_part(parts, lambda split: metrics_of(net, split, topology=True))


@torch.no_grad()
def draw(tracker: Tracker, net: TPAE, split: Split, classes: tuple[str, ...], step: int) -> None:
    """Pictures of the last block's map over a split, and of what each block does."""
    shown = split.inputs[:SHOWN]
    found = described(net, split.inputs)
    seen = net.eval()(shown)
    last = net.blocks[-1]
    prototypes = [block.picture(block.som.prototypes).cpu().numpy() for block in net.blocks]
    draw_map(
        tracker,
        split,
        classes,
        net.grid,
        latents=found["latents"][-1],
        centroids=last.som.prototypes,
        decoded_centroids=torch.from_numpy(prototypes[-1]),
        reconstructed=seen[-1].reconstruction,
        step=step,
    )
    for number, pictures in enumerate(prototypes, start=1):
        title = f"Decoded map of block {number}"
        tracker.figure(f"decoded_map_block{number}", figures.decoded_map(pictures, net.grid, title), step)
    inputs = shown.cpu().numpy()
    by_block = {"input": inputs}
    for number, (one, picture) in enumerate(zip(seen, net.pictures(seen), strict=True), start=1):
        by_block[f"block {number}, fusion"] = one.reconstruction.cpu().numpy()
        by_block[f"block {number}, map alone"] = picture.cpu().numpy()
    note = "fusion decoders see the input as well as the map; below each, what the map alone knows"
    tracker.figure("reconstructions_by_block", figures.picture_rows("Reconstruction by block", note, by_block), step)
    walks = {name: last.picture(latents).cpu().numpy() for name, latents in walks_across(last.som).items()}
    note = (
        f"decoded on the way from prototype to prototype of block {len(net.blocks)}, {WALK_STEPS} pictures for a step"
    )
    tracker.figure("walk", figures.picture_rows("Walks across the map", note, walks), step)
    weights = np.stack([one.assignment.weights.cpu().numpy() for one in seen])
    tracker.figure("activation_maps", figures.activation_maps(inputs, weights, net.grid), step)


def walks_across(som: torch.nn.Module) -> dict[str, Tensor]:
    """Latents `[steps, D]` on straight lines over the grid: along its middle row, its middle column and a diagonal."""
    rows, columns = som.grid.shape
    ends = {
        "middle row": ((rows // 2, 0), (rows // 2, columns - 1)),
        "middle column": ((0, columns // 2), (rows - 1, columns // 2)),
        "diagonal": ((0, 0), (rows - 1, columns - 1)),
    }
    steps = WALK_STEPS * (max(rows, columns) - 1) + 1
    share = torch.linspace(0, 1, steps, device=som.prototypes.device)[:, None]
    return {
        name: between_prototypes(som, *(torch.tensor(end, device=share.device) for end in pair), share)
        for name, pair in ends.items()
    }


def between_prototypes(som: torch.nn.Module, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Bilinear interpolation of the prototypes at `start + share (end - start)` on the grid: `[steps, D]`."""
    last = torch.tensor(som.grid.shape, device=share.device) - 1
    places = 2 * (start + share * (end - start)) / last.clamp_min(1) - 1  # [steps, 2], row and column from -1 to 1
    codebook = som.prototypes.t().unflatten(1, som.grid.shape)[None]
    return F.grid_sample(codebook, places.flip(1)[None, None], padding_mode="border", align_corners=True)[0, :, 0].t()


@ex.main
def main(_run, _config, seed, model, training) -> dict[str, float | None]:
    if model["encoder"] == "residual" and training["batch_size"] == 1:
        raise UserError("training.batch_size=1 is too small for the batch normalisation of model.encoder=residual")
    provenance = Provenance.of(_run)
    device = prepare()
    torch.manual_seed(seed)
    with one_first():
        dataset = load_dataset().to(device)
    train = dataset.train
    net = build(_config, dataset.samples).to(device)
    stages = phases(net, train.labels, training, max(len(train) // training["batch_size"], 1))
    parts = evaluated_parts(dataset.held_out, training["batch_size"])
    curve = learning_curve(parts, lambda split: metrics_of(net, split, topology=True))
    with Tracker(_run) as tracker:
        progress = Trainer(net, stages, train.inputs, tracker, curve, _config, dataset.checksum).run()
        metrics = final_metrics(net, train, parts)
        step = len(progress.history)
        tracker.scalars(metrics, step)
        if isinstance(net, TPAE):
            draw(tracker, net, parts["validation"], dataset.classes, step)
        return finish(tracker, ex.path, _config, metrics, progress, provenance, device, dataset.samples)


if __name__ == "__main__":
    launch(ex, in_processes=True)
