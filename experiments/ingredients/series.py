"""Images that fade into one another: the time series that SOM-VAE's authors made of MNIST.

One training step sees one sequence. It starts with the first image of the batch, fades linearly into another training
image, and has as many frames as the batch has samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.configuration import at_least, one_of
from experiments.errors import UserError
from experiments.ingredients.compute import seeded
from experiments.ingredients.data import Dataset, Split

import torch
from sacred import Ingredient
from torch import Tensor

series = Ingredient("series", save_git_info=False)
series.add_config(
    enabled=False,  # train on sequences instead of on images
    end="next_class",  # image that a sequence ends with: next_class, or saturated_pixels (what the original draws)
    noise=0.01,  # standard deviation of the noise on every value of every frame
)
SEED, HELD_OUT = 0, 300  # of the sequences that are evaluated, whatever the seed of the run; held-out ones in a split


Draw = Callable[[Tensor, Tensor], Tensor]
"""Indices `[B]` of images at which sequences end that start with images `[B, ...]` of classes `[B]`."""


@dataclass(frozen=True, eq=False)
class Series:
    """N sequences of T steps: `inputs` `[N, T, ...]` and a label of every step, `labels` `[N, T]`."""

    inputs: Tensor
    labels: Tensor

    def frames(self) -> Split:
        """All steps of all sequences, one behind the other."""
        return Split(self.inputs.flatten(0, 1), self.labels.flatten())


series.rules = {"series.end": one_of("next_class", "saturated_pixels"), "series.noise": at_least(0.0)}


@series.capture
def sequences(
    train: Split, number_of_classes: int, length: int, enabled: bool, end: str, noise: float
) -> Callable[[Tensor, Tensor], dict[str, Tensor]] | None:
    """What turns a batch of `inputs` `[T, ...]` and `labels` `[T]` into one sequence `[T, ...]`; None for images.

    Raises:
        UserError: fewer than two frames, or a training image from which no sequence could start.
    """
    if not enabled:
        return None
    if length < 2:
        raise UserError(f"a series of training.batch_size={length} frames is too short: it needs at least two")
    draw = DRAWS[end](train, number_of_classes)

    def sequence(inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        last = train.inputs[draw(inputs[:1], labels[:1])]
        frames = interpolate(inputs[:1], last, len(inputs))
        return {"inputs": frames + noise * torch.randn_like(frames)}

    return sequence


def share_of_end(length: int, device: torch.device) -> Tensor:
    """How far each frame `[length]` has faded into the end: 30 % rest, 35 % fade from 0 to 1, the remainder rests.

    At least two frames fade.
    """
    fading = max(2, int(length * 0.35))
    resting = min(int(length * 0.3), length - fading)
    share = torch.zeros(length, device=device)
    share[resting : resting + fading] = torch.linspace(0, 1, fading, device=device)
    share[resting + fading :] = 1
    return share


def interpolate(start: Tensor, end: Tensor, length: int) -> Tensor:
    """`[length, ...]` frames from `start` to `end` (each `[1, ...]`), faded as `share_of_end` says."""
    share = share_of_end(length, start.device)
    return start + share.view(-1, *[1] * (start.dim() - 1)) * (end - start)


@series.capture
def evaluated_series(dataset: Dataset, length: int, end: str, noise: float) -> dict[str, Series]:
    """Sequences of `train`, `validation` and `test` as training makes them, but always the same ones.

    Of `train` as many as an epoch has: whatever is fitted to them sees no less than a model that is trained.
    """
    numbers = {"train": max(1, len(dataset.train) // length)} | dict.fromkeys(dataset.held_out, HELD_OUT)
    with seeded(SEED):
        return {
            name: fading_images(split, DRAWS[end](split, len(dataset.classes)), numbers[name], length, noise)
            for name, split in {"train": dataset.train, **dataset.held_out}.items()
        }


def fading_images(split: Split, draw: Draw, number: int, length: int, noise: float) -> Series:
    """Sequences, at most `number`, that start with images of a split.

    A frame bears the label of the image it shows more of; half and half counts as the end.
    """
    first = torch.randperm(len(split))[:number].to(split.inputs.device)
    last = torch.cat([draw(split.inputs[index], split.labels[index]) for index in first.split(1)])
    frames = torch.stack([
        interpolate(start, end, length)
        for start, end in zip(split.inputs[first].split(1), split.inputs[last].split(1), strict=True)
    ])  # fmt: skip
    frames = frames + noise * torch.randn(frames.shape).to(frames.device)
    faded = share_of_end(length, frames.device) >= 0.5
    return Series(frames, torch.where(faded, split.labels[last, None], split.labels[first, None]))


def of_next_class(train: Split, classes: int) -> Draw:
    """Any image of the next class: a 3 fades into a 4 and a 9 into a 0."""
    sizes = torch.bincount(train.labels, minlength=classes)
    if not sizes.all():
        raise UserError("series.end=next_class needs images of every class in every split: raise data.limit")
    pick = uniform_member(train.labels.argsort(), sizes)
    return lambda images, labels: pick((labels + 1) % classes)


def by_saturated_pixels(train: Split, classes: int) -> Draw:
    """What the original draws, because it compares images where it means labels.

    Of all saturated pixels (exactly 1) of all images that lie where the start is exactly 0, one is drawn, and the
    sequence ends with its image: as good as any image, bright ones more often.
    """
    pixels, images_of_pixels = (train.inputs.flatten(1) == 1).t().nonzero().unbind(dim=1)
    sizes = torch.bincount(pixels, minlength=train.inputs[0].numel())
    ends = (train.inputs.flatten(1) == 0).float() @ sizes.float()
    if not ends.all():
        raise UserError("series.end=saturated_pixels finds no end for some images: use series.end=next_class")
    pick = uniform_member(images_of_pixels, sizes)
    return lambda images, labels: pick(torch.multinomial(sizes * (images.flatten(1) == 0).float(), 1).squeeze(1))


DRAWS: dict[str, Callable[[Split, int], Draw]] = {"next_class": of_next_class, "saturated_pixels": by_saturated_pixels}


def uniform_member(members: Tensor, sizes: Tensor) -> Callable[[Tensor], Tensor]:
    """Draws from groups that lie one behind the other in `members`: one member, evenly, for each group asked for."""
    first = sizes.cumsum(dim=0) - sizes

    def pick(groups: Tensor) -> Tensor:
        place = torch.rand(len(groups), dtype=torch.float64, device=groups.device) * sizes[groups]
        return members[first[groups] + place.long()]

    return pick
