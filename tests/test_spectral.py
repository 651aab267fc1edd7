"""Convolutions through the Fourier transform equal direct ones."""

from contextlib import nullcontext

from experiments.engine.bfloat16 import RoundedProducts
from models.spectral import SpectralConvolution, fourier, half_spectrum

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


def direct(layer: nn.Conv2d, features: Tensor, scale: int) -> Tensor:
    before, behind = (layer.kernel_size[0] - 1) // 2, layer.kernel_size[0] // 2
    repeated = features.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return F.conv2d(F.pad(repeated, (before, behind, before, behind)), layer.weight, layer.bias)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), kernel=st.integers(1, 5), scale=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)), seed=st.integers(0, 99),
)  # fmt: skip
def test_results_and_gradients_are_those_of_a_direct_convolution(height, width, kernel, scale, channels, seed):
    torch.manual_seed(seed)
    layer = SpectralConvolution(*channels, kernel, (height, width), scale)
    features = torch.randn(2, channels[0], height, width, requires_grad=True)
    expected = direct(layer, features, scale)
    weights = torch.randn_like(expected)
    variables = (features, layer.weight, layer.bias)
    torch.testing.assert_close(layer(features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad((layer(features) * weights).sum(), variables),
        torch.autograd.grad((expected * weights).sum(), variables),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(("shape", "scale"), [((14, 14), 1), ((7, 7), 2)])
def test_at_the_size_of_somvae_it_errs_by_a_few_roundings(shape, scale):
    torch.manual_seed(0)
    layer = SpectralConvolution(256, 256, 4, shape, scale)
    features = torch.randn(4, 256, *shape)
    with torch.no_grad():
        spectral = layer(features)
        exact = direct(layer.double(), features.double(), scale)
    assert (spectral - exact).norm() <= 6 * torch.finfo(torch.float32).eps * exact.norm()


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize(("shape", "scale"), [((14, 14), 1), ((7, 7), 2)])
def test_in_bfloat16_it_errs_less_than_twice_as_much_as_a_direct_convolution(shape, scale, emulated):
    """So do its gradients, on this processor and where the products are emulated."""
    torch.manual_seed(0)
    layer = SpectralConvolution(256, 256, 4, shape, scale)
    features = torch.randn(4, 256, *shape).relu().requires_grad_()
    weights = torch.randn(4, 256, scale * shape[0], scale * shape[1])

    def results(convolve, kind: torch.dtype) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
            output = convolve()
        assert output.dtype == kind
        variables = (features, layer.weight, layer.bias)
        return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), variables)]

    exact = results(lambda: direct(layer, features, scale), torch.float32)
    with RoundedProducts() if emulated else nullcontext():
        spectral = results(lambda: layer(features), torch.bfloat16)
        plain = results(lambda: direct(layer, features, scale), torch.bfloat16)
    for found, usual, true in zip(spectral, plain, exact, strict=True):
        assert 0 < (found - true).norm() < 2 * (usual - true).norm() < 2**-6 * true.norm()


def test_maps_stay_in_channels_last_memory():
    layer = SpectralConvolution(3, 4, 4, (5, 6))
    assert layer(torch.randn(2, 3, 5, 6)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("lengths", [(1, 1), (1, 4), (3, 5), (4, 6), (5, 4), (16, 16)])
def test_half_a_spectrum_is_that_of_the_fast_transform_and_stands_for_all(lengths):
    maps = torch.randn(3, *lengths, dtype=torch.float64)
    frequencies, represented = half_spectrum(lengths)
    assert represented.sum() == lengths[0] * lengths[1]
    rows, columns = frequencies.t()
    expected = torch.fft.fft2(maps)[:, rows, columns]
    spectrum = maps.flatten(1).to(torch.complex128) @ fourier(frequencies, lengths, lengths).t()
    torch.testing.assert_close(spectrum, expected)
    torch.testing.assert_close((represented * spectrum.abs() ** 2).sum(1), (maps**2).sum((1, 2)) * maps[0].numel())


def test_maps_of_another_shape_are_refused():
    layer = SpectralConvolution(3, 4, 4, (5, 6))
    with pytest.raises(ValueError, match=r"maps of \(6, 5\), expected \(5, 6\)"):
        layer(torch.randn(2, 3, 6, 5))
