"""Files that others publish: downloaded when missing, compared with their checksums, unpacked for a while."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace

from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError, one_line

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer; torchvision itself would wait for ever


def require_original_file(path: Path, md5: str, dataset_class: type | SimpleNamespace) -> None:
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
def unpacking(what: str) -> Iterator[str]:
    """A temporary folder to unpack `what` into; UserError where there is no room."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
    except OSError as error:
        raise UserError(
            f"cannot unpack {what} into {tempfile.gettempdir()} ({_with_type(error)}): "
            "free some space there, or name another folder in the environment variable TMPDIR"
        ) from error


@contextmanager
def _socket_timeout():
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _with_type(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}".rstrip()
