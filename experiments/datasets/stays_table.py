"""Stays of one's own: a table of hours, and if need be one of stays, as CSV files in a folder.

`hours.csv` is as `hours_table` says, with at least one label, best one that rises with severity; of several the one
with the shortest name colours the maps.

`stays.csv`, which may be missing, has one line for each stay; `stay` and one more of these columns must be there,
others are left alone:

    stay        as in the table of hours
    split       train, validation or test; without it 15 % of the stays, at random, validate and 15 % test, which is
                wrong where persons have several
    death       whether it ends in death, 0 or 1; empty: not known

As with PhysioNet 2012 an hour without a value holds the last one before, or the training mean where there is none.
"""

import hashlib
from collections import Counter
from pathlib import Path

from experiments.datasets.hours_table import FILE_NAME, HoursTable, line_of, name_and_unit, numbers, read_table
from experiments.datasets.normalization import forward_filled, normalised, scaled
from experiments.datasets.splits import SPLIT_SEED
from experiments.datasets.stays import LABEL, SPLITS, Channel, Description, Stays, cached_stays, starting_with
from experiments.errors import UserError

import numpy as np
import polars as pl
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

STAYS_TABLE = "stays.csv"
VERSION = 2  # of what this module makes of the files; raise it and caches are made anew
MOST_CLASSES = 1000
HELD_OUT = 0.15  # of the stays, for validation and for test, each
FARTHEST = 100  # times the range from the 1st to the 99th percentile; a value farther from the median must be wrong: of
# PhysioNet 2012's 5 million the pH of 735 and leukocytes of 12,500 are; the farthest others lie at 27 times


def load_stays_table(root: Path) -> Stays:
    """The stays in `root/hours.csv` and `root/stays.csv`, kept as `stays.safetensors` beside them.

    Raises:
        UserError: there is no table of hours, or what stands in a table is not what the module's text says.
    """
    hours, stays = root / FILE_NAME, root / STAYS_TABLE
    if not hours.is_file():
        raise UserError(f"{hours} does not exist: data.root names a folder with that table of hours and variables")
    digest = hashlib.sha256(f"version {VERSION}".encode())
    for path in (hours, stays):
        digest.update(path.read_bytes() if path.is_file() else b"")
        digest.update(path.name.encode())
    checksum = digest.hexdigest()
    return cached_stays(root, checksum, lambda: prepare(hours, stays, checksum))


def prepare(hours: Path, stays: Path, checksum: str) -> Stays:
    """The stays of both tables; what `load_stays_table` says of errors."""
    table = HoursTable.read(hours)
    labels = starting_with(table.lines.columns, LABEL)
    variables = [column for column in table.lines.columns if column not in ("stay", "hour", *labels)]
    if not labels or not variables:
        lacks = "no label.<name>, the classes that the map is measured by" if not labels else "no variable"
        raise UserError(f"{hours} has {lacks}: add such a column")
    channels = [name_and_unit(variable) for variable in variables]
    if twice := [name for name, times in Counter(name for name, _ in channels).items() if times > 1]:
        raise UserError(f"{hours} has the variable {twice[0]} twice: give every column a name of its own")
    refuse_empty(table.lines, [*variables, *labels], hours)

    values, inside = table.values(variables), table.inside
    refuse_outliers(table, variables, values)
    about = stays_in_order(stays, table.names)
    counts: dict[str, int | float] = {"stays": len(inside), "hours_without_line": int(inside.sum()) - len(table.lines)}
    split = splits(about, stays, len(inside))
    inputs, mean, scale = normalised(forward_filled(values), inside, split == 0, counts)
    return Stays(
        inputs=torch.from_numpy(inputs),
        observed=torch.from_numpy(~np.isnan(values)),
        lengths=torch.from_numpy(table.lengths),
        labels={
            label.removeprefix(LABEL): torch.from_numpy(table.on_grid(classes(table, label), -1)) for label in labels
        },
        outcomes={"death": about["death"].to_torch()} if "death" in about.columns else {},
        static=torch.empty(len(inside), 0),
        split=torch.from_numpy(split),
        description=Description(
            name=hours.parent.resolve().name,
            channels=tuple(
                Channel(name, unit, centre, width)
                for (name, unit), centre, width in zip(channels, mean, scale, strict=True)
            ),
            static=(),
            source_checksum=checksum,
            counts=counts,
            stays=tuple(table.names.tolist()),
        ),
    )


def as_in_training(table: HoursTable, channels: tuple[Channel, ...]) -> Tensor:
    """Further stays, `[N, T, C]` float32, filled and scaled as those that gave `channels` their mean and scale.

    Columns that are no channels are left alone. Zero behind the end of a stay.

    Raises:
        UserError: a variable is missing or has another unit, or something in it is no number.
    """
    columns = {name_and_unit(column)[0]: column for column in table.lines.columns}
    for channel in channels:
        if channel.name not in columns:
            raise UserError(f"{table.path} lacks the variable {channel.name}: add it, empty if it was never measured")
        if (unit := name_and_unit(columns[channel.name])[1]) != channel.unit:
            raise UserError(
                f"{table.path} has {channel.name} in {unit or 'no unit'}, the training stays had it in "
                f"{channel.unit or 'none'}: convert it"
            )
    filled = forward_filled(table.values([columns[channel.name] for channel in channels]))
    known = ~np.isnan(filled) & table.inside[..., None]
    mean, scale = np.array([(channel.mean, channel.scale) for channel in channels]).T
    return torch.from_numpy(scaled(filled, known, mean, scale)[0])


def refuse_empty(table: pl.DataFrame, columns: list[str], path: Path) -> None:
    """Raise UserError for a column without any value."""
    for column in columns:
        if table[column].is_null().all():
            raise UserError(f"{path} has no value of {column}: leave that column out")


def refuse_outliers(table: HoursTable, variables: list[str], values: np.ndarray) -> None:
    """Raise UserError for one of `values` [N, T, C] that lies so far out that it would ruin its variable's scale."""
    lows, medians, highs = np.nanpercentile(values, (1, 50, 99), axis=(0, 1))
    far = np.abs(values - medians) > FARTHEST * np.where(highs > lows, highs - lows, np.inf)
    if far.any():
        stay, hour, channel = np.argwhere(far)[0]
        line = line_of((table.stay == stay) & (table.hour == hour))
        raise UserError(
            f"line {line} of {table.path}: {variables[channel]} is {values[stay, hour, channel]:g}, and nearly all "
            f"others are {lows[channel]:g} to {highs[channel]:g}: correct it, or empty it"
        )


def classes(table: HoursTable, label: str) -> np.ndarray:
    """Classes of the lines as int16, -1 for none."""
    found = numbers(table.lines, label, table.path)
    wrong = ~np.isnan(found) & ~((found >= 0) & (found < MOST_CLASSES) & (found % 1 == 0))
    if wrong.any():
        line = line_of(wrong)
        shown = f"line {line} of {table.path}: {label} is {found[line - 2]:g}"
        raise UserError(f"{shown}; number the classes from 0 to {MOST_CLASSES - 1}")
    return np.nan_to_num(found, nan=-1).astype(np.int16)


def stays_in_order(path: Path, names: np.ndarray) -> pl.DataFrame:
    """The lines of the table of stays, in the order of `names`; no column but `stay` where there is no table.

    A `death` is 0, 1 or NaN there.
    """
    wanted = pl.DataFrame({"stay": names})
    if not path.is_file():
        return wanted
    table = read_table(path, ("stay",))
    if not {"split", "death"} & set(table.columns):
        raise UserError(f"{path} has neither a column split nor death, only {', '.join(table.columns)}: name one so")
    if table["stay"].is_duplicated().any():
        raise UserError(f"{path} has stay {table['stay'].filter(table['stay'].is_duplicated())[0]} twice")
    if "death" in table.columns:
        table = table.with_columns(death=deaths(table, path))
    lost = wanted.join(table, on="stay", how="anti")["stay"]
    if len(lost):
        raise UserError(f"{path} lacks {len(lost)} stays of {FILE_NAME}, such as {lost[0]}: add a line for each")
    return wanted.join(table, on="stay", how="left", maintain_order="left")


def deaths(table: pl.DataFrame, path: Path) -> np.ndarray:
    """1 for stays that end in death, 0 for others, NaN for not known, a float32 for each line of the table of stays."""
    refuse_empty(table, ["death"], path)
    death = numbers(table, "death", path)
    if (wrong := ~np.isnan(death) & ~np.isin(death, (0, 1))).any():
        raise UserError(f"line {line_of(wrong)} of {path}: death is {death[wrong][0]:g}, it must be 0 or 1")
    return death.astype(np.float32)


def splits(about: pl.DataFrame, path: Path, count: int) -> np.ndarray:
    """0 for training, 1 for validation, 2 for test, `[N]` int8."""
    if "split" in about.columns:
        unknown = ~about["split"].is_in(SPLITS).fill_null(False)
        if unknown.any():
            name, word = about.filter(unknown).select("stay", "split").row(0)
            raise UserError(f"{path}: the split of stay {name} is {word!r}, it must be one of {', '.join(SPLITS)}")
        return np.array([SPLITS.index(name) for name in about["split"]], np.int8)
    held_out = max(round(HELD_OUT * count), 1)
    if count < 3:
        raise UserError(f"{count} stays are too few for training, validation and test: add more")
    rest, test = train_test_split(np.arange(count), test_size=held_out, random_state=SPLIT_SEED)
    _, validation = train_test_split(rest, test_size=held_out, random_state=SPLIT_SEED)
    split = np.zeros(count, np.int8)
    split[validation], split[test] = 1, 2
    return split
