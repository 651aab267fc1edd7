"""Where and how the arithmetic runs: device, precision, threads, compilation, determinism."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path

from experiments.configuration import at_least, one_of, optional
from experiments.engine import bfloat16, matrix_products, processes
from experiments.engine.cuda_graphs import Recorded
from experiments.errors import UserError

import torch
from sacred import Ingredient
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

compute = Ingredient("compute", save_git_info=False)
compute.add_config(
    device="auto",  # auto (CUDA where there is one), cpu or cuda
    precision="fp32",  # fp32, tf32 (CUDA) or bf16: matrix products and convolutions in bfloat16
    compile=False,  # torch.compile for the loss functions
    graphs=True,  # on CUDA replay a recorded training step, where all are alike, instead of launching its kernels
    threads=None,  # CPU threads; null leaves the choice to PyTorch
    deterministic=False,  # only deterministic kernels on CUDA; on the CPU they always are
)
compute.rules = {
    "compute.device": one_of("auto", "cpu", "cuda"),
    "compute.precision": one_of("fp32", "tf32", "bf16"),
    "compute.threads": optional(at_least(1)),
}


@compute.capture
def prepare(device: str, precision: str, compile: bool, threads: int | None, deterministic: bool) -> torch.device:
    """Apply the settings to PyTorch and return the device of this process.

    Raises:
        UserError: CUDA was asked for and there is none, or not enough for the processes; compilation of what this
            processor has to emulate.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device=cuda, but PyTorch sees no CUDA device: use compute.device=auto or cpu")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
        threadpool_limits(threads)  # those of NumPy's products and of scikit-learn
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # convolutions; PyTorch would allow it
    matrix_products.use_library(matrix_products.fastest_library())
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic or not use_cuda)  # on the CPU, threads would add up in any order
    torch.utils.deterministic.fill_uninitialized_memory = False
    emulated = precision == "bf16" and not use_cuda and not bfloat16.processor_has_it()
    if emulated and compile:
        raise UserError(f"compute.compile=True compiles nothing here ({bfloat16.NOTE}): use compute.precision=fp32")
    bfloat16.emulate(emulated)
    if emulated and processes.RANK == 0:
        print(f"note: {bfloat16.NOTE}", file=sys.stderr)
    return processes.join(torch.device("cuda" if use_cuda else "cpu"))


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep freed blocks of any size for the next training step.

    By default it returns large ones to the system, and every step then pays for fresh pages: of the 41 MB gradient of
    DPSOM's full-covariance head alone, ten thousand page faults. Where the C library has no `mallopt`, nothing happens.
    """
    trim_threshold, mmap_threshold, mmap_max, most = -1, -3, -4, 2**31 - 1  # M_TRIM_THRESHOLD, ..., INT_MAX
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        library.mallopt(trim_threshold, most)
        if not library.mallopt(mmap_threshold, 2**30):  # older versions take 32 MiB at most
            library.mallopt(mmap_max, 0)


@compute.capture
def autocast(precision: str, device_type: str) -> AbstractContextManager:
    """Context in which matrix products run in bfloat16 when `compute.precision` says so."""
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random numbers every time on a kind of device; outside it goes on as if none had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@compute.capture
def compiled(function, compile: bool):
    """`function`, through `torch.compile` when `compute.compile` is set."""
    return torch.compile(function) if compile else function


@compute.capture
def recorded(
    step: Callable[..., dict[str, Tensor]], model: nn.Module, device: torch.device, graphs: bool
) -> Callable[..., dict[str, Tensor]]:
    """`step`, as a CUDA graph where `compute.graphs` is set and one process trains alone on a GPU."""
    return Recorded(step, model) if graphs and device.type == "cuda" and processes.WORLD_SIZE == 1 else step


def hardware(device: torch.device) -> dict[str, str | int | bool | None]:
    """What the run ran on, without naming the host."""
    return {
        "device": device.type,
        "cpu": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes.WORLD_SIZE,
        "matrix_products": matrix_products.library(),
        "bfloat16_emulated": bfloat16.emulated(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    """Versions of what can change a result."""
    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "minisom", "polars", "pillow", "sacred")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
