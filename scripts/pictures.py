"""Draw the README's pictures of trained maps from the small files in results/maps.

    python scripts/pictures.py

results/figures/map.png shows the prototypes of DPSOM's map of MNIST, attractor.png Lorenz' attractor cut into the units
of a map, trajectory.png a patient's way over T-DPSOM's map. A picture whose map is not there is left out.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.figures import decoded_map
from experiments.ingredients.figures_series import attractor
from experiments.ingredients.figures_stays import way_and_label
from experiments.ingredients.trained_map import ARRAYS
from experiments.ingredients.trajectories import TRAJECTORIES
from models.grid import Grid
from scripts.records import write_result

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
Arrays = Mapping[str, np.ndarray]


def grid_of(arrays: Arrays) -> Grid:
    return Grid(*arrays["map_size"].tolist(), torus=bool(arrays["torus"]))


def prototypes(arrays: Arrays) -> Figure:
    return decoded_map(arrays["decoded"] / 255, grid_of(arrays))


def coloured_attractor(arrays: Arrays) -> Figure:
    return attractor(arrays["points"] / 100, arrays["point_units"], grid_of(arrays), arrays["channels"].tolist())


def eventful_trajectory(arrays: Arrays) -> Figure:
    """The last of the chosen stays: of those that end in death, the one whose score ranges farthest."""
    start = int(arrays["lengths"][:-1].sum())
    units, labels = arrays["path_units"][start:], arrays["path_labels"][start:].astype(int)
    means, label = arrays["means"][0, :, 0].astype(float), arrays["label"].item()
    return way_and_label(units, labels, means, label, grid_of(arrays), "A patient's way over the map")


PICTURES: dict[str, tuple[str, Callable[[Arrays], Figure]]] = {
    "map.png": (f"dpsom/mnist_faithful_104/{ARRAYS}", prototypes),
    "attractor.png": (f"stays_baselines/lorenz_somvae_prob/{TRAJECTORIES}", coloured_attractor),
    "trajectory.png": (f"tdpsom/physionet2012/{TRAJECTORIES}", eventful_trajectory),
}


def draw(results: Path) -> dict[Path, bytes]:
    """The pictures whose maps are below `results`, by the path they belong to."""
    drawn = {}
    for name, (source, figure_of) in PICTURES.items():
        path = results / "maps" / source
        if not path.exists():
            continue
        try:
            with np.load(path, allow_pickle=False) as arrays:
                figure = figure_of(arrays)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a trained map ({error}): restore it from git") from error
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110, metadata={"Software": None})
        drawn[results / "figures" / name] = buffer.getvalue()
    return drawn


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the maps")
    options = parser.parse_args(arguments)
    try:
        pictures = draw(options.results)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, content in pictures.items():
        write_result(path, content)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
