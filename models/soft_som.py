"""A self-organising map that every latent sees as a blend of prototypes, and the losses that order it; used by TPAE.

Source: see `tpae`, whose notation this is.
"""

import math
from typing import NamedTuple

from models.assignment import adjacency_matrix, squared_distances
from models.batch import of_all_processes
from models.grid import Grid, gaussian_neighbourhood

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Assignment(NamedTuple):
    """How the prototypes of one map see a batch of latents."""

    distances: Tensor  # [B, K], squared
    weights: Tensor  # [B, K], rows sum to 1
    blended: Tensor  # [B, D], the document's topo_z


class SoftSOM(nn.Module):
    """`K` prototypes on a grid, of which every latent becomes a blend.

    Args:
        grid: the map's geometry.
        latent_dim: D.
        temperature: of the softmax over distances (not squared), in units of distance.
        assignment: `soft`; `gumbel`, which adds Gumbel noise in training; `hard`, the nearest prototype alone, with the
            gradient of the soft blend (straight through).

    Raises:
        ValueError: a temperature that is not positive.
    """

    def __init__(self, grid: Grid, latent_dim: int, temperature: float, assignment: str = "soft") -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"the temperature must be greater than 0, not {temperature:g}")
        self.grid = grid
        self.temperature, self.assignment = temperature, assignment
        self.prototypes = nn.Parameter(torch.randn(grid.size, latent_dim))
        self.register_buffer("grid_distances", grid.distances("euclidean"), persistent=False)
        self.register_buffer("adjacency", adjacency_matrix(grid), persistent=False)

    def forward(self, latents: Tensor) -> Assignment:
        """Of latents `[B, D]`."""
        distances = squared_distances(latents, self.prototypes)
        logits = -(distances + 1e-6).sqrt() / self.temperature  # the root's gradient stays finite on a prototype
        softmax = F.gumbel_softmax if self.assignment == "gumbel" and self.training else F.softmax
        weights = softmax(logits, dim=1)
        if self.assignment == "hard":
            nearest = F.one_hot(weights.argmax(dim=1), self.grid.size)
            weights = nearest - weights.detach() + weights
        return Assignment(distances, weights, weights @ self.prototypes)

    def neighbourhood(self, distances: Tensor, sigma: float | Tensor) -> Tensor:
        """Weighted mean squared distance per dimension to the winner's surroundings on the grid, `sigma` steps wide.

        The document's hard version, the winner and `lambda` times its neighbours, is a Gaussian that is cut off. The
        gradient reaches latents and prototypes; the winner is an index.
        """
        weights = gaussian_neighbourhood(self.grid_distances, sigma)[distances.argmin(dim=1)]
        return (weights * distances).sum(dim=1).div(weights.sum(dim=1)).mean() / self.prototypes.shape[1]

    def pairwise(self, latents: Tensor, distances: Tensor) -> Tensor:
        """Mean squared distance per dimension of two latents of the batch whose winners are neighbours on the grid.

        0 without such a pair.
        """
        latents, winners = of_all_processes(latents), of_all_processes(distances.argmin(dim=1))
        pairs = self.adjacency[winners][:, winners].clamp_max(1.0)
        total = (pairs * squared_distances(latents, latents)).sum() / latents.shape[1]
        return total / pairs.sum().clamp_min(1.0)

    def diversity(self, weights: Tensor) -> Tensor:
        """1 - entropy of the batch's mean weights / log K; 0 on a map of one unit."""
        usage = of_all_processes(weights).mean(dim=0)
        entropy = -torch.xlogy(usage, usage.clamp_min(1e-12)).sum()
        return 1 - entropy / math.log(max(self.grid.size, 2))
