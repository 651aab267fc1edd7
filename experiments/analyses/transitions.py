"""How a map's units follow one another in time: tables of transitions, what they predict, and pictures of them.

A table `[K, K]` holds in row i the probabilities of the units that may follow unit i. The *learned* one is SOM-VAE's
Markov model, the *counted* one its yardstick: the paper claims that both predict equally well.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.drawing.figures_series import film_strips, paths_on_map, transition_graph
from experiments.ingredients.compute import seeded
from experiments.ingredients.data import Split
from experiments.ingredients.evaluation import by_part
from experiments.ingredients.series import Series
from experiments.ingredients.tracking import Tracker
from experiments.measures.metrics import winners
from models.grid import Grid

import torch
from torch import Tensor

PSEUDO_COUNT = 1.0  # transitions that every row of a counted table is given, spread evenly: unseen ones stay possible
SHOWN_PATHS, SAMPLED_STEPS = 3, 12
SEED = 0  # of the paths that are drawn from a table, whatever the seed of the run


@dataclass(frozen=True, eq=False)
class SeriesOnMap:
    """N sequences of T steps, the latents `[N * T, D]` of all steps, and the units they win, `[N, T]`."""

    series: Series
    latents: Tensor
    units: Tensor

    @classmethod
    def nearest(cls, series: Series, latents: Tensor, centroids: Tensor) -> "SeriesOnMap":
        """Sequences whose steps have these latents and are won by the nearest of the centroids `[K, D]`."""
        units = winners(latents.cpu().numpy(), centroids.detach().cpu().numpy())[0]
        return cls(series, latents, torch.from_numpy(units).view(series.labels.shape))

    def moves(self) -> Tensor:
        """Every unit but a sequence's last, and the one that follows it: `[N * (T - 1), 2]`."""
        return torch.stack([self.units[:, :-1], self.units[:, 1:]], dim=2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Transitions:
    """Two tables `[K, K]`; `learned` is None for a model without transitions."""

    learned: Tensor | None
    counted: Tensor


def counted_transitions(moves: Tensor, number_of_units: int) -> Tensor:
    """The table `[K, K]` that makes moves `[M, 2]` from unit to unit most likely, but for `PSEUDO_COUNT`."""
    counts = torch.bincount(moves[:, 0] * number_of_units + moves[:, 1], minlength=number_of_units**2)
    counts = counts.view(number_of_units, number_of_units) + PSEUDO_COUNT / number_of_units
    return counts / counts.sum(dim=1, keepdim=True)


def transition_nll(table: Tensor, moves: Tensor) -> float:
    """Mean negative log probability of moves `[M, 2]`, in nats."""
    return -table[moves[:, 0], moves[:, 1]].log().mean().item()


def transition_metrics(tables: Transitions, moves: Tensor) -> dict[str, float]:
    """`counted_transition_nll`, `transition_nll`: how well the counted and the learned table predict moves `[M, 2]`."""
    metrics = {"counted_transition_nll": transition_nll(tables.counted, moves)}
    learned = {} if tables.learned is None else {"transition_nll": transition_nll(tables.learned, moves)}
    return metrics | learned


def sampled_path(table: Tensor, start: int, length: int) -> list[int]:
    """Units visited by a walk that a table draws, the start included."""
    path = [start]
    while len(path) < length:
        path.append(torch.multinomial(table[path[-1]], 1).item())
    return path


def draw_transitions(
    tracker: Tracker, paths: Tensor, tables: Transitions, grid: Grid, decoded: Tensor | None, step: int
) -> None:
    """Pictures of units that follow one another.

    The learned table (else the counted one) as a graph; the first of the `paths` `[N, T]` that data take across the
    map; and paths drawn from the table, where units can be shown as pictures, `decoded` `[K, C, H, W]`.
    """
    kind, table = ("counted", tables.counted) if tables.learned is None else ("learned", tables.learned)
    hits = torch.bincount(paths.flatten(), minlength=grid.size)
    tracker.figure("transition_graph", transition_graph(table.numpy(), hits.numpy(), grid), step)
    tracker.figure("paths_on_map", paths_on_map(paths[:SHOWN_PATHS].numpy(), grid), step)
    if decoded is not None:
        with seeded(SEED):
            drawn = [sampled_path(table, start, SAMPLED_STEPS) for start in paths[:SHOWN_PATHS, 0].tolist()]
        note = f"each line: decoded units that follow one another as the {kind} table draws them"
        pictures = decoded.cpu()[torch.tensor(drawn)].numpy()
        tracker.figure("sampled_paths", film_strips(pictures, "Sampled paths", note), step)


def evaluate_series(
    tracker: Tracker,
    parts: dict[str, Series],
    *,
    encode: Callable[[Tensor], Tensor],
    centroids: Tensor,
    grid: Grid,
    learned: Tensor | None,
    decoded: Tensor,
    metrics_of: Callable[[Split, Tensor], dict[str, float]],
    step: int,
) -> dict[str, float]:
    """Metrics of the sequences of `validation` and `test`, step by step, and pictures of the map in time.

    Args:
        parts: the splits, `train` among them, whose moves are counted.
        encode: from frames `[n, C, H, W]` to latents `[n, D]`.
        centroids: `[K, D]`.
        learned: table of transitions `[K, K]`, where there is one.
        decoded: the units as pictures, `[K, C, H, W]`.
        metrics_of: frames and their latents.
    """
    seen = {name: SeriesOnMap.nearest(part, encode(part.frames().inputs), centroids) for name, part in parts.items()}
    tables = Transitions(learned, counted_transitions(seen["train"].moves(), grid.size))
    draw_transitions(tracker, seen["validation"].units, tables, grid, decoded, step)
    return by_part(
        {f"{name}_series": seen[name] for name in ("validation", "test")},
        lambda part: metrics_of(part.series.frames(), part.latents) | transition_metrics(tables, part.moves()),
    )
