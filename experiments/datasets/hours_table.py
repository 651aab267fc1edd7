"""Reads `hours.csv`, a table of hours of stays.

It has one line for each hour in which anything is known, in any order:

    stay        name of the stay
    hour        whole number; a stay goes from its first to its last
    label.NAME  class of the hour, a whole number from 0; empty: none
    others      a variable each, `heart rate [1/min]` with its unit or without. Empty: not measured
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.errors import UserError

import numpy as np
import polars as pl

FILE_NAME = "hours.csv"
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
LONGEST_GAP = 30 * 24  # hours without a line; more, and an hour must be wrong
REPEATED = re.compile(r"_duplicated_\d+$")  # what polars calls further columns of the same name
NAME_AND_UNIT = re.compile(r"(.*?)\s*\[(.*)\]")


@dataclass(frozen=True, eq=False)
class HoursTable:
    """The n lines of a table, and which hour of which of its N stays each is.

    Attributes:
        path: of the file.
        lines: the table as text, with null for what is missing.
        names: of the stays, `[N]`, in order.
        stay: of each line, `[n]`, from 0.
        hour: of each line, `[n]`, from 0 at the first of its stay.
        first: what the table calls the first hour of each stay, `[N]`.
    """

    path: Path
    lines: pl.DataFrame
    names: np.ndarray
    stay: np.ndarray
    hour: np.ndarray
    first: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "HoursTable":
        """The table in a file.

        Raises:
            UserError: it is no such table, has an hour twice, or one that must be wrong.
        """
        lines = read_table(path, ("stay", "hour"))
        names, stay = np.unique(lines["stay"].to_numpy(), return_inverse=True)
        hour = numbers(lines, "hour", path)
        if (hour % 1).any():
            line = line_of(hour % 1 != 0)
            raise UserError(f"line {line} of {path}: hour is {hour[line - 2]:g}; give whole hours, a line for each")
        first = np.full(len(names), np.inf)
        np.minimum.at(first, stay, hour)
        table = cls(path, lines, names, stay, (hour - first[stay]).astype(np.int64), first.astype(np.int64))
        table._check_hours(hour)
        return table

    def _check_hours(self, hour: np.ndarray) -> None:
        """Raise UserError for an hour that is there twice or comes long after the one before."""
        twice = pl.DataFrame({"stay": self.stay, "hour": self.hour}).is_duplicated()
        if twice.any():
            at = int(twice.arg_max())
            stay = self.lines["stay"][at]
            raise UserError(f"{self.path} has hour {hour[at]:g} of stay {stay} twice: give one line for each hour")
        in_order = np.lexsort((self.hour, self.stay))
        gaps = np.diff(self.hour[in_order]) * (np.diff(self.stay[in_order]) == 0)
        if len(gaps) and gaps.max() > LONGEST_GAP:
            at, gap = int(in_order[gaps.argmax() + 1]), gaps.max()
            raise UserError(
                f"line {at + 2} of {self.path}: hour {hour[at]:g} of stay {self.lines['stay'][at]} comes {gap:,} hours "
                "after the one before, more than a month: count in hours, or split the stay"
            )

    @cached_property
    def lengths(self) -> np.ndarray:
        """Hours of each stay, `[N]` int32."""
        lengths = np.zeros(len(self.names), np.int32)
        np.maximum.at(lengths, self.stay, self.hour + 1)
        return lengths

    @cached_property
    def inside(self) -> np.ndarray:
        """`[N, T]`: which hours belong to the stays, the longest of which has T."""
        return np.arange(self.lengths.max()) < self.lengths[:, None]

    def on_grid(self, of_lines: np.ndarray, elsewhere: float) -> np.ndarray:
        """A number of each line, `[n]`, as `[N, T]`."""
        grid = np.full(self.inside.shape, elsewhere, of_lines.dtype)
        grid[self.stay, self.hour] = of_lines
        return grid

    def values(self, columns: list[str]) -> np.ndarray:
        """Numbers of C columns, `[N, T, C]` float64, NaN where nothing was measured.

        Raises:
            UserError: something is no number.
        """
        return np.stack([self.on_grid(numbers(self.lines, name, self.path), np.nan) for name in columns], axis=2)


def read_table(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    """A CSV file as text, with null for what is missing.

    Raises:
        UserError: it cannot be read, has no lines, a column twice, or a gap in one of the `needed`.
    """
    try:
        cells = pl.all().name.map(str.strip).str.strip_chars().replace(MISSING, None)
        table = pl.read_csv(path, infer_schema=False).select(cells)
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
    """A column of `read_table` as float64, NaN where it is empty.

    Raises:
        UserError: something in it is no number.
    """
    values = table[column].cast(pl.Float64, strict=False)
    broken = table[column].is_not_null() & ~values.is_finite().fill_null(False)
    if broken.any():
        shown = table[column].filter(broken)[0]
        line = line_of(broken)
        raise UserError(f"line {line} of {path}: {column} is {shown!r}, which is no number: correct it, or empty it")
    return values.fill_null(float("nan")).to_numpy()


def name_and_unit(column: str) -> tuple[str, str]:
    """`("heart rate", "1/min")` of `heart rate [1/min]`."""
    found = NAME_AND_UNIT.fullmatch(column)
    return (found[1], found[2]) if found else (column, "")


def line_of(wrong: np.ndarray | pl.Series) -> int:
    """The first such line of the file, whose header is line 1."""
    return int(np.asarray(wrong).argmax()) + 2
