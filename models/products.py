"""Large matrix products on the CPU by the library under NumPy, mostly OpenBLAS.

PyTorch's own, MKL, falls behind on some processors: on an AMD Zen 3 the products of `models.spectral` take 1.4 to 3.5
times as long, those of DPSOM's full-covariance head 1.1 to 1.9 times, its small ones about as long.
"""

import math

import numpy
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.flop_counter import register_flop_formula


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` of `[..., M, K]` and `[..., K, N]`, with its gradient; one may lack the batch's dimensions.

    Elsewhere than on the CPU, in bfloat16, and in compiled or exported programs, it is PyTorch's product.
    """
    if left.device.type != "cpu" or left.dtype == torch.bfloat16 or torch.compiler.is_compiling():
        return left @ right
    return _product(left, right)


@torch.library.custom_op("models::product", mutates_args=(), device_types="cpu")
def _product(left: Tensor, right: Tensor) -> Tensor:
    return torch.from_numpy(numpy.matmul(left.detach().numpy(), right.detach().numpy()))


def _save_factors(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    left, right = ctx.saved_tensors
    of_left, of_right = ctx.needs_input_grad
    return (
        product(gradient, right.mT).sum_to_size(left.shape) if of_left else None,
        product(left.mT, gradient).sum_to_size(right.shape) if of_right else None,
    )


_product.register_autograd(_gradients, setup_context=_save_factors)


@register_flop_formula(torch.ops.models.product)
def _operations(left: torch.Size, right: torch.Size, *, out_shape: torch.Size) -> int:
    return 2 * math.prod(out_shape) * left[-1]
