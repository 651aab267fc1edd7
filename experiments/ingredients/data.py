"""Which data set, where it lies, how it is split and scaled: a Sacred ingredient that hands out plain tensors."""

import os
from dataclasses import dataclass, replace

from experiments import PROJECT
from experiments.configuration import at_least, inside, one_of, optional, text
from experiments.datasets.readers import READERS
from experiments.datasets.samples import Samples
from experiments.datasets.splits import SPLIT_SEED, split_indices
from experiments.errors import UserError

import numpy as np
import torch
from sacred import Ingredient
from torch import Tensor
from torch.nn import functional

SCALINGS = ("per_image_max", "unit")

data = Ingredient("data", save_git_info=False)
data.add_config(
    {
        # digits (bundled with scikit-learn), mnist, fmnist, cifar10, image_folder (your own), square (generated)
        "name": "digits",
        # folder of the downloaded files, or of an image folder's classes; a relative path starts at the project folder
        "root": "data",
        "scaling": "per_image_max",  # each image by its own maximum (as the originals); unit: all by 255 (digits: 16)
        "validation_fraction": 0.15,  # share of the training set held out at random; None: its last sixth, as SOM-VAE
        "image_size": None,  # height and width to resize to, bilinearly; None keeps the set's own
        "limit": None,  # use only the first so many samples of each split; None uses all
    }
)

data.rules = {
    "data.name": one_of(*READERS),
    "data.root": text,
    "data.scaling": one_of(*SCALINGS),
    "data.validation_fraction": optional(inside(0, 1)),
    "data.image_size": optional(at_least(1)),
    "data.limit": optional(at_least(1)),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Samples that are used together: `inputs` [N, C, H, W] float32 in [0, 1], `labels` [N] int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Split":
        """The first `count` samples."""
        return Split(self.inputs[:count], self.labels[:count])

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for training. `checksum` is the SHA-256 of what was read, before splitting and scaling."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    checksum: str

    @property
    def held_out(self) -> dict[str, Split]:
        """The splits that no model is trained on."""
        return {"validation": self.validation, "test": self.test}

    @property
    def samples(self) -> Samples:
        """What a model has to know of them."""
        splits = {name: len(getattr(self, name)) for name in ("train", "validation", "test")}
        return Samples(tuple(self.train.inputs.shape[1:]), self.classes, splits=splits, checksum=self.checksum)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with all three splits on `device`."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )


@data.capture
def load_dataset(
    name: str,
    root: str,
    scaling: str,
    validation_fraction: float | None,
    image_size: int | None,
    limit: int | None,
) -> Dataset:
    """Read, check, split and scale the configured data set; all tensors on the CPU.

    Within a run Sacred fills in the arguments from the config `data`. The test set is the published one (digits: a
    fixed fifth); validation is taken from the training set as ratschlab/dpsom does (MNIST gives 51,000 / 9,000 / 10,000
    samples) or, without a fraction, as ratschlab/SOM-VAE does (45,000 / 10,000 / 10,000).

    Raises:
        UserError: a split that is too small, or would lack classes; files that cannot be read or downloaded, or are not
            the original ones.
    """
    raw = READERS[name](PROJECT / os.path.expanduser(root))
    if raw.by_class and validation_fraction is None:
        raise UserError(
            f"data.validation_fraction=None splits in the order of the files, and {name} is ordered by class: "
            "give a fraction"
        )
    try:
        train, validation = split_indices(len(raw.train_labels), validation_fraction)
    except ValueError as error:
        raise UserError(f"data.validation_fraction is {validation_fraction}: {name} is too small for it") from error

    def prepare(inputs: Tensor, labels: Tensor, indices: np.ndarray) -> Split:
        chosen = torch.from_numpy(indices[:limit])
        return Split(scale_(resize(inputs[chosen].float(), image_size), scaling, raw.maximum), labels[chosen])

    test = np.arange(len(raw.test_labels))
    if raw.by_class and limit and limit < len(test):
        test = np.random.default_rng(SPLIT_SEED).permutation(test)
    return Dataset(
        name=name,
        train=prepare(raw.train_inputs, raw.train_labels, train),
        validation=prepare(raw.train_inputs, raw.train_labels, validation),
        test=prepare(raw.test_inputs, raw.test_labels, test),
        classes=raw.classes,
        checksum=raw.checksum(),
    )


def resize(images: Tensor, size: int | None) -> Tensor:
    """Bilinear resizing [N, C, H, W] -> [N, C, size, size]; `None` returns the images as they are."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def scale_(inputs: Tensor, scaling: str, maximum: float) -> Tensor:
    """Scale float inputs [N, ...] to [0, 1] in place: each sample by its own maximum, or all by `maximum`.

    A sample without any positive value stays as it is (the originals would divide by zero).
    """
    if scaling == "unit":
        return inputs.div_(maximum)
    largest = inputs.flatten(1).amax(1).view(-1, *[1] * (inputs.dim() - 1))
    return inputs.div_(torch.where(largest > 0, largest, 1.0))
