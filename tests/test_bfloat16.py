"""bfloat16 emulated: what a processor with the instructions computes, up to the order of the sums."""

from experiments.engine import bfloat16, processes
from experiments.engine.bfloat16 import RoundedProducts
from experiments.errors import UserError
from experiments.ingredients.compute import hardware, prepare
from models.assignment import target_distribution
from models.dpsom import DPSOM, LossWeights
from models.grid import Grid

import pytest
import torch
import torch.nn.functional as F

ULP = 2.0**-7  # largest relative distance of two neighbouring bfloat16 numbers


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).bfloat16()


PRODUCTS = {
    "linear": lambda inputs, weight, bias: F.linear(inputs.flatten(1), weight.flatten(1), bias),
    "matrix": lambda inputs, weight, bias: inputs.flatten(1) @ weight.flatten(1).t(),
    "batched": lambda inputs, weight, bias: torch.bmm(inputs.flatten(2), weight[:4].flatten(2).transpose(1, 2)),
    "convolution": lambda inputs, weight, bias: F.conv2d(inputs, weight, bias, padding=1),
    "transposed": lambda inputs, weight, bias: F.conv_transpose2d(inputs, weight.transpose(0, 1), bias, stride=2),
    "channels_last": lambda inputs, weight, bias: F.conv2d(inputs.to(memory_format=torch.channels_last), weight, bias),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_and_its_gradients_are_the_exact_ones_rounded_once(product):
    torch.manual_seed(0)
    numbers = normal(4, 3, 5, 5), normal(6, 3, 5, 5), normal(6)
    results = []
    for kind in (torch.bfloat16, torch.float64):
        leaves = [value.to(kind, copy=True).requires_grad_() for value in numbers]
        with RoundedProducts():
            output = PRODUCTS[product](*leaves)
            output.backward(torch.ones_like(output))
        results.append([output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for emulated, exact in zip(*results, strict=True):
        assert emulated.dtype == torch.bfloat16
        assert emulated.stride() == exact.stride()
        torch.testing.assert_close(emulated.double(), exact, rtol=0.5 * ULP, atol=1e-5)


def test_products_in_fp32_and_in_double_are_left_alone():
    torch.manual_seed(0)
    for kind in (torch.float32, torch.float64):
        left, right = torch.randn(20, 30, dtype=kind), torch.randn(30, 10, dtype=kind)
        with RoundedProducts():
            emulated = left @ right
        assert torch.equal(emulated, left @ right)


def test_a_training_step_is_that_of_native_bfloat16():
    """Loss and gradients of the joint phase; they differ from fp32 far more than from each other.

    Of the dense network: where there are no instructions PyTorch's own convolutions round in between.
    """
    torch.manual_seed(0)
    dpsom = DPSOM(
        (1, 16, 16), Grid(3, 3, torus=True), weights=LossWeights(theta=1.0, gamma=20.0, beta=0.25, prior=1.0),
        network="dense", latent_dim=6, posterior="diagonal", normalization="affine", normalize_before=False,
        dropout=0.0, leaky_logits=True, alpha=10.0,
    )  # fmt: skip
    inputs = torch.rand(8, 1, 16, 16)
    with torch.no_grad():
        target = target_distribution(dpsom.assign(dpsom.mean(inputs)))

    def gradient(rounded: bool, mode) -> torch.Tensor:
        torch.manual_seed(1)
        with mode:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
                loss = dpsom.joint_loss(inputs, target)["loss"]
            gradients = torch.autograd.grad(loss, list(dpsom.parameters()))
        return torch.cat([loss.detach().view(1), *(value.flatten() for value in gradients)])

    native, emulated = gradient(True, torch.enable_grad()), gradient(True, RoundedProducts())
    full = gradient(False, torch.enable_grad())
    error = (native - full).norm()
    assert 0 < error < 0.1 * full.norm()
    assert (emulated - native).norm() < 0.5 * error


@pytest.mark.parametrize(
    ("precision", "device", "capabilities", "emulated"),
    [
        ("bf16", "cpu", {"avx2": True, "avx512_bf16": False}, True),
        ("bf16", "cpu", {"avx512_bf16": True, "amx_bf16": False}, False),
        ("bf16", "cpu", {"neon": True, "bf16": True}, False),
        ("bf16", "auto", {"avx2": True, "avx512_bf16": False}, False),
        ("fp32", "cpu", {"avx2": True, "avx512_bf16": False}, False),
    ],
)
def test_only_what_the_processor_lacks_is_emulated(monkeypatch, capsys, precision, device, capabilities, emulated):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processes, "join", lambda device: device)
    prepare(device=device, precision=precision, compile=False, threads=None, deterministic=False)
    assert hardware(torch.device("cpu"))["bfloat16_emulated"] == bfloat16.emulated() == emulated
    assert ("note: no bfloat16 instructions" in capsys.readouterr().err) == emulated
    prepare(device=device, precision="fp32", compile=False, threads=None, deterministic=False)
    assert not bfloat16.emulated()


def test_what_is_emulated_cannot_be_compiled(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UserError, match=r"^compute.compile=True compiles nothing here .* use compute.precision=fp32$"):
        prepare(device="cpu", precision="bf16", compile=True, threads=None, deterministic=False)
    assert not bfloat16.emulated()
