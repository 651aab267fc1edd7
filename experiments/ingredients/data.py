"""Which data set, where it lies, how it is split and scaled: a Sacred ingredient that hands out plain tensors.

A new data set is one function `read_<name>(root) -> RawDataset` and one line in `READERS`; checks, splits, scaling
and the checksum are shared.
"""

import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace

from experiments import PROJECT
from experiments.configuration import at_least, inside, one_of, optional, text
from experiments.datasets.image_folder import read_pictures
from experiments.datasets.samples import SPLIT_SEED, Samples
from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError

import numpy as np
import torch
from sacred import Ingredient
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

UNUSED_FRACTION, LAST_FRACTION = 1 / 12, 1 / 6  # ratschlab/SOM-VAE: MNIST's first 5,000 images and its last 10,000
TEST_FRACTION = 0.2  # of sets that come without a test set, such as scikit-learn's digits
CIFAR10_SITE = "https://www.cs.toronto.edu/~kriz/"
SPLIT_NAMES = ("train", "training", "test", "testing", "val", "valid", "validation")  # no classes
SCALINGS = ("per_image_max", "unit")
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer; torchvision itself would wait for ever

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


def split_indices(size: int, held_out_fraction: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices to keep and to hold out, shuffled as DPSOM's `train_test_split(..., random_state=42)` does.

    Without a fraction as in SOM-VAE, in order: the first twelfth is in neither, the last sixth is held out.
    """
    if held_out_fraction is None:
        first, last = round(size * UNUSED_FRACTION), size - round(size * LAST_FRACTION)
        return np.arange(first, last), np.arange(last, size)
    kept, held_out = train_test_split(np.arange(size), test_size=held_out_fraction, random_state=SPLIT_SEED)
    return kept, held_out


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
        _require_original_file(folder / file_name, md5, dataset_class)
    with _unpacking(f"the files of {folder}") as scratch:
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
    _require_original_file(archive, datasets.CIFAR10.tgz_md5, source)
    with _unpacking(str(archive)) as scratch:
        datasets.utils.extract_archive(archive, scratch)
        train, test = (datasets.CIFAR10(scratch, train=train) for train in (True, False))
    (train_inputs, train_labels), (test_inputs, test_labels) = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    )
    return RawDataset(train_inputs, train_labels, test_inputs, test_labels, tuple(train.classes), maximum=255.0)


@contextmanager
def _unpacking(what: str) -> Iterator[str]:
    """A temporary folder to unpack `what` into; UserError where there is no room."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
    except OSError as error:
        raise UserError(
            f"cannot unpack {what} into {tempfile.gettempdir()} ({_with_type(error)}): "
            "free some space there, or name another folder in the environment variable TMPDIR"
        ) from error


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


data.rules = {
    "data.name": one_of(*READERS),
    "data.root": text,
    "data.scaling": one_of(*SCALINGS),
    "data.validation_fraction": optional(inside(0, 1)),
    "data.image_size": optional(at_least(1)),
    "data.limit": optional(at_least(1)),
}


def _require_original_file(path: Path, md5: str, dataset_class: type | SimpleNamespace) -> None:
    """Download `path` when it is missing; raise UserError unless it is then the file with this checksum."""
    utils = import_torchvision_datasets().utils
    try:
        if not path.exists():
            _download(path, md5, dataset_class)
        elif not utils.check_integrity(path, md5):
            raise UserError(
                f"{path} is not the original file (truncated or corrupt; its MD5 is not {md5}): "
                f"delete it to download it again, or replace it with {dataset_class.mirrors[0]}{path.name}"
            )
    except OSError as error:
        raise UserError(
            f"cannot read or write {path} ({_with_type(error)}): make it accessible, "
            f"or put {dataset_class.mirrors[0]}{path.name} (MD5 {md5}) there"
        ) from error


def _download(path: Path, md5: str, dataset_class: type | SimpleNamespace) -> None:
    """Fetch `path` from the first mirror that delivers it; it appears in its folder complete or not at all."""
    utils = import_torchvision_datasets().utils
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch, _socket_timeout():
        for mirror in dataset_class.mirrors:
            try:
                utils.download_url(f"{mirror}{path.name}", scratch, filename=path.name, md5=md5)
            except (OSError, HTTPException, RuntimeError) as error:
                reason = error
            else:
                os.replace(Path(scratch, path.name), path)
                return
    file_names = ", ".join(file_name for file_name, _ in dataset_class.resources)
    raise UserError(
        f"{path} is missing and could not be downloaded ({_with_type(reason)}): "
        f"put the files {file_names} from {dataset_class.mirrors[0]} into {path.parent}"
    )


@contextmanager
def _socket_timeout():
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _with_type(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
