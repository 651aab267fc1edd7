"""Draws finished TPAE runs beside each other: the same pictures, as each run reconstructs them.

    python scripts/samplings.py runs/tpae/1 runs/tpae/2 --output samplings.png

Meant for a native and a downsampled run; every run is named by its folder, its sampling and its number of blocks.
"""

import argparse
import sys
from pathlib import Path

from experiments import tpae
from experiments.errors import UserError
from experiments.ingredients import checkpoint, figures
from experiments.ingredients.data import load_dataset
from experiments.ingredients.record import FILE_NAME
from scripts.records import check_record, read_json

import numpy as np
import torch

PICTURES = 10


def finished_run(folder: Path) -> dict:
    """The record of a finished run of TPAE.

    Raises:
        UserError: `folder` holds none, or one of the plain CNN.
    """
    path = folder / FILE_NAME
    record = check_record(read_json(path), path) if path.exists() else {"experiment": None}
    if record["experiment"] != "tpae":
        raise UserError(f"{folder} is no finished run of TPAE: give the folder of one, such as runs/tpae/1")
    if record["config"]["model"]["network"] == "cnn":
        raise UserError(f"{folder} is a run of the plain CNN, which reconstructs nothing")
    return record


def data_of(record: dict) -> tuple[str, dict]:
    """What decides which pictures a run sees, wherever they lie."""
    settings = {key: value for key, value in record["config"]["data"].items() if key != "root"}
    return record["data_checksum"], settings


@torch.no_grad()
def reconstructed(folder: Path, record: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first validation pictures of a finished run, and what its last block makes of them.

    Raises:
        UserError: the pictures or the checkpoint are no longer those of the run.
    """
    config = read_json(folder / "config.json")  # the record does not say where the pictures lie
    dataset = load_dataset(**config["data"])
    if dataset.checksum != record["data_checksum"]:
        raise UserError(f"{folder} was trained on other data than {config['data']['root']} holds: put the files back")
    inputs = dataset.validation.inputs[:PICTURES]
    net = tpae.build(config, dataset.samples).eval()
    state = checkpoint.load(folder / checkpoint.FILE_NAME, checkpoint.fingerprint(config))
    net.load_state_dict(state["model"])
    seen = net(inputs)
    name = f"{folder}, {config['model']['sampling']}, {config['model']['blocks']} blocks"
    rows = {f"{name}: fusion": seen[-1].reconstruction, f"{name}: map alone": net.pictures(seen)[-1]}
    return inputs.numpy(), {row: pictures.numpy() for row, pictures in rows.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs on the same data")
    parser.add_argument("--output", type=Path, default=Path("samplings.png"), help="PNG to write")
    options = parser.parse_args(arguments)
    rows: dict[str, np.ndarray] = {}
    try:
        records = [finished_run(folder) for folder in options.runs]
        if any(data_of(record) != data_of(records[0]) for record in records):
            raise UserError("these runs have different data: give runs of the same data set, split and scaling")
        for folder, record in zip(options.runs, records, strict=True):
            inputs, found = reconstructed(folder, record)
            rows = {"input": inputs} | rows | found
        figure = figures.picture_rows("Reconstructions beside each other", "the last block of each run", rows)
        figure.savefig(options.output, format="png")
    except OSError as error:
        print(f"error: cannot write {options.output}: {error.strerror}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"drawn: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
