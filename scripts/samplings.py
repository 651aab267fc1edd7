"""Draws finished TPAE runs beside each other: the same pictures, as each run reconstructs them.

    python scripts/samplings.py runs/tpae/1 runs/tpae/2 --output samplings.png

Meant for a native and a downsampled run; every run is named by its sampling and its number of blocks.
"""

import argparse
import json
import sys
from pathlib import Path

from experiments import tpae
from experiments.errors import UserError
from experiments.ingredients import checkpoint, figures
from experiments.ingredients.data import load_dataset

import numpy as np
import torch

PICTURES = 10


@torch.no_grad()
def reconstructed(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first validation pictures of a finished run, and what its last block makes of them.

    Raises:
        UserError: no folder of a finished TPAE run.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        model, settings = config["model"], config["data"]
        name = f"{model['sampling']}, {model['blocks']} blocks"
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is no run of TPAE: give the folder of one, such as runs/tpae/1") from error
    dataset = load_dataset(**settings)
    inputs = dataset.validation.inputs[:PICTURES]
    net = tpae.build(config, dataset.samples).eval()
    if not isinstance(net, tpae.TPAE):
        raise UserError(f"{folder} is a run of the plain CNN, which reconstructs nothing")
    state = checkpoint.load(folder / checkpoint.FILE_NAME, checkpoint.fingerprint(config))
    net.load_state_dict(state["model"])
    seen = net(inputs)
    rows = {f"{name}: fusion": seen[-1].reconstruction, f"{name}: map alone": net.pictures(seen)[-1]}
    return inputs.numpy(), {row: pictures.numpy() for row, pictures in rows.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs on the same data")
    parser.add_argument("--output", type=Path, default=Path("samplings.png"), help="PNG to write")
    options = parser.parse_args(arguments)
    rows: dict[str, np.ndarray] = {}
    try:
        for folder in options.runs:
            inputs, found = reconstructed(folder)
            rows = {"input": inputs} | rows | found
        figure = figures.picture_rows("Reconstructions beside each other", "the last block of each run", rows)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figure.savefig(options.output, format="png")
    print(f"drawn: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
