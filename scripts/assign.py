"""Lists which unit of a trained map each picture of a folder, or each hour of new stays, belongs to, as CSV.

    python scripts/assign.py runs/dpsom/3 pictures/new                     to units.csv
    python scripts/assign.py runs/tdpsom/1 hospital/new --to new.csv

Pictures are those in the folder and all folders below it, prepared as in training (`data.image_size`, `data.scaling`).
Columns: file, block (of TPAE, from 1), unit (= row * width + column), row, column.

Stays are in the folder's `hours.csv`, a table as for training (`data.name=stays_table`) with the same variables; labels
are not needed. Gaps are filled and values scaled as in training. Columns: stay, hour, unit, row, column; every hour
from a stay's first to its last has its line.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.datasets import hours_table
from experiments.datasets.hours_table import HoursTable
from experiments.datasets.image_folder import open_picture, pictures_below
from experiments.datasets.samples import Samples
from experiments.datasets.stays_table import as_in_training
from experiments.errors import UserError, reported
from experiments.ingredients.data import resize, scale_
from scripts.export import trained
from scripts.records import write_result

import polars as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

CHUNK = 256


@torch.no_grad()
def assigned(run: Path, folder: Path) -> str:
    """The CSV of all pictures below `folder`, or of the hours in its table.

    Raises:
        UserError: no finished run of a model with a map, no pictures or hours, or what does not fit.
    """
    model, record, samples = trained(run)
    data = record["config"]["data"]
    if not hasattr(model, "winners"):
        raise UserError(f"{run} has no map: give a run of a model that has one, such as dpsom")
    if len(samples.shape) == 3:
        found = units_of_pictures(model, folder, data, samples.shape)
    elif data["name"] == "stays_table":
        found = units_of_hours(model, folder, samples)
    else:
        raise UserError(f"{run} learned from {data['name']}: only maps of pictures or of data.name=stays_table assign")
    unit, width = pl.col("unit"), record["config"]["model"]["map_size"][1]
    return pl.DataFrame(list(found)).with_columns(row=unit // width, column=unit % width).write_csv()


def units_of_pictures(
    model: nn.Module, folder: Path, data: dict[str, Any], shape: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """`file`, `block` where there are several, and `unit` of all pictures below `folder`."""
    paths = pictures_below(folder)
    with tqdm(total=len(paths), desc=f"reading {folder.name}", unit="picture", mininterval=1.0) as bar:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            units = model.winners(prepared(chunk, data, shape))
            blocks = units.dim() == 2  # TPAE has a map in each
            for path, of_blocks in zip(chunk, units.view(len(chunk), -1).tolist(), strict=True):
                file = {"file": os.fsencode(path.relative_to(folder)).decode(errors="replace")}
                for block, unit in enumerate(of_blocks, start=1):
                    yield file | ({"block": block} if blocks else {}) | {"unit": unit}
            bar.update(len(chunk))


def prepared(paths: list[Path], data: dict[str, Any], shape: tuple[int, ...]) -> Tensor:
    """Pictures `[B, *shape]` in [0, 1], as a run with these `data` settings sees them.

    Raises:
        UserError: one of another shape.
    """
    found = []
    for path in paths:
        picture = resize(torch.from_numpy(open_picture(str(path)).copy()).float()[None], data["image_size"])
        if picture.shape[1:] != shape:
            raise UserError(f"{path} has the shape {tuple(picture.shape[1:])}, the model takes {shape} (C, H, W)")
        found.append(picture)
    return scale_(torch.cat(found), data["scaling"], 255.0)


def units_of_hours(model: nn.Module, folder: Path, samples: Samples) -> Iterator[dict[str, Any]]:
    """`stay`, `hour` as the table counts it, and `unit` of all hours of the stays in `folder`."""
    table = HoursTable.read(folder / hours_table.FILE_NAME)
    series, lengths = as_in_training(table, samples.channels), torch.from_numpy(table.lengths).long()
    with tqdm(total=len(series), desc="assigning", unit="stay", mininterval=1.0) as bar:
        for start in range(0, len(series), CHUNK):
            chunk = slice(start, start + CHUNK)
            units = model.winners(series[chunk], lengths[chunk]).tolist()
            for name, first, length, of_hours in zip(
                table.names[chunk].tolist(), table.first[chunk].tolist(), table.lengths[chunk], units, strict=True
            ):
                for hour, unit in enumerate(of_hours[:length], start=first):
                    yield {"stay": name, "hour": hour, "unit": unit}
            bar.update(len(units))


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/dpsom/3")
    parser.add_argument("folder", type=Path, help="of pictures, or of hours.csv")
    parser.add_argument("--to", type=Path, default=Path("units.csv"), help="file to write (default: units.csv)")
    options = parser.parse_args(arguments)
    write_result(options.to, assigned(options.run, options.folder).encode())
    print(f"written: {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
