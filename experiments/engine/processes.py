"""Training in several processes, as `torchrun` starts them: one for each GPU, on one or more hosts.

All processes hold the same weights, the same data and the same random numbers; of each batch every process takes its
part. Process 0 keeps the run; what the others write goes to a folder that is thrown away. Started without torchrun,
there is one process, and every function here does nothing.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from experiments.errors import UserError

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

RANK = int(os.environ.get("RANK", 0))  # of this process, among all
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", 0))  # among those of its host
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))  # processes
PATIENCE = timedelta(hours=1)  # for a process that loads data or evaluates


def join(device: torch.device) -> torch.device:
    """Meet the other processes; return this one's device.

    Raises:
        UserError: a host has fewer GPUs than processes.
    """
    if WORLD_SIZE == 1:
        return device
    if device.type == "cuda":
        if torch.cuda.device_count() <= LOCAL_RANK:
            raise UserError(
                f"process {LOCAL_RANK + 1} of this host has no GPU, there are {torch.cuda.device_count()}: "
                "lower torchrun's --nproc-per-node"
            )
        device = torch.device("cuda", LOCAL_RANK)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    return device


@contextmanager
def one_first() -> Iterator[None]:
    """The first process of every host goes through the block alone, the others after it: for downloads and caches."""
    if WORLD_SIZE > 1 and LOCAL_RANK > 0:
        dist.barrier()
    yield
    if WORLD_SIZE > 1 and LOCAL_RANK == 0:
        dist.barrier()


class Parallel:
    """Calls loss functions of a model so that their gradients are those of the whole batch, in every process.

    A loss must be a mean over the samples of a batch; a term that is not must see them all
    (`models.batch.of_all_processes`).

    Args:
        model: its parameters are made equal in all processes; batch normalisation is made to see the whole batch.
        batch_size: over all processes.

    Raises:
        UserError: the batch cannot be divided, or the model normalises batches on the CPU.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.share = slice(None)
        self.call = _call
        if WORLD_SIZE == 1:
            return
        if batch_size % WORLD_SIZE:
            raise UserError(f"training.batch_size={batch_size} cannot be divided among {WORLD_SIZE} processes")
        part = batch_size // WORLD_SIZE
        self.share = slice(RANK * part, (RANK + 1) * part)
        on_cuda = next(model.parameters()).is_cuda
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            if not on_cuda:
                raise UserError(
                    "batch normalisation in several processes needs GPUs: use model.encoder=published, or one process"
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.call = DistributedDataParallel(_Losses(model), find_unused_parameters=True)
        self.signals = dist.new_group(backend="gloo") if on_cuda else None

    def part(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process' rows of a batch of columns `[B, ...]`."""
        return {name: column[self.share] for name, column in batch.items()}

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes."""
        if WORLD_SIZE > 1:
            dist.all_reduce(values)
            values /= WORLD_SIZE
        return values

    def agreed(self, number: int | None) -> int | None:
        """The greatest number that any process has, None when none has one."""
        if WORLD_SIZE == 1:
            return number
        greatest = torch.tensor(number or 0)
        dist.all_reduce(greatest, dist.ReduceOp.MAX, group=self.signals)
        return greatest.item() or None


class _Losses(nn.Module):
    """What DistributedDataParallel wraps: a module whose forward is any loss of the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[..., dict[str, Tensor]], **values: Tensor) -> dict[str, Tensor]:
        return loss(**values)


def _call(loss: Callable[..., dict[str, Tensor]], **values: Tensor) -> dict[str, Tensor]:
    return loss(**values)
