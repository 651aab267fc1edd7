"""Lists which unit of a trained map each picture of a folder belongs to, as CSV.

    python scripts/assign.py runs/dpsom/3 pictures/new                     to units.csv
    python scripts/assign.py runs/dpsom/3 pictures/new --to new.csv

The folder is searched with all folders below it. Pictures are prepared as in training (`data.image_size`,
`data.scaling`). Columns: file, block (of TPAE, from 1), unit (= row * width + column), row, column.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.data import resize, scale_
from experiments.ingredients.image_folder import open_picture, pictures_below
from scripts.export import trained
from scripts.records import write_result

import torch
from torch import Tensor
from tqdm import tqdm

CHUNK = 256


def prepared(paths: list[Path], settings: dict, shape: tuple[int, ...]) -> Tensor:
    """Pictures `[B, *shape]` in [0, 1], as a run with these `data` settings sees them.

    Raises:
        UserError: one of another shape.
    """
    found = []
    for path in paths:
        picture = resize(torch.from_numpy(open_picture(str(path)).copy()).float()[None], settings["image_size"])
        if picture.shape[1:] != shape:
            raise UserError(f"{path} has the shape {tuple(picture.shape[1:])}, the model takes {shape} (C, H, W)")
        found.append(picture)
    return scale_(torch.cat(found), settings["scaling"], 255.0)


@torch.no_grad()
def assigned(run: Path, folder: Path) -> str:
    """The CSV of all pictures below `folder`.

    Raises:
        UserError: no finished run of a model with a map of pictures, no pictures, or a picture that does not fit.
    """
    model, record, samples = trained(run)
    if not hasattr(model, "winners") or len(samples.shape) != 3:
        raise UserError(f"{run} has no map of pictures: give a run of dpsom, somvae, topography or tpae")
    width = record["config"]["model"]["map_size"][1]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    paths = pictures_below(folder)
    with tqdm(total=len(paths), desc=f"reading {folder.name}", unit="picture", mininterval=1.0) as bar:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            units = model.winners(prepared(chunk, record["config"]["data"], samples.shape))
            blocks = units.dim() == 2  # TPAE has a map in each
            if start == 0:
                rows.writerow(["file", *["block"] * blocks, "unit", "row", "column"])
            for path, of_blocks in zip(chunk, units.view(len(chunk), -1).tolist(), strict=True):
                name = path.relative_to(folder).as_posix()
                for block, unit in enumerate(of_blocks, start=1):
                    rows.writerow([name, *[block] * blocks, unit, *divmod(unit, width)])
            bar.update(len(chunk))
    return text.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/dpsom/3")
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--to", type=Path, default=Path("units.csv"), help="file to write (default: units.csv)")
    options = parser.parse_args(arguments)
    try:
        write_result(options.to, assigned(options.run, options.folder).encode())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
