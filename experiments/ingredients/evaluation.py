"""What every run reports: clustering, topology and reconstruction metrics by split."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from experiments.configuration import at_least
from experiments.engine.processes import RANK
from experiments.errors import UserError
from experiments.ingredients.compute import autocast, compute, seeded
from experiments.ingredients.training import Phase
from experiments.measures.metrics import clustering_metrics, topology_metrics, winners
from models.grid import Grid

import torch
from sacred import Ingredient
from torch import Tensor
from tqdm import tqdm

evaluation = Ingredient("evaluation", ingredients=[compute], save_git_info=False)
evaluation.add_config(
    every=5,  # epochs between two evaluations of the clustering while training; a phase's last one is always evaluated
    test_curve=False,  # also on the test set while training, as the originals do; nothing is chosen by it
    whole_batches=False,  # leave out the samples that do not fill a last batch, as the originals do
)
evaluation.rules = {"evaluation.every": at_least(1)}

Part = TypeVar("Part")  # the samples of a split: a Split, or Stays
CHUNK = 3000
SHOWN_RECONSTRUCTIONS = 20
COLLAPSE_ADVICE = "lower loss.gamma or training.learning_rate, or pretrain longer"  # of DPSOM and T-DPSOM


@torch.no_grad()
def in_chunks(
    model: torch.nn.Module, function: Callable[[Tensor], Tensor], inputs: Tensor, size: int = CHUNK
) -> Tensor:
    """`function` of `inputs` `[N, ...]`, computed in evaluation mode and in chunks of the batch dimension.

    A smaller `size` is for networks whose feature maps would not fit into memory.
    """
    model.eval()
    with autocast(device_type=inputs.device.type):
        chunks = tqdm(inputs.split(size), desc="evaluating", delay=3, leave=False, disable=RANK > 0)
        return torch.cat([function(chunk).float() for chunk in chunks])


@evaluation.capture
def evaluated_parts(splits: Mapping[str, Part], batch_size: int, whole_batches: bool) -> dict[str, Part]:
    """The `validation` and `test` splits, or their whole batches when the configuration asks for these alone.

    Raises:
        UserError: there are none.
    """
    parts = {name: splits[name] for name in ("validation", "test")}
    if not whole_batches:
        return parts
    for name, part in parts.items():
        if not (count := len(part) // batch_size * batch_size):
            raise UserError(
                f"evaluation.whole_batches=True leaves nothing of {len(part)} {name} samples: "
                f"lower training.batch_size={batch_size}"
            )
        parts[name] = part.first(count)
    return parts


@dataclass(frozen=True)
class Collapse:
    """When a collapsed map ends the run.

    Attributes:
        grid: the map's.
        advice: what to do about it.
        only_at_the_end: of the phase; a map may recover before.
        phase: the name of the one that trains the map last.
    """

    grid: Grid
    advice: str
    only_at_the_end: bool
    phase: str = "joint"

    def ends(self, phase: Phase, epoch: int) -> bool:
        """Whether the run ends when the map has collapsed by this epoch."""
        return phase.name == self.phase and self.grid.size > 1 and (epoch == phase.epochs or not self.only_at_the_end)


def learning_curve(
    parts: dict[str, Part],
    metrics_of: Callable[[Part], dict[str, float]],
    collapse: Collapse | None = None,
) -> Callable[[Phase, int], dict[str, float]]:
    """What the trainer calls after every epoch: the metrics of those splits that are due, often none.

    Args:
        parts: `validation` and `test`.
        metrics_of: evaluates one of them.
        collapse: when a UserError ends the run because one unit of several holds all of a validation split of more
            than one sample.
    """

    def evaluate(phase: Phase, epoch: int) -> dict[str, float]:
        with seeded(0):  # of its own, so that how often it is called changes no training
            metrics = by_part(due(epoch, phase.epochs, parts), metrics_of)
        collapsed = metrics.get("validation/used_units") == 1 and len(parts["validation"]) > 1
        if collapsed and collapse and collapse.ends(phase, epoch):
            raise UserError(
                f"the map collapsed: after {phase.name} epoch {epoch} one unit holds all of the validation split; "
                f"{collapse.advice}"
            )
        return metrics

    return evaluate


@evaluation.capture
def due(epoch: int, epochs: int, parts: dict[str, Part], every: int, test_curve: bool) -> dict[str, Part]:
    """Which of the `validation` and `test` splits to evaluate after this epoch of a phase."""
    if epoch % every and epoch != epochs:
        return {}
    return parts if test_curve else {"validation": parts["validation"]}


def by_part(parts: Mapping[str, Part], metrics_of: Callable[[Part], dict[str, float]]) -> dict[str, float]:
    """The metrics of every split, its name in front."""
    metrics: dict[str, float] = {}
    for name, part in parts.items():
        metrics |= prefixed(name, metrics_of(part))
    return metrics


def check_map_size(map_size: Sequence[int], samples: int) -> None:
    """Raise UserError if a map has more units than there are training samples."""
    if math.prod(map_size) > samples:
        raise UserError(f"model.map_size={list(map_size)} has more units than the {samples} samples: lower it")


def map_metrics(latents: Tensor, labels: Tensor, centroids: Tensor, grid: Grid, topology: bool) -> dict[str, float]:
    """Metrics of latents `[N, D]` with labels `[N]` on a map with centroids `[K, D]`."""
    points, codebook = latents.cpu().numpy(), centroids.detach().cpu().numpy()
    metrics = clustering_metrics(labels.cpu().numpy(), winners(points, codebook)[0], grid.size)
    return metrics | (topology_metrics(points, codebook, grid) if topology else {})


def squared_error(inputs: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean squared error of each sample, `[N]`, over all its values."""
    return (inputs - reconstructed).square().flatten(1).mean(dim=1)


def reconstruction_error(model: torch.nn.Module, inputs: Tensor) -> float:
    """Mean squared error of what `model.reconstruct` makes of inputs `[N, ...]`."""
    return in_chunks(model, lambda chunk: squared_error(chunk, model.reconstruct(chunk)), inputs).mean().item()


def prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
