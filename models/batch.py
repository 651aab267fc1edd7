"""Batches that are divided among several processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def of_all_processes(rows: Tensor) -> Tensor:
    """Rows `[B / P, ...]` of each of P processes as one `[B, ...]`, with gradient; alone, `rows` themselves."""
    return _Gathered.apply(rows) if dist.is_available() and dist.is_initialized() else rows


class _Gathered(torch.autograd.Function):
    """The gradient is the sum of what all processes ask for."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)  # what comes in may be another's, too
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
