"""The map: a rectangular grid of units, with or without torus topology.

A unit's index is `row * width + column`; everything here is geometry, nothing is learned.
"""

import torch
from torch import Tensor


class Grid:
    """A grid of `height * width` units; on a torus, opposite edges touch.

    Attributes:
        coordinates: `[K, 2]`, row and column of every unit.
        neighbours: `[K, 4]`, index of the unit below, above, right and left of each; -1 where the edge has none.
    """

    def __init__(self, height: int, width: int, torus: bool) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"a map needs at least one row and one column, not {height} x {width}")
        self.shape = (height, width)
        self.size = height * width
        self.torus = torus
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        self.coordinates = torch.stack([rows.flatten(), columns.flatten()], dim=1)
        self.neighbours = self._neighbours()

    def _neighbours(self) -> Tensor:
        steps = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])
        extent = torch.tensor(self.shape)
        reached = self.coordinates[:, None] + steps  # [K, 4, 2]
        inside = ((reached >= 0) & (reached < extent)).all(dim=2)
        wrapped = reached % extent
        indices = wrapped[..., 0] * self.shape[1] + wrapped[..., 1]
        return indices if self.torus else indices.where(inside, -1)

    def distances(self, metric: str = "manhattan") -> Tensor:
        """Distance between every two units on the grid, `[K, K]`, in units of one grid step.

        `metric` is `manhattan`, `euclidean` or `chebyshev` (a ring of radius 1 is the 8-neighbourhood).
        """
        steps = (self.coordinates[:, None] - self.coordinates[None]).abs()  # [K, K, 2]
        if self.torus:
            steps = torch.minimum(steps, torch.tensor(self.shape) - steps)
        order = {"manhattan": 1, "euclidean": 2, "chebyshev": float("inf")}[metric]
        return torch.linalg.vector_norm(steps.float(), ord=order, dim=2)


def gaussian_neighbourhood(distances: Tensor, sigma: float | Tensor) -> Tensor:
    """How strongly a winner pulls units at these grid distances: `exp(-distance^2 / (2 sigma^2))`, elementwise."""
    return torch.exp(-0.5 * (distances / sigma).square())
