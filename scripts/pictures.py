"""Draw the README's pictures from the records and the small files in results/maps.

    python scripts/pictures.py

results/figures/dpsom_learning_curve.png shows DPSOM's faithful runs beside the original's, map.png the prototypes of
its map of MNIST, tpae_labels.png the classes on TPAE's map of photographs, attractor.png Lorenz' attractor cut into the
units of a map, trajectory.png a patient's way over T-DPSOM's map. A picture whose source is not there is left out.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments import PROJECT
from experiments.drawing.figures import decoded_map, label_map
from experiments.drawing.figures_series import attractor
from experiments.drawing.figures_stays import way_and_label
from experiments.drawing.trained_map import ARRAYS, opened, pictures_of
from experiments.drawing.trajectories import TRAJECTORIES
from experiments.errors import reported
from models.grid import Grid
from scripts.records import write_result
from scripts.rendering.curves import learning_curve

import numpy as np
from matplotlib.figure import Figure

Arrays = Mapping[str, np.ndarray]


def grid_of(arrays: Arrays) -> Grid:
    return Grid(*arrays["map_size"].tolist(), torus=bool(arrays["torus"]))


def prototypes(arrays: Arrays) -> Figure:
    grid = grid_of(arrays)
    return decoded_map(pictures_of(arrays["decoded"], grid)[:, 0], grid)


def labels(arrays: Arrays) -> Figure:
    return label_map(arrays["counts"], arrays["classes"].tolist(), grid_of(arrays))


def coloured_attractor(arrays: Arrays) -> Figure:
    return attractor(arrays["points"] / 100, arrays["point_units"], grid_of(arrays), arrays["channels"].tolist())


def eventful_trajectory(arrays: Arrays) -> Figure:
    """The last of the chosen stays: of those that end in death, the one whose score ranges farthest."""
    start = int(arrays["lengths"][:-1].sum())
    units, labels = arrays["path_units"][start:], arrays["path_labels"][start:].astype(int)
    means = arrays["means"][0, :, 0].astype(float)
    return way_and_label(units, labels, means, "organ-failure score", grid_of(arrays), "A patient's way over the map")


def of_map(source: str, figure_of: Callable[[Arrays], Figure]) -> Callable[[Path], Figure | None]:
    """Draws the arrays of a file in results/maps, None when it is not there."""

    def drawn(results: Path) -> Figure | None:
        path = results / "maps" / source
        if not path.exists():
            return None
        with opened(path) as arrays:
            return figure_of(arrays)

    return drawn


PICTURES: dict[str, Callable[[Path], Figure | None]] = {
    "dpsom_learning_curve.png": learning_curve,
    "map.png": of_map(f"dpsom/mnist/{ARRAYS}", prototypes),
    "tpae_labels.png": of_map(f"tpae/jpg_best_cpu/{ARRAYS}", labels),
    "attractor.png": of_map(f"stays_baselines/lorenz_somvae_prob/{TRAJECTORIES}", coloured_attractor),
    "trajectory.png": of_map(f"tdpsom/physionet2012/{TRAJECTORIES}", eventful_trajectory),
}


def draw(results: Path) -> dict[Path, bytes]:
    """The pictures whose sources are below `results`, by the path they belong to."""
    drawn = {}
    for name, figure_of in PICTURES.items():
        if figure := figure_of(results):
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=110, metadata={"Software": None})
            drawn[results / "figures" / name] = buffer.getvalue()
    return drawn


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=PROJECT / "results", help="folder of the records and maps")
    options = parser.parse_args(arguments)
    for path, content in draw(options.results).items():
        write_result(path, content)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
