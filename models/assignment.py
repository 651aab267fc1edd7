"""Soft assignment of latent points to the units of a map, and the losses built on it.

Source: DPSOM (Manduchi et al., "T-DPSOM: An Interpretable Clustering Method for Unsupervised Learning of Patient
Health States", CHIL 2021), section 3; the Student-t assignment and its target go back to DEC (Xie et al., ICML 2016).
"""

from collections.abc import Callable

from models.grid import Grid

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_FLOOR = 1e-7


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """`||z_i - e_j||^2` for points `[B, D]` and centroids `[K, D]`: `[B, K]`, never negative.

    The expanded square needs one matrix product and no `[B, K, D]` tensor; it is taken in float32 at least
    (on a GPU in TF32 where `torch.set_float32_matmul_precision` allows it).
    """
    with torch.autocast(points.device.type, enabled=False):
        precision = torch.promote_types(torch.promote_types(points.dtype, centroids.dtype), torch.float32)
        points, centroids = points.to(precision), centroids.to(precision)
        point_norms = points.square().sum(dim=1, keepdim=True)
        centroid_norms = centroids.square().sum(dim=1)
        return torch.addmm(point_norms + centroid_norms, points, centroids.t(), alpha=-2.0).clamp_min(0.0)


def winners_of_series(winners: Callable[[Tensor], Tensor], series: Tensor, lengths: Tensor | None) -> Tensor:
    """Index `[B, T]` of the unit of every hour of series `[B, T, C]`; -1 behind the end of one.

    Args:
        winners: of rows `[N, C]`, `[N]`.
        series: padded at their ends.
        lengths: hours of each, `[B]`; None: T.
    """
    units = winners(series.flatten(0, 1)).view(series.shape[:2])
    if lengths is None:
        return units
    return units.where(torch.arange(series.shape[1], device=series.device) < lengths[:, None], -1)


def student_t_kernel(distances: Tensor, alpha: float) -> Tensor:
    """`1e-7 + (1 + d / alpha)^(-(alpha + 1) / 2)`, elementwise; alpha is the number of degrees of freedom."""
    return KERNEL_FLOOR + (1.0 + distances / alpha).pow(-(alpha + 1.0) / 2.0)


def student_t_assignment(distances: Tensor, alpha: float) -> Tensor:
    """Soft assignment q `[B, K]` (rows sum to 1) of squared distances `[B, K]`."""
    kernel = student_t_kernel(distances, alpha)
    return kernel / kernel.sum(dim=1, keepdim=True)


def target_distribution(assignment: Tensor) -> Tensor:
    """Target p `[N, K]` of a whole data set's q: `p_ij ~ q_ij^2 / sum_i q_ij`, rows normalised (DEC, equation 3)."""
    weight = assignment.square() / assignment.sum(dim=0)
    return weight / weight.sum(dim=1, keepdim=True)


def commitment_loss(target: Tensor, assignment: Tensor) -> Tensor:
    """Cluster assignment hardening: mean over the batch of KL(p || q); p is a constant."""
    return F.kl_div(assignment.log(), target, reduction="batchmean")


def soft_som_loss(assignment: Tensor, neighbour_assignment: Tensor, adjacency: Tensor) -> Tensor:
    """`-mean_i sum_j q_ij sum_(n next to j) log q_in`: units next to a likely unit shall be likely too.

    The caller decides what the gradient reaches: DPSOM detaches `assignment` and computes `neighbour_assignment` from
    detached points, so that only the centroids move.

    Args:
        assignment: q that weighs, `[B, K]`.
        neighbour_assignment: q whose logarithm is taken, `[B, K]`.
        adjacency: `[K, K]`, from `adjacency_matrix`; the double sum is one matrix product with it, in float32 at
            least.
    """
    with torch.autocast(assignment.device.type, enabled=False):
        return -((assignment @ adjacency) * neighbour_assignment.log()).sum(dim=1).mean()


def adjacency_matrix(grid: Grid) -> Tensor:
    """`[K, K]`: how often unit n is among the four neighbours of unit j (twice on a torus only two units wide)."""
    counts = torch.zeros(grid.size, grid.size + 1)  # the last column collects the missing neighbours
    counts.scatter_add_(1, grid.neighbours % (grid.size + 1), torch.ones(grid.size, 4))
    return counts[:, : grid.size]


def neighbourhood_loss(points: Tensor, centroids: Tensor, winners: Tensor, neighbours: Tensor) -> Tensor:
    """Elementwise mean of the squared differences between a point and its winner with the winner's four neighbours.

    A neighbour beyond the edge counts as the zero vector, as in SOM-VAE's original code.

    Args:
        points: `[B, D]`.
        centroids: `[K, D]`.
        winners: `[B]` unit indices.
        neighbours: `[K, 4]`, -1 for none (`Grid.neighbours`).
    """
    padded = F.pad(centroids, (0, 0, 0, 1))  # index -1 is the zero vector
    group = torch.cat([winners[:, None], neighbours[winners]], dim=1)  # [B, 5]
    return F.mse_loss(padded[group], points[:, None].expand(-1, 5, -1))
