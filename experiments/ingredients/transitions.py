"""How a map's units follow one another in time: tables of transitions, what they predict, and pictures of them.

A table `[K, K]` holds in row i the probabilities of the units that may follow unit i. The *learned* one is SOM-VAE's
Markov model, the *counted* one its yardstick: the paper claims that both predict equally well.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.ingredients.data import Split
from experiments.ingredients.evaluation import with_prefix
from experiments.ingredients.figures_series import film_strips, paths_on_map, transition_graph
from experiments.ingredients.series import Series
from experiments.ingredients.tracking import Tracker
from models.grid import Grid

import torch
from torch import Tensor

PSEUDO_COUNT = 1.0  # transitions that every row of a counted table is given, spread evenly: unseen ones stay possible
SHOWN_PATHS, SAMPLED_STEPS = 5, 12
SEED = 0  # of the paths that are drawn from a table, whatever the seed of the run


@dataclass(frozen=True, eq=False)
class SeriesOnMap:
    """N sequences of T steps, the latents `[N * T, D]` of all steps, and the units they win, `[N, T]`."""

    series: Series
    latents: Tensor
    units: Tensor


@dataclass(frozen=True, eq=False)
class Transitions:
    """Two tables `[K, K]`; `learned` is None for a model without transitions."""

    learned: Tensor | None
    counted: Tensor


def counted_transitions(units: Tensor, number_of_units: int) -> Tensor:
    """The table `[K, K]` that makes sequences of units `[N, T]` most likely, but for `PSEUDO_COUNT`."""
    pairs = units[:, :-1] * number_of_units + units[:, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=number_of_units**2).view(number_of_units, number_of_units)
    counts = counts + PSEUDO_COUNT / number_of_units
    return counts / counts.sum(dim=1, keepdim=True)


def transition_nll(table: Tensor, units: Tensor) -> float:
    """Mean negative log probability, in nats, of every step of sequences `[N, T]` but the first."""
    return -table[units[:, :-1], units[:, 1:]].log().mean().item()


def sampled_path(table: Tensor, start: int, length: int) -> list[int]:
    """Units visited by a walk that a table draws, the start included."""
    path = [start]
    while len(path) < length:
        path.append(torch.multinomial(table[path[-1]], 1).item())
    return path


def series_metrics(
    parts: dict[str, SeriesOnMap], tables: Transitions, metrics_of: Callable[[Split, Tensor], dict[str, float]]
) -> dict[str, float]:
    """`<split>_series/…` of `validation` and `test`: all that `metrics_of` says of the steps and their latents, and

    - `counted_transition_nll`, `transition_nll`: how well the counted and the learned table predict the next unit.
    """
    metrics: dict[str, float] = {}
    for name in ("validation", "test"):
        part = parts[name]
        found = metrics_of(part.series.frames(), part.latents)
        found["counted_transition_nll"] = transition_nll(tables.counted, part.units)
        if tables.learned is not None:
            found["transition_nll"] = transition_nll(tables.learned, part.units)
        metrics |= with_prefix(f"{name}_series", found)
    return metrics


def draw_transitions(
    tracker: Tracker, part: SeriesOnMap, tables: Transitions, grid: Grid, decoded: Tensor, step: int
) -> None:
    """Pictures of the learned table (else the counted one): as a graph, and as drawn paths, `decoded` `[K, C, H, W]`.

    And the paths of some sequences of the data on the map.
    """
    kind, table = ("counted", tables.counted) if tables.learned is None else ("learned", tables.learned)
    hits = torch.bincount(part.units.flatten(), minlength=grid.size)
    tracker.figure("transition_graph", transition_graph(table.numpy(), hits.numpy(), grid), step)
    tracker.figure("paths_on_map", paths_on_map(part.units[:SHOWN_PATHS].numpy(), grid), step)
    if decoded.dim() == 4:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            paths = [sampled_path(table, start, SAMPLED_STEPS) for start in part.units[:SHOWN_PATHS, 0].tolist()]
        note = f"each line: decoded units that follow one another as the {kind} table draws them"
        pictures = decoded.cpu()[torch.tensor(paths)].numpy()
        tracker.figure("sampled_paths", film_strips(pictures, "Sampled paths", note), step)
