"""Stays of one's own: a table of hours, and if need be one of stays, as CSV files in a folder.

`hours.csv` has one line for each hour of a stay in which anything is known, in any order:

    stay        name of the stay
    hour        whole number; a stay goes from its first to its last
    label.NAME  class of the hour, a whole number from 0, best one that rises with severity; empty: none. At least one
                such column; of several the one with the shortest name colours the maps
    others      a variable each, `heart rate [1/min]` with its unit or without. Empty: not measured

`stays.csv`, which may be missing, has one line for each stay; `stay` and one more of these columns must be there,
others are left alone:

    stay        as above
    split       train, validation or test; without it 15 % of the stays, at random, validate and 15 % test, which is
                wrong where persons have several
    death       whether it ends in death, 0 or 1; empty: not known

As with PhysioNet 2012 an hour without a value holds the last one before, or the training mean where there is none.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.data import SPLIT_SEED
from experiments.ingredients.normalization import forward_filled, normalised
from experiments.ingredients.stays import LABEL, SPLITS, Channel, Description, Stays, cached_stays, with_prefix

import numpy as np
import polars as pl
import torch
from sklearn.model_selection import train_test_split

HOURS_TABLE, STAYS_TABLE = "hours.csv", "stays.csv"
VERSION = 1  # of what this module makes of the files; raise it and caches are made anew
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
LONGEST_GAP = 30 * 24  # hours without a line; more, and an hour must be wrong
MOST_CLASSES = 1000
HELD_OUT = 0.15  # of the stays, for validation and for test, each
REPEATED = re.compile(r"_duplicated_\d+$")  # what polars calls further columns of the same name
NAME_AND_UNIT = re.compile(r"(.*?)\s*\[(.*)\]")


def load_stays_table(root: Path) -> Stays:
    """The stays in `root/hours.csv` and `root/stays.csv`, kept as `stays.safetensors` beside them.

    Raises:
        UserError: there is no table of hours, or what stands in a table is not what the module's text says.
    """
    hours, stays = root / HOURS_TABLE, root / STAYS_TABLE
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
    table = read_table(hours, ("stay", "hour"))
    labels = with_prefix(table.columns, LABEL)
    variables = [column for column in table.columns if column not in ("stay", "hour", *labels)]
    if not labels or not variables:
        lacks = "no label.<name>, the classes that the map is measured by" if not labels else "no variable"
        raise UserError(f"{hours} has {lacks}: add such a column")
    channels = [name_and_unit(variable) for variable in variables]
    if twice := [name for name, times in Counter(name for name, _ in channels).items() if times > 1]:
        raise UserError(f"{hours} has the variable {twice[0]} twice: give every column a name of its own")
    names, stay = np.unique(table["stay"].to_numpy(), return_inverse=True)
    hour = hours_of_stays(table, stay, hours)
    lengths = np.zeros(len(names), np.int32)
    np.maximum.at(lengths, stay, hour + 1)

    values = np.full((len(names), lengths.max(), len(variables)), np.nan)
    for channel, variable in enumerate(variables):
        values[stay, hour, channel] = numbers(table, variable, hours)
    inside = np.arange(lengths.max()) < lengths[:, None]
    about = stays_in_order(stays, names)
    hours_without_line = int(inside.sum()) - len(table)
    counts: dict[str, int | float] = {"stays": len(names), "hours_without_line": hours_without_line}
    split = splits(about, stays, len(names))
    inputs, mean, scale = normalised(forward_filled(values), inside, split == 0, counts)
    return Stays(
        inputs=torch.from_numpy(inputs),
        observed=torch.from_numpy(~np.isnan(values)),
        lengths=torch.from_numpy(lengths),
        labels={
            label.removeprefix(LABEL): on_grid(classes(table, label, hours), stay, hour, inside.shape)
            for label in labels
        },
        outcomes={"death": deaths(about, stays)} if "death" in about.columns else {},
        static=torch.empty(len(names), 0),
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
        ),
    )


def read_table(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    """The CSV file as text, with null for what is missing."""
    try:
        table = pl.read_csv(path, infer_schema=False, null_values=MISSING)
        table = table.select(pl.all().name.map(str.strip).str.strip_chars())
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"cannot read {path} ({reason}): it must be a CSV file with commas and a header") from error
    if twice := [name for name in table.columns if REPEATED.search(name)]:
        raise UserError(
            f"{path} has the column {REPEATED.sub('', twice[0])} twice: give every column a name of its own"
        )
    for column in needed:
        if column not in table.columns:
            raise UserError(f"{path} has no column {column}, only {', '.join(table.columns)}")
        if table[column].has_nulls():
            raise UserError(f"line {line_of(table[column].is_null())} of {path} has no {column}")
    if table.is_empty():
        raise UserError(f"{path} has no lines below its header")
    return table


def numbers(table: pl.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column as float64, NaN where it is empty."""
    values = table[column].cast(pl.Float64, strict=False)
    broken = table[column].is_not_null() & ~values.is_finite().fill_null(False)
    if broken.any():
        shown = table[column].filter(broken)[0]
        line = line_of(broken)
        raise UserError(f"line {line} of {path}: {column} is {shown!r}, which is no number: correct it, or empty it")
    if values.is_null().all():
        raise UserError(f"{path} has no value of {column}: leave that column out")
    return values.fill_null(float("nan")).to_numpy()


def hours_of_stays(table: pl.DataFrame, stay: np.ndarray, path: Path) -> np.ndarray:
    """Hours since each stay's first, `[n]`."""
    hour = numbers(table, "hour", path)
    if (hour % 1).any():
        line = line_of(hour % 1 != 0)
        raise UserError(f"line {line} of {path}: hour is {hour[line - 2]:g}; give whole hours, a line for each")
    first = np.full(stay.max() + 1, np.inf)
    np.minimum.at(first, stay, hour)
    since = hour - first[stay]
    twice = pl.DataFrame({"stay": stay, "hour": since}).is_duplicated()
    if twice.any():
        at = int(twice.arg_max())
        raise UserError(f"{path} has hour {hour[at]:g} of stay {table['stay'][at]} twice: give one line for each hour")
    in_order = np.lexsort((since, stay))
    gaps = np.diff(since[in_order]) * (np.diff(stay[in_order]) == 0)
    if len(gaps) and gaps.max() > LONGEST_GAP:
        at, gap = int(in_order[gaps.argmax() + 1]), gaps.max()
        raise UserError(
            f"line {at + 2} of {path}: hour {hour[at]:g} of stay {table['stay'][at]} comes {gap:,.0f} hours after "
            "the one before, more than a month: count in hours, or split the stay"
        )
    return since.astype(np.int64)


def classes(table: pl.DataFrame, label: str, path: Path) -> np.ndarray:
    """Classes of a column as int16, -1 for none."""
    found = numbers(table, label, path)
    wrong = ~np.isnan(found) & ~((found >= 0) & (found < MOST_CLASSES) & (found % 1 == 0))
    if wrong.any():
        line = line_of(wrong)
        raise UserError(
            f"line {line} of {path}: {label} is {found[line - 2]:g}; number the classes from 0 to {MOST_CLASSES - 1}"
        )
    return np.nan_to_num(found, nan=-1).astype(np.int16)


def on_grid(of_lines: np.ndarray, stay: np.ndarray, hour: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Classes of lines as `[N, T]`, -1 elsewhere."""
    grid = np.full(shape, -1, np.int16)
    grid[stay, hour] = of_lines
    return torch.from_numpy(grid)


def stays_in_order(path: Path, names: np.ndarray) -> pl.DataFrame:
    """The lines of the table of stays, in the order of `names`; no column but `stay` where there is no table."""
    wanted = pl.DataFrame({"stay": names})
    if not path.is_file():
        return wanted
    table = read_table(path, ("stay",))
    if not {"split", "death"} & set(table.columns):
        raise UserError(f"{path} has neither a column split nor death, only {', '.join(table.columns)}: name one so")
    if table["stay"].is_duplicated().any():
        raise UserError(f"{path} has stay {table['stay'].filter(table['stay'].is_duplicated())[0]} twice")
    lost = wanted.join(table, on="stay", how="anti")["stay"]
    if len(lost):
        raise UserError(f"{path} lacks {len(lost)} stays of {HOURS_TABLE}, such as {lost[0]}: add a line for each")
    return wanted.join(table, on="stay", how="left", maintain_order="left")


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


def deaths(about: pl.DataFrame, path: Path) -> torch.Tensor:
    """1 for stays that end in death, 0 for others, NaN for not known, `[N]` float32."""
    death = numbers(about, "death", path)
    if (wrong := ~np.isnan(death) & ~np.isin(death, (0, 1))).any():
        at = int(wrong.argmax())
        raise UserError(f"{path}: death of stay {about['stay'][at]} is {death[at]:g}, it must be 0 or 1")
    return torch.from_numpy(death.astype(np.float32))


def name_and_unit(column: str) -> tuple[str, str]:
    """`("heart rate", "1/min")` of `heart rate [1/min]`."""
    found = NAME_AND_UNIT.fullmatch(column)
    return (found[1], found[2]) if found else (column, "")


def line_of(wrong: np.ndarray | pl.Series) -> int:
    """The first such line of the file, whose header is line 1."""
    return int(np.asarray(wrong).argmax()) + 2
