"""Pictures of one's own: a folder for each class, read once into one tensor and kept beside them for the next run."""

import hashlib
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError, one_line

import numpy as np
from PIL import Image
from tqdm import tqdm

CACHE_NAME = ".pictures.npz"
CHANNELS = {"L": 1, "RGB": 3}


@dataclass(frozen=True, eq=False)
class Pictures:
    """`inputs` [N, C, H, W] uint8 and `labels` [N] int64, classes in the order of their folders' names."""

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def read_pictures(folder: Path) -> Pictures:
    """All pictures of `<folder>/<class>/...` (JPEG, PNG and what else torchvision's ImageFolder takes).

    They are kept in `<folder>/.pictures.npz`, which is used while names, sizes and dates of all files stay the same; a
    folder that cannot be written is read anew each time.

    Raises:
        UserError: no folder, no classes, a class without pictures, a picture that cannot be read, or pictures that are
            not all of one size and either all grey or all RGB.
    """
    samples, classes = _listed(folder)
    fingerprint = _fingerprint(folder, samples)
    if (kept := _kept(folder / CACHE_NAME, fingerprint)) is not None:
        return Pictures(kept["inputs"], kept["labels"], classes)
    first = open_picture(samples[0][0])
    inputs = np.empty((len(samples), *first.shape), np.uint8)
    for row, (path, _) in enumerate(tqdm(samples, desc=f"reading {folder.name}", unit="picture", mininterval=1.0)):
        picture = open_picture(path)
        if picture.shape != first.shape:
            raise UserError(
                f"{path} is {_kind(picture)}, but {samples[0][0]} is {_kind(first)}: "
                "an image folder needs pictures of one size, all grey or all RGB (data.image_size resizes only those)"
            )
        inputs[row] = picture
    pictures = Pictures(inputs, np.array([label for _, label in samples], np.int64), classes)
    _keep(folder / CACHE_NAME, pictures, fingerprint)
    return pictures


def _listed(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(path, class) of every picture, and the names of the classes."""
    datasets = import_torchvision_datasets()
    try:
        found = datasets.ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        missing = "it does not exist; a relative data.root starts at the project's folder"
        reason = one_line(error) if os.path.isdir(folder) else missing
        raise UserError(
            f"{folder} is no image folder ({reason}): it needs one folder of pictures for each class"
        ) from error
    return found.samples, tuple(found.classes)


def pictures_below(folder: Path) -> list[Path]:
    """Every file in `folder` and below it whose name ends as that of a picture, sorted.

    Raises:
        UserError: there is none.
    """
    endings = import_torchvision_datasets().folder.IMG_EXTENSIONS
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not found:
        raise UserError(f"there are no pictures in {folder} ({', '.join(endings)}): give a folder of them")
    return found


def open_picture(path: str) -> np.ndarray:
    """The values of a picture, `[C, H, W]` uint8.

    Raises:
        UserError: it cannot be read, or is neither grey nor RGB of 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in CHANNELS:
                raise UserError(f"{path} is in mode {image.mode}: convert it to RGB or to grey (L), 8 bits a value")
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error  # Pillow raises SyntaxError for some damaged PNG files
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _unreadable(path: str, error: Exception) -> UserError:
    reason = one_line(error)
    return UserError(f"{path} cannot be read as a picture ({reason}): replace or delete it")


def _kind(picture: np.ndarray) -> str:
    channels, height, width = picture.shape
    return f"{width} x {height} pixels in {'grey' if channels == 1 else 'RGB'}"


def _fingerprint(folder: Path, samples: list[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for path, label in samples:
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        digest.update(f"{os.path.relpath(path, folder)}\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _kept(path: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as content:
            return dict(content) if str(content["fingerprint"]) == fingerprint else None
    except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _keep(path: Path, pictures: Pictures, fingerprint: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with suppress(OSError):
        try:
            with partial.open("wb") as file:
                np.savez(file, inputs=pictures.inputs, labels=pictures.labels, fingerprint=np.array(fingerprint))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
