"""bfloat16 on processors that have no instructions for it: products computed in fp32, then rounded.

Such an instruction multiplies bfloat16 numbers exactly, adds up in fp32 and rounds the sum. So does this, up to the
order of the sum; a step takes up to a quarter longer than in fp32. PyTorch's own way out takes tens of times as long.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

NOTE = "no bfloat16 instructions in this processor: products are computed in fp32 and rounded, which takes longer"
PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
}


class RoundedProducts(TorchDispatchMode):
    """Matrix products and convolutions of bfloat16 tensors in fp32, their results rounded to bfloat16.

    Everything else, fp32 products among it, goes its usual way; so do products in other threads and under
    `torch.inference_mode`.
    """

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function not in PRODUCTS or not any(_is_bfloat16(argument) for argument in args):
            return function(*args, **(kwargs or {}))
        result = function(*tree_map_only(Tensor, Tensor.float, args), **(kwargs or {}))
        return tree_map_only(Tensor, Tensor.bfloat16, result)


def processor_has_it() -> bool:
    """Whether the CPU multiplies bfloat16 numbers by instructions of its own."""
    return any(present for name, present in torch.cpu.get_capabilities().items() if "bf16" in name)


_active: RoundedProducts | None = None


def emulate(wanted: bool) -> None:
    """Compute bfloat16 products in fp32 from now on, or no longer; not to be called within another dispatch mode."""
    global _active
    if wanted and _active is None:
        _active = RoundedProducts()
        _active.__enter__()
    elif not wanted and _active is not None:
        _active.__exit__(None, None, None)
        _active = None


def emulated() -> bool:
    """Whether `emulate` is on."""
    return _active is not None


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
