"""Patient stays as hourly series, and their common file format, whatever hospital data base they come from.

A folder holds `stays.safetensors` with, for N stays of at most T hours in C channels,

    inputs          [N, T, C] float32   normalised and filled; zero behind the end of a stay
    observed        [N, T, C] bool      measured in that hour, before filling
    lengths         [N]       int32     hours of each stay, 1 … T
    label.<name>    [N, T]    int16     class of an hour; -1: none
    outcome.<name>  [N]       float32   of a whole stay; NaN: not known
    static          [N, S]    float32   what does not change; NaN: not known
    split           [N]       int8      0 training, 1 validation, 2 test

and `stays.json`, a `Description`. A value in clinical units is `inputs * scale + mean`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path

from experiments.errors import UserError, one_line
from experiments.files import write_atomically

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = 1
GENERATED = "generated"  # in place of a checksum
TENSORS, DESCRIPTION = "stays.safetensors", "stays.json"
SPLITS = ("train", "validation", "test")
LABEL, OUTCOME = "label.", "outcome."
KINDS = {
    "inputs": torch.float32,
    "observed": torch.bool,
    "lengths": torch.int32,
    "static": torch.float32,
    "split": torch.int8,
}


@dataclass(frozen=True)
class Channel:
    """A variable: its unit, and the normalisation that made `inputs` of its values."""

    name: str
    unit: str
    mean: float
    scale: float

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Description:
    """What `stays.json` says.

    Attributes:
        name: of the data set.
        channels: C of them.
        static: names of the S static variables.
        source_checksum: of the files the stays were made from, and of how; another one makes the stays stale.
        counts: whatever the preparation counted: stays left out, values out of range, ...
        checksum: SHA-256 of `stays.safetensors`; filled in when it is written.
        format: version of this format.
        time: what passes between two hours, and `step` how much of it: generated points are no hours.
        classes: by label, names of its classes where they are more than numbers.
        stays: names of the N stays, if they have any.
    """

    name: str
    channels: tuple[Channel, ...]
    static: tuple[str, ...]
    source_checksum: str
    counts: dict[str, int | float] = field(default_factory=dict)
    checksum: str = ""
    format: int = FORMAT
    time: str = "hour"
    step: float = 1.0
    classes: dict[str, list[str]] = field(default_factory=dict)
    stays: tuple[str, ...] = ()

    @property
    def generated(self) -> bool:
        """Whether they are nobody's data, which may be published."""
        return self.checksum == GENERATED


@dataclass(frozen=True, eq=False)
class Stays:
    """N stays; the module's text gives shapes and types. `labels` and `outcomes` are by name."""

    inputs: Tensor
    observed: Tensor
    lengths: Tensor
    labels: dict[str, Tensor]
    outcomes: dict[str, Tensor]
    static: Tensor
    split: Tensor
    description: Description

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def mask(self) -> Tensor:
        """`[N, T]`: which hours belong to the stays."""
        return torch.arange(self.inputs.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def part(self, name: str) -> "Stays":
        """The stays of one of `SPLITS`."""
        chosen = self.split == SPLITS.index(name)
        return self._map(lambda tensor: tensor[chosen], tuple(compress(self.description.stays, chosen.tolist())))

    def first(self, count: int | None) -> "Stays":
        """The first `count` stays; None: all of them."""
        return self._map(lambda tensor: tensor[:count], self.description.stays[:count])

    def to(self, device: torch.device | str) -> "Stays":
        """The same stays on `device`."""
        return self._map(lambda tensor: tensor.to(device), self.description.stays)

    def name(self, stay: int) -> str:
        """What a stay is called; its number where they have no names."""
        return self.description.stays[stay] if self.description.stays else str(stay)

    def _map(self, function: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> "Stays":
        return replace(
            self,
            **{name: function(getattr(self, name)) for name in KINDS},
            labels={name: function(label) for name, label in self.labels.items()},
            outcomes={name: function(outcome) for name, outcome in self.outcomes.items()},
            description=replace(self.description, stays=names),
        )


def write_stays(folder: Path, stays: Stays) -> Stays:
    """Check stays and write both files; return what `read_stays` will.

    While this runs the folder holds no stays, or the same ones: others who prepare them at the same time may read them.

    Raises:
        UserError: a split without stays, a value that is not finite, or a folder that cannot be written.
        ValueError: shapes, types or padding that are not the format's: a mistake of the preparation.
    """
    check(stays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = _description_or_none(folder)
        if present is None or present.source_checksum != stays.description.source_checksum:
            (folder / DESCRIPTION).unlink(missing_ok=True)
        content = save({name: tensor.contiguous() for name, tensor in _tensors(stays).items()})
        description = replace(stays.description, checksum=hashlib.sha256(content).hexdigest())
        write_atomically(folder / TENSORS, content)
        write_atomically(folder / DESCRIPTION, (json.dumps(asdict(description), indent=1) + "\n").encode())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder / TENSORS} ({reason}): make room there or permit writing") from error
    return replace(stays, description=description)


def read_stays(folder: Path) -> Stays:
    """The stays of a folder.

    Raises:
        UserError: there are none, or they are damaged or of another format.
    """
    description = read_description(folder)
    if description is None:
        raise UserError(f"{folder} holds no prepared stays ({TENSORS} and {DESCRIPTION}): prepare them first")
    path = folder / TENSORS
    try:
        if _sha256(path) != description.checksum:
            raise UserError(f"{path} is not the file that {DESCRIPTION} describes: delete both and prepare them again")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        stays = Stays(
            **{name: tensors[name] for name in KINDS},
            labels=_without_prefix(tensors, LABEL),
            outcomes=_without_prefix(tensors, OUTCOME),
            description=description,
        )
        check(stays)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        reason = one_line(error)
        raise UserError(f"{path} cannot be used ({reason}): delete it and prepare it again") from error
    return stays


def read_description(folder: Path) -> Description | None:
    """What a folder's `stays.json` says; None without one.

    Raises:
        UserError: it is damaged or of another format.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(f"format {content.get('format')!r}, this version reads {FORMAT}")
        channels = tuple(Channel(**channel) for channel in content.pop("channels"))
        static, names = tuple(content.pop("static")), tuple(content.pop("stays", ()))
        return Description(channels=channels, static=static, stays=names, **content)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = one_line(error)
        raise UserError(f"{path} cannot be used ({reason}): delete it and prepare the stays again") from error


def _description_or_none(folder: Path) -> Description | None:
    """As `read_description`; None for a damaged one or one of another format, too."""
    try:
        return read_description(folder)
    except UserError:
        return None


def cached_stays(folder: Path, source_checksum: str | None, prepare: Callable[[], Stays]) -> Stays:
    """The stays of a folder; `prepare` makes and this writes them first where there are none or stale ones.

    Args:
        source_checksum: of the present source; None where the source is gone and any stays will do.
    """
    description = _description_or_none(folder)
    if description is None or source_checksum not in (None, description.source_checksum):
        return write_stays(folder, prepare())
    return read_stays(folder)


def check(stays: Stays) -> None:
    """Raise what `write_stays` says unless the stays are as the format has them."""
    count, hours, channels = stays.inputs.shape
    shapes = {
        "inputs": (count, hours, channels),
        "observed": (count, hours, channels),
        "lengths": (count,),
        "static": (count, len(stays.description.static)),
        "split": (count,),
    }
    shapes |= {LABEL + name: (count, hours) for name in stays.labels}
    shapes |= {OUTCOME + name: (count,) for name in stays.outcomes}
    for name, tensor in _tensors(stays).items():
        kind = KINDS.get(name, torch.int16 if name.startswith(LABEL) else torch.float32)
        if tuple(tensor.shape) != shapes[name] or tensor.dtype != kind:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, it must be {kind} {shapes[name]}")
    if not stays.labels:
        raise ValueError(f"it has no {LABEL}<name>, the classes that the map is measured by")
    names = [channel.name for channel in stays.description.channels]
    if len(names) != channels or len(set(names)) != channels:
        raise ValueError(f"{channels} channels need as many different names, not {names}")
    if len(stays.description.stays) not in (0, count):
        raise ValueError(f"{count} stays need as many names, not {len(stays.description.stays)}")
    for number, name in enumerate(SPLITS):
        if not (stays.split == number).any():
            raise UserError(f"the {name} split of {stays.description.name} has no stays: check the source files")
    if not ((stays.lengths >= 1) & (stays.lengths <= hours)).all():
        raise ValueError(f"lengths must lie in 1 … {hours}")
    if not (finite := stays.inputs.isfinite().all(dim=(0, 1))).all():
        broken = ", ".join(name for name, good in zip(names, finite.tolist(), strict=True) if not good)
        raise UserError(f"{broken} is not finite after normalisation: check its values in the source files")
    behind = ~stays.mask
    if stays.inputs[behind].any() or stays.observed[behind].any():
        raise ValueError("inputs and observed must be zero behind the end of a stay")
    if any((label[behind] != -1).any() for label in stays.labels.values()):
        raise ValueError("labels must be -1 behind the end of a stay")


def _tensors(stays: Stays) -> dict[str, Tensor]:
    tensors = {name: getattr(stays, name) for name in KINDS}
    tensors |= {LABEL + name: label for name, label in stays.labels.items()}
    return tensors | {OUTCOME + name: outcome for name, outcome in stays.outcomes.items()}


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names start so, without the prefix."""
    return {name.removeprefix(prefix): tensors[name] for name in starting_with(tensors, prefix)}


def starting_with(names: Iterable[str], prefix: str) -> list[str]:
    """Those that start so, the shortest first: `score_6` before `score_24`."""
    return sorted((name for name in names if name.startswith(prefix)), key=lambda name: (len(name), name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
