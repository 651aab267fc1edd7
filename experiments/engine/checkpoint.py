"""Checkpoints: written atomically, read without running pickled code, refused when they belong to another run."""

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError

import torch


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of everything in a configuration that can change a result: all but `tracking`, threads and `resume`."""
    relevant = {key: value for key, value in config.items() if key not in ("tracking", "resume")}
    relevant["compute"] = {key: value for key, value in config["compute"].items() if key != "threads"}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that `path` always holds a whole checkpoint: the old one or the new one.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch's own when a full disk cuts its archive short
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"cannot write the checkpoint {path}: {reason}; free space and resume") from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, config_fingerprint: str) -> dict[str, Any]:
    """Read a checkpoint of the configuration with this fingerprint.

    Raises:
        UserError: there is none, it is damaged, or it belongs to another configuration.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch.load compares no checksums
                raise zipfile.BadZipFile(broken)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}: nothing to resume, start the run anew") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): start the run anew") from error
    if not isinstance(state, dict) or state.get("fingerprint") != config_fingerprint:
        raise UserError(f"{path} belongs to another configuration: use the one it was trained with")
    return state
