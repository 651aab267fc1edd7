"""SOM-VAE's networks: sizes, and how they start."""

from models import somvae_networks as networks
from models.spectral import SpectralConvolution

import pytest
import torch
from torch import nn

DENSE = [(1, 8, 8), (1, 7, 9), (3, 5, 5), (1, 1, 1), (5,)]
CONV = [(1, 8, 8), (1, 4, 12), (3, 12, 8), (1, 28, 28)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", DENSE)
def test_dense_networks_take_anything(shape):
    assert networks.dense_encoder(shape, 3)(torch.rand(4, *shape)).shape == (4, 3)
    assert networks.dense_decoder(3, shape)(torch.randn(4, 3)).shape == (4, *shape)


@pytest.mark.parametrize("shape", CONV)
def test_conv_networks_take_images_with_sides_that_are_multiples_of_four(monkeypatch, shape):
    monkeypatch.setattr(networks, "CHANNELS", 8)
    assert networks.conv_encoder(shape, 3)(torch.rand(2, *shape)).shape == (2, 3)
    assert networks.conv_decoder(3, shape)(torch.randn(2, 3)).shape == (2, *shape)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_same_function_with_and_without_spectra(monkeypatch, kind):
    monkeypatch.setattr(networks, "CHANNELS", 8)
    shape, make = (1, 12, 8), getattr(networks, f"conv_{kind}")
    arguments, inputs = ((shape, 3), torch.rand(2, *shape)) if kind == "encoder" else ((3, shape), torch.randn(2, 3))
    spectral = make(*arguments)
    monkeypatch.setattr(networks, "SPECTRAL_SIDE", 1)
    direct = make(*arguments)
    assert not any(isinstance(layer, SpectralConvolution) for layer in direct.modules())
    for to, value in zip(direct.parameters(), spectral.parameters(), strict=True):
        to.data.copy_(value)
    torch.testing.assert_close(direct(inputs), spectral(inputs), rtol=1e-4, atol=1e-5)


def test_small_networks_take_images_from_17_pixels():
    for shape in ((1, 28, 28), (3, 17, 22)):
        assert networks.small_encoder(shape, 5)(torch.rand(2, *shape)).shape == (2, 5)
        assert networks.small_decoder(5, shape)(torch.randn(2, 5)).shape == (2, *shape)
    with pytest.raises(ValueError, match="at least 17 x 17"):
        networks.small_encoder((1, 16, 28), 5)


def test_size_and_start():
    encoder = networks.conv_encoder((1, 28, 28), 64)
    decoder = networks.conv_decoder(64, (1, 28, 28))
    count = sum(parameter.numel() for network in (encoder, decoder, decoder) for parameter in network.parameters())
    assert count + 2 * 4096 == 5_600_834  # the original's, with its centroids and transitions
    for layer in (*encoder, *decoder):
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.abs().max() <= 0.2
            assert layer.bias.unique().tolist() == [pytest.approx(0.1)]
            assert layer.weight.std().item() == pytest.approx(0.088, rel=0.05)  # of N(0, 0.1) cut at two sigma
