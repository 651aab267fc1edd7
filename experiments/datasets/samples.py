"""What a model has to know of its data to be built, and whoever uses it later: `data.json` in a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.datasets.stays import Channel
from experiments.errors import UserError
from experiments.files import write_atomically

FILE_NAME = "data.json"


@dataclass(frozen=True)
class Samples:
    """The samples of a data set.

    Attributes:
        shape: of one: `(C, H, W)` of a picture, `(T, C)` of a series of at most T hours.
        classes: names of the labels 0, 1, … of pictures.
        channels: C of a series, with the normalisation that made its values.
        splits: number of samples of each.
        checksum: SHA-256 of the data.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    checksum: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Samples":
        """The inverse of `asdict`, also behind JSON.

        Raises:
            TypeError, KeyError: it is something else.
        """
        parts = {"shape": tuple(content["shape"]), "classes": tuple(content["classes"])}
        return cls(**{**content, **parts, "channels": tuple(Channel(**channel) for channel in content["channels"])})

    def write(self, folder: Path) -> None:
        """Write `data.json`."""
        write_atomically(folder / FILE_NAME, (json.dumps(asdict(self), indent=1) + "\n").encode())


def read_samples(folder: Path) -> Samples:
    """What the `data.json` of a run's folder says.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / FILE_NAME
    try:
        return Samples.of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged, so its model cannot be built: run it again") from error
