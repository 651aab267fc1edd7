"""Large fp32 matrix products on the CPU by the library that is fastest there.

PyTorch's own, MKL, is made for Intel's processors; elsewhere it falls behind. On an AMD Zen 5 it leaves AVX-512 alone,
and oneDNN, which PyTorch carries as well, computes the products of DPSOM's layers twice as fast; on an AMD Zen 3 it
takes 1.4 to 3.5 times as long as NumPy's OpenBLAS over those of `models.spectral`. Results differ by their rounding.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import DispatchKeySet, Tensor
from torch.library import Library, get_kernel

LARGE = 2**21  # multiplications; below, the way through Python costs more than it saves
PROCESSOR = Path("/proc/cpuinfo")

_pytorchs = {name: get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm", "bmm")}
_replaced: Library | None = None
_used = "MKL"


def fastest_library() -> str:
    """`MKL`, which stands for PyTorch's own wherever that is another; `oneDNN`; or `OpenBLAS`."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if not has_both or not PROCESSOR.exists() or "GenuineIntel" in PROCESSOR.read_text():
        return "MKL"
    return "oneDNN" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "OpenBLAS"


def use_library(name: str) -> None:
    """Compute the large products of this process by that library from now on; compiled programs keep PyTorch's own."""
    global _replaced, _used
    if name == _used:
        return
    if _replaced:
        _replaced._destroy()
        _replaced = None
    if name != "MKL":
        multiply, multiply_batches = {"oneDNN": (_by_onednn, _each_by_onednn), "OpenBLAS": (_by_numpy, _by_numpy)}[name]
        _replaced = Library("aten", "IMPL")
        with warnings.catch_warnings(action="ignore"):  # that it replaces kernels, which it is for
            for operation, product in {"mm": multiply, "bmm": multiply_batches}.items():
                _replaced.impl(operation, _product_kernel(operation, product), "CPU", with_keyset=True)
            _replaced.impl("addmm", _sum_kernel(multiply), "CPU", with_keyset=True)
    _used = name


def library() -> str:
    """The one in use."""
    return _used


def _product_kernel(operation: str, product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def kernel(keys: DispatchKeySet, left: Tensor, right: Tensor) -> Tensor:
        return product(left, right) if _is_large(left, right) else _pytorchs[operation].call_boxed(keys, left, right)

    return kernel


def _sum_kernel(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def kernel(keys: DispatchKeySet, added: Tensor, left: Tensor, right: Tensor, **factors: Any) -> Tensor:
        if not factors and added.dtype == torch.float32 and _is_large(left, right):
            return product(left, right).add_(added)
        return _pytorchs["addmm"].call_boxed(keys, added, left, right, **factors)

    return kernel


def _is_large(left: Tensor, right: Tensor) -> bool:
    return left.dtype == torch.float32 and left.shape[-2] * left.shape[-1] * right.shape[-1] >= LARGE


def _by_numpy(left: Tensor, right: Tensor) -> Tensor:
    return torch.from_numpy(numpy.matmul(left.detach().numpy(), right.detach().numpy()))


def _by_onednn(left: Tensor, right: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right).t(), None, "none", [], "")


def _each_by_onednn(left: Tensor, right: Tensor) -> Tensor:
    products = left.new_empty(len(left), left.shape[1], right.shape[2])
    for product, *factors in zip(products, left, right, strict=True):
        product.copy_(_by_onednn(*factors))
    return products


def _dense(matrix: Tensor) -> Tensor:
    """The matrix, copied where neither its rows nor its columns follow each other: oneDNN is very slow at these."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
