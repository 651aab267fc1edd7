"""Draws finished TPAE runs beside each other: the same pictures, as each run reconstructs them.

    python scripts/samplings.py runs/tpae/1 runs/tpae/2 --output samplings.png

Meant for a native and a downsampled run; every run is named by its folder, its sampling and its number of blocks.
"""

import argparse
import io
import sys
from pathlib import Path

from experiments.drawing import figures
from experiments.errors import UserError, reported
from experiments.ingredients.data import load_dataset
from models.tpae import TPAE
from scripts.export import trained
from scripts.records import read_json, write_result

import numpy as np
import torch

PICTURES = 10


def finished_run(folder: Path) -> tuple[TPAE, dict]:
    """The model and the record of a finished run of TPAE.

    Raises:
        UserError: `folder` holds none, or one of the plain CNN.
    """
    net, record, _ = trained(folder)
    if record["experiment"] != "tpae":
        raise UserError(f"{folder} is a run of {record['experiment']}: give one of TPAE, such as runs/tpae/1")
    if record["config"]["model"]["network"] == "cnn":
        raise UserError(f"{folder} is a run of the plain CNN, which reconstructs nothing")
    return net, record


def data_of(record: dict) -> tuple[str, dict]:
    """What decides which pictures a run sees, wherever they lie."""
    settings = {key: value for key, value in record["config"]["data"].items() if key != "root"}
    return record["data_checksum"], settings


@torch.no_grad()
def reconstructed(folder: Path, net: TPAE, record: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first validation pictures of a finished run, and what its last block makes of them.

    Raises:
        UserError: the pictures are no longer those of the run.
    """
    config = read_json(folder / "config.json")  # the record does not say where the pictures lie
    dataset = load_dataset(**config["data"])
    if dataset.checksum != record["data_checksum"]:
        raise UserError(f"{folder} was trained on other data than {config['data']['root']} holds: put the files back")
    inputs = dataset.validation.inputs[:PICTURES]
    seen = net(inputs)
    name = f"{folder}, {config['model']['sampling']}, {config['model']['blocks']} blocks"
    rows = {f"{name}: fusion": seen[-1].reconstruction, f"{name}: map alone": net.pictures(seen)[-1]}
    return inputs.numpy(), {row: pictures.numpy() for row, pictures in rows.items()}


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs on the same data")
    parser.add_argument("--output", type=Path, default=Path("samplings.png"), help="PNG to write")
    options = parser.parse_args(arguments)
    rows: dict[str, np.ndarray] = {}
    found = {folder: finished_run(folder) for folder in options.runs}
    data = [data_of(record) for _, record in found.values()]
    if any(other != data[0] for other in data):
        raise UserError("these runs have different data: give runs of the same data set, split and scaling")
    for folder, (net, record) in found.items():
        inputs, pictures = reconstructed(folder, net, record)
        rows = {"input": inputs} | rows | pictures
    figure = figures.picture_rows("Reconstructions beside each other", "the last block of each run", rows)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_result(options.output, buffer.getvalue())
    print(f"drawn: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
