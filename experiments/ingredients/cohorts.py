"""Which stays an experiment on series takes: a Sacred ingredient that hands out `Stays`, whatever their source.

A new source is one function `load_<name>(root) -> Stays` and one line in `COHORTS`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from experiments import PROJECT
from experiments.configuration import at_least, one_of, optional, text
from experiments.datasets.physionet2012 import load_physionet2012
from experiments.datasets.samples import Samples
from experiments.datasets.stays import GENERATED, SPLITS, Channel, Description, Stays, read_stays
from experiments.datasets.stays_table import load_stays_table
from experiments.ingredients.lorenz import WINGS, lorenz, lorenz_trajectories

import torch
from sacred import Ingredient

data = Ingredient("data", save_git_info=False)
data.add_config(
    # stays: physionet2012, eicu (made by scripts/prepare_eicu.py), stays_table (your own) or lorenz (generated)
    name="physionet2012",
    root="data",  # folder of the data sets' folders, or of the table; a relative path starts at the project folder
    limit=None,  # use only the first so many stays of each split; None uses all
)


def load_eicu(root: Path) -> Stays:
    return read_stays(root / "eICU")


@lorenz.capture
def load_lorenz(root: Path, trajectories: list[int], step: float) -> Stays:
    """Trajectories as if they were stays: every hour is a point, labelled by its wing."""
    inputs, wings = lorenz_trajectories()
    return Stays(
        inputs=inputs,
        observed=torch.ones_like(inputs, dtype=torch.bool),
        lengths=torch.full((len(inputs),), inputs.shape[1], dtype=torch.int32),
        labels={"wing": wings.to(torch.int16)},
        outcomes={},
        static=inputs.new_empty(len(inputs), 0),
        split=torch.repeat_interleave(torch.arange(3, dtype=torch.int8), torch.tensor(trajectories)),
        description=Description(
            name="Lorenz",
            channels=tuple(Channel(name, "", 0.0, 1.0) for name in "xyz"),
            static=(),
            source_checksum="",
            checksum=GENERATED,
            time="time",
            step=step,
            classes={"wing": list(WINGS)},
        ),
    )


COHORTS: dict[str, Callable[[Path], Stays]] = {
    "physionet2012": load_physionet2012,
    "eicu": load_eicu,
    "stays_table": load_stays_table,
    "lorenz": load_lorenz,
}
data.rules = {
    "data.name": one_of(*COHORTS),
    "data.root": text,
    "data.limit": optional(at_least(1)),
}


@data.capture
def load_parts(name: str, root: str, limit: int | None) -> dict[str, Stays]:
    """The splits `train`, `validation` and `test` of the configured stays, on the CPU.

    Raises:
        UserError: they are missing, damaged or not as published.
    """
    stays = COHORTS[name](PROJECT / os.path.expanduser(root))
    return {part: stays.part(part).first(limit) for part in SPLITS}


def samples_of(parts: dict[str, Stays]) -> Samples:
    """What a model has to know of stays in splits."""
    train = parts["train"]
    return Samples(
        tuple(train.inputs.shape[1:]),
        channels=train.description.channels,
        splits={name: len(part) for name, part in parts.items()},
        checksum=train.description.checksum,
    )
