"""Data sets of images as they are stored.

A new one is a function `read_<name>(root) -> RawDataset` and a line in `READERS`; checks, splits, scaling and the
checksum are shared.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from experiments.datasets.image_folder import read_pictures
from experiments.datasets.original_files import require_original_file, unpacking
from experiments.datasets.splits import TEST_FRACTION, split_indices
from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

CIFAR10_SITE = "https://www.cs.toronto.edu/~kriz/"
SPLIT_NAMES = ("train", "training", "test", "testing", "val", "valid", "validation")  # no classes


@dataclass(frozen=True, eq=False)
class RawDataset:
    """What a reader returns: values as stored, [N, C, H, W] and [N].

    `maximum` is the largest value that can occur; `by_class`: stored class by class, so that no part shows the whole.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    maximum: float
    by_class: bool = False

    def checksum(self) -> str:
        """SHA-256 over type, shape and little-endian bytes of the four arrays: equal on every machine."""
        digest = hashlib.sha256()
        for tensor in (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels):
            array = np.ascontiguousarray(tensor.numpy())
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array)
        return digest.hexdigest()


def read_digits(root: Path) -> RawDataset:
    """scikit-learn's bundled 8x8 digits, 1,797 images of 0..16; nothing is read from `root`."""
    digits = load_digits()
    inputs = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = split_indices(len(labels), TEST_FRACTION)
    return RawDataset(
        train_inputs=inputs[train],
        train_labels=labels[train],
        test_inputs=inputs[test],
        test_labels=labels[test],
        classes=tuple(str(name) for name in digits.target_names),
        maximum=16.0,
    )


def read_square(root: Path) -> RawDataset:
    """2,500 points drawn evenly from the unit square, always the same, as pictures of 1 x 2 pixels; for maps of them.

    The class is the quadrant; nothing is read from `root`.
    """
    points = torch.rand(2500, 2, generator=torch.Generator().manual_seed(0))
    inputs, labels = points[:, None, None], (points > 0.5).long() @ torch.tensor([1, 2])
    return RawDataset(
        train_inputs=inputs[:2000],
        train_labels=labels[:2000],
        test_inputs=inputs[2000:],
        test_labels=labels[2000:],
        classes=("both low", "first high", "second high", "both high"),
        maximum=1.0,
    )


def read_torchvision_idx(class_name: str, root: Path) -> RawDataset:
    """A data set of torchvision's MNIST family from `<root>/<class_name>/raw/*.gz`, downloaded there when missing.

    The compressed files are the ones with published checksums, so they alone are trusted: each is compared with
    torchvision's MD5 and unpacked into a temporary folder. Unpacked copies beside them are not looked at, and `root`
    may be read-only.
    """
    datasets = import_torchvision_datasets()
    dataset_class = getattr(datasets, class_name)
    folder = root / class_name / "raw"
    for file_name, md5 in dataset_class.resources:
        require_original_file(folder / file_name, md5, dataset_class)
    with unpacking(f"the files of {folder}") as scratch:
        unpacked = Path(scratch, class_name, "raw")
        unpacked.mkdir(parents=True)
        for file_name, _ in dataset_class.resources:
            datasets.utils.extract_archive(folder / file_name, unpacked)
        train, test = dataset_class(scratch, train=True), dataset_class(scratch, train=False)
    return RawDataset(
        train_inputs=train.data.unsqueeze(1),
        train_labels=train.targets,
        test_inputs=test.data.unsqueeze(1),
        test_labels=test.targets,
        classes=tuple(name.split(" - ")[0] for name in dataset_class.classes),  # "0 - zero" -> "0"
        maximum=255.0,
    )


def read_cifar10(root: Path) -> RawDataset:
    """CIFAR-10 from `<root>/cifar-10-python.tar.gz`, downloaded there when missing and compared with its checksum."""
    datasets = import_torchvision_datasets()
    archive = root / datasets.CIFAR10.filename
    source = SimpleNamespace(mirrors=[CIFAR10_SITE], resources=[(archive.name, datasets.CIFAR10.tgz_md5)])
    require_original_file(archive, datasets.CIFAR10.tgz_md5, source)
    with unpacking(str(archive)) as scratch:
        datasets.utils.extract_archive(archive, scratch)
        train, test = (datasets.CIFAR10(scratch, train=train) for train in (True, False))
    (train_inputs, train_labels), (test_inputs, test_labels) = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    )
    return RawDataset(train_inputs, train_labels, test_inputs, test_labels, tuple(train.classes), maximum=255.0)


def read_image_folder(root: Path) -> RawDataset:
    """Pictures in a folder for each class: in `<root>/train` and `<root>/test`, or in `root` itself.

    Without a `test` folder a fixed fifth is held out for testing, as of the digits.

    Raises:
        UserError: see `read_pictures`; training and test set have different classes or kinds of pictures; a folder is
            called as a split that would be ignored or taken for a class.
    """
    _check_splits(root)
    whole = root / "train" if os.path.isdir(root / "train") else root
    pictures = read_pictures(whole)
    inputs, labels = torch.from_numpy(pictures.inputs), torch.from_numpy(pictures.labels)
    has_test_set = whole != root and os.path.isdir(root / "test")
    if not has_test_set:
        if len(labels) == 1:
            raise UserError(f"{whole} holds a single picture: it takes some for training and some for testing")
        train, test = split_indices(len(labels), TEST_FRACTION)
        parts = inputs[train], labels[train], inputs[test], labels[test]
    else:
        held_out = read_pictures(root / "test")
        if held_out.classes != pictures.classes or held_out.inputs.shape[1:] != pictures.inputs.shape[1:]:
            raise UserError(
                f"{root / 'train'} and {root / 'test'} differ in their classes or in the size or mode of their pictures"
            )
        parts = inputs, labels, torch.from_numpy(held_out.inputs), torch.from_numpy(held_out.labels)
    return RawDataset(*parts, classes=pictures.classes, maximum=255.0, by_class=has_test_set)


def _check_splits(root: Path) -> None:
    try:
        folders = {name for name in os.listdir(root) if os.path.isdir(root / name)}
    except OSError:  # of which `read_pictures` tells
        return
    splits = {"train", "test"} if "train" in folders else set()
    if strange := sorted(name for name in folders - splits if name.lower() in SPLIT_NAMES):
        raise UserError(
            f"{root} has the folder {strange[0]}: call the folders of splits train and test and move others away "
            "(data.validation_fraction of train becomes the validation split)"
        )


READERS: dict[str, Callable[[Path], RawDataset]] = {
    "digits": read_digits,
    "square": read_square,
    "mnist": partial(read_torchvision_idx, "MNIST"),
    "fmnist": partial(read_torchvision_idx, "FashionMNIST"),
    "cifar10": read_cifar10,
    "image_folder": read_image_folder,
}
