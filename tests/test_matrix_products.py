"""Products by oneDNN and OpenBLAS equal the exact ones up to fp32's rounding; all others stay PyTorch's own."""

from collections.abc import Iterator

from experiments.engine import matrix_products
from experiments.engine.bfloat16 import RoundedProducts
from experiments.ingredients.compute import prepare
from models.dpsom import DPSOM, LossWeights
from models.grid import Grid

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

OTHERS = ("oneDNN", "OpenBLAS")
OPERATIONS = {
    "matrices": (torch.mm, ((150, 130), (130, 140))),
    "a layer": (F.linear, ((2, 75, 130), (140, 130), (140,))),
    "a layer without bias": (F.linear, ((2, 75, 130), (140, 130))),
    "a sum": (torch.addmm, ((150, 140), (150, 130), (130, 140))),
    "a weighted sum": (lambda *values: torch.addmm(*values, beta=0.5, alpha=2), ((140,), (150, 130), (130, 140))),
    "batches": (torch.bmm, ((2, 150, 130), (2, 130, 140))),
    "one for a batch": (torch.matmul, ((150, 130), (2, 130, 140))),
    "a batch for one": (torch.matmul, ((2, 150, 130), (130, 140))),
}
LAYOUTS = {
    "rows": lambda values: values,
    "columns": lambda values: values.mT.contiguous().mT if values.dim() > 1 else values,
    "with gaps": lambda values: torch.stack([values, values], -1)[..., 0],
    "part of a wider one": lambda values: F.pad(values, (0, 1))[..., :-1],
    "batch last": lambda values: values.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.fixture(autouse=True)
def library_as_before() -> Iterator[None]:
    before = matrix_products.library()
    matrix_products.use_library("MKL")
    yield
    matrix_products.use_library(before)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).float()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("library", OTHERS)
def test_values_and_gradients_are_the_exact_ones_rounded(library, operation, layout):
    torch.manual_seed(0)
    function, shapes = OPERATIONS[operation]
    factors = [normal(*shape) for shape in shapes]
    with torch.no_grad():
        weights = normal(*function(*factors).shape)
    matrix_products.use_library(library)
    results = []
    for kind in (torch.float32, torch.float64):
        leaves = [factor.to(kind, copy=True).requires_grad_() for factor in factors]
        result = function(*map(LAYOUTS[layout], leaves))
        (result * LAYOUTS[layout](weights.to(kind))).sum().backward()
        results.append([result.detach(), *(leaf.grad for leaf in leaves)])
    for computed, exact in zip(*results, strict=True):
        assert computed.dtype == torch.float32
        assert computed.shape == exact.shape
        error = (computed - exact).norm() / exact.norm()
        assert error < 1e-6


def test_they_are_computed_by_that_library(monkeypatch):
    left, right = normal(150, 130), normal(130, 140)
    matrix_products.use_library("oneDNN")
    with profile() as recording:
        left @ right
    assert "mkldnn::_linear_pointwise" in {event.name for event in recording.events()}
    matrix_products.use_library("OpenBLAS")
    monkeypatch.setattr(numpy, "matmul", lambda left, right: numpy.full((150, 140), 7, numpy.float32))
    assert torch.equal(left @ right, torch.full((150, 140), 7.0))
    matrix_products.use_library("MKL")
    assert not torch.equal(left @ right, torch.full((150, 140), 7.0))


def test_emulated_bfloat16_is_computed_by_that_library(monkeypatch):
    left, right = normal(150, 130).bfloat16(), normal(130, 140).bfloat16()
    matrix_products.use_library("OpenBLAS")
    monkeypatch.setattr(numpy, "matmul", lambda left, right: numpy.full((150, 140), 7, numpy.float32))
    with RoundedProducts():
        assert torch.equal(left @ right, torch.full((150, 140), 7, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("size", "kind"),
    [(20, torch.float32), (150, torch.float64), (150, torch.bfloat16), (150, torch.complex64), (150, torch.int64)],
)
@pytest.mark.parametrize("library", OTHERS)
def test_small_ones_and_other_types_stay_pytorchs(library, size, kind):
    torch.manual_seed(0)
    added, left, right = ((3 * torch.randn(3, size, size)).to(kind)).unbind()
    expected = left @ right, torch.addmm(added, left, right), torch.bmm(left[None], right[None])
    matrix_products.use_library(library)
    computed = left @ right, torch.addmm(added, left, right), torch.bmm(left[None], right[None])
    for one, other in zip(computed, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("library", OTHERS)
def test_they_repeat_bit_for_bit_and_end_with_pytorchs_own(library):
    torch.manual_seed(0)
    left, right = normal(300, 500), normal(500, 700)
    own = left @ right
    matrix_products.use_library(library)
    first = left @ right
    assert all(torch.equal(left @ right, first) for _ in range(5))
    matrix_products.use_library("MKL")
    assert torch.equal(left @ right, own)


@pytest.mark.parametrize("library", OTHERS)
def test_operations_are_counted_and_programs_exported_as_before(library):
    matrix_products.use_library(library)
    layer, inputs = nn.Linear(130, 140), normal(150, 130)
    with FlopCounterMode(display=False) as counter:
        layer(inputs).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 150 * 130 * 140)  # forward and the weights' gradient
    program = torch.export.export(layer, (inputs,)).run_decompositions()
    targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert torch.ops.aten.addmm.default in targets
    with torch.inference_mode():
        assert torch.equal(program.module()(inputs), layer(inputs))


@pytest.mark.parametrize("library", OTHERS)
def test_a_training_step_is_that_of_pytorchs_own(library):
    """Loss and gradients of DPSOM's joint phase, by the norm."""
    torch.manual_seed(0)
    dpsom = DPSOM(
        (1, 28, 28), Grid(8, 8, torus=True), weights=LossWeights(theta=1.0, gamma=20.0, beta=0.25, prior=0.5),
        network="dense", latent_dim=100, posterior="full", normalization="none", normalize_before=False,
        dropout=0.0, leaky_logits=False, alpha=10.0,
    )  # fmt: skip
    inputs, target = torch.rand(30, 1, 28, 28), torch.rand(30, 64).softmax(1)

    def gradient() -> Tensor:
        torch.manual_seed(1)
        loss = dpsom.joint_loss(inputs, target)["loss"]
        gradients = torch.autograd.grad(loss, list(dpsom.parameters()))
        return torch.cat([loss.detach().view(1), *(value.flatten() for value in gradients)])

    expected = gradient()
    matrix_products.use_library(library)
    computed = gradient()
    assert not torch.equal(computed, expected)
    assert (computed - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("vendor", "instructions", "library"),
    [
        ("AuthenticAMD", "AVX512", "oneDNN"),
        ("AuthenticAMD", "AVX2", "OpenBLAS"),
        ("GenuineIntel", "AVX512", "MKL"),
        (None, "AVX512", "MKL"),
    ],
)
def test_the_processor_decides(vendor, instructions, library, monkeypatch, tmp_path):
    processor = tmp_path / "cpuinfo"
    if vendor:
        processor.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(matrix_products, "PROCESSOR", processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    assert matrix_products.fastest_library() == library
    prepare(device="cpu", precision="fp32", compile=False, threads=None, deterministic=False)
    assert matrix_products.library() == library
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert matrix_products.fastest_library() == "MKL"
