"""Encoders and decoders: shapes for any image, the order of flattened features, what normalises and what drops out."""

import math

from models import networks
from models.networks import Affine, Block, ToImage, ToVector
from models.spectral import SpectralConvolution

import pytest
import torch
import torch.nn.functional as F
from torch import nn

DENSE = [(1, 8, 8), (1, 7, 9), (3, 5, 5), (1, 1, 1)]
CONV = [(1, 8, 8), (1, 4, 12), (3, 12, 8), (1, 28, 28)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("normalization", ["affine", "batch", "none"])
@pytest.mark.parametrize("shape", DENSE)
def test_dense_networks_take_images_of_any_size(monkeypatch, shape, normalization, before):
    monkeypatch.setattr(networks, "DENSE_WIDTHS", (8, 8, 16))
    encoder = networks.dense_encoder(shape, 5, normalization, 0.1, before)
    decoder = networks.dense_decoder(3, shape, normalization, before, leaky_logits=False)
    assert encoder(torch.rand(4, *shape)).shape == (4, 5)
    assert decoder(torch.randn(4, 3)).shape == (4, *shape)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("normalization", ["affine", "batch", "none"])
@pytest.mark.parametrize("shape", CONV)
def test_conv_networks_take_images_with_sides_that_are_multiples_of_four(shape, normalization, before):
    encoder = networks.conv_encoder(shape, 5, normalization, 0.1, before)
    decoder = networks.conv_decoder(3, shape, normalization, before)
    assert encoder(torch.rand(2, *shape)).shape == (2, 5)
    assert decoder(torch.randn(2, 3)).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 8, 10), (1, 9, 8)])
def test_conv_networks_refuse_other_images(shape):
    with pytest.raises(ValueError, match=f"multiples of 4, not {shape[1]} x {shape[2]}"):
        networks.conv_encoder(shape, 5, "none", 0.0, False)
    with pytest.raises(ValueError, match=f"multiples of 4, not {shape[1]} x {shape[2]}"):
        networks.conv_decoder(3, shape, "none", False)


def test_widths_and_order_of_the_paper():
    encoder = networks.dense_encoder((1, 28, 28), 200, "affine", 0.4, False)
    assert [m.out_features for m in encoder.modules() if isinstance(m, nn.Linear)] == [500, 500, 2000, 200]
    decoder = networks.dense_decoder(100, (1, 28, 28), "affine", False, leaky_logits=True)
    assert [m.out_features for m in decoder.modules() if isinstance(m, nn.Linear)] == [2000, 500, 500, 784]
    encoder = networks.conv_encoder((1, 28, 28), 200, "affine", 0.4, False)
    assert [m.out_channels for m in encoder.modules() if isinstance(m, nn.Conv2d)] == [32, 64, 128, 256]
    decoder = networks.conv_decoder(100, (1, 28, 28), "affine", False)
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [128, 64, 32, 1]


def test_feature_maps_are_flattened_in_the_order_of_height_width_channel():
    """As TensorFlow's NHWC arrays are, from either memory layout."""
    features = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    expected = features.numpy().transpose(0, 2, 3, 1).reshape(2, -1).tolist()
    assert ToVector()(features).tolist() == expected
    assert ToVector()(features.to(memory_format=torch.channels_last)).tolist() == expected
    assert torch.equal(ToImage(4, 5)(ToVector()(features)), features)


@pytest.mark.parametrize("image", [False, True])
def test_affine_is_keras_batch_norm_whose_statistics_never_moved(image):
    affine, reference = Affine(6), networks.normalization_layer("batch", 6, image).eval()
    reference.eps = 1e-3
    for name, parameter in affine.named_parameters():
        nn.init.normal_(parameter)
        getattr(reference, name).data = parameter.data.clone()
    features = torch.randn(5, 6, 3, 2) if image else torch.randn(5, 6)
    torch.testing.assert_close(affine(features), reference(features))
    assert torch.equal(affine(features), affine.eval()(features))


def test_a_block_normalises_behind_the_activation_or_before_it():
    behind, before = (Block(nn.Linear(4, 6), 6, "affine", normalize_before=order) for order in (False, True))
    before.load_state_dict(behind.state_dict())
    for block in (behind, before):
        nn.init.constant_(block.normalization.weight, 2.0)
        nn.init.constant_(block.normalization.bias, 1.0)
    inputs = torch.randn(10, 4)
    linear, scale = behind.layer(inputs), 2 / math.sqrt(1.001)

    def leaky(values):
        return torch.where(values > 0, values, 0.2 * values)

    torch.testing.assert_close(behind(inputs), 1 + scale * leaky(linear))
    torch.testing.assert_close(before(inputs), leaky(1 + scale * linear))


@pytest.mark.parametrize("order", [False, True])
def test_dropout_acts_in_training_only(order):
    block = Block(nn.Linear(4, 200), 200, "none", dropout=0.4, normalize_before=order)
    inputs = torch.randn(20, 4)
    dropped = (block(inputs) == 0).float().mean().item()
    assert dropped == pytest.approx(0.4, abs=0.05)
    assert (block.eval()(inputs) != 0).all()


@pytest.mark.parametrize("encoder", [networks.dense_encoder, networks.conv_encoder])
def test_encoders_drop_at_the_rate_that_is_asked_for(encoder):
    rates = {
        layer.dropped_levels / layer.LEVELS
        for layer in encoder((1, 8, 8), 5, "none", 0.25, False).modules()
        if isinstance(layer, networks.Dropout)
    }
    assert rates == {0.25}


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_every_value_by_itself_and_scales_the_others(memory_format, kind):
    dropout = networks.Dropout(0.25)
    features = torch.ones(40, 6, 5, 7, dtype=kind).to(memory_format=memory_format).requires_grad_()
    result = dropout(features)
    kept = result != 0
    assert result.is_contiguous(memory_format=memory_format)
    assert torch.equal(result, kept / torch.tensor(0.75, dtype=kind))
    result.sum().backward()
    assert torch.equal(features.grad, result)
    means = [kept.float().mean(dim) for dim in ((1, 2, 3), (0, 2, 3), (0, 1))]
    assert all(mean.std() > 0 and (mean - 0.75).abs().max() < 0.2 for mean in means)


def test_leaky_logits_shrink_the_negative_ones_fivefold():
    plain = networks.dense_decoder(3, (1, 4, 4), "none", False, leaky_logits=False)
    leaky = networks.dense_decoder(3, (1, 4, 4), "none", False, leaky_logits=True)
    leaky.load_state_dict(plain.state_dict())
    latents = torch.randn(6, 3)
    logits = plain(latents)
    assert (logits < 0).any()
    torch.testing.assert_close(leaky(latents), torch.where(logits > 0, logits, 0.2 * logits))


def test_conv_encoder_centres_its_inputs():
    """A grey image of 0.5 without biases is an image of zeros."""
    encoder = networks.conv_encoder((1, 8, 8), 5, "none", 0.0, False)
    assert not encoder(torch.full((2, 1, 8, 8), 0.5)).any()
    assert encoder(torch.ones(2, 1, 8, 8)).any()


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_convolutions_of_pooled_maps_through_spectra_equal_direct_ones(monkeypatch, network):
    """Results and gradients; maps that are too large for spectra take the direct ones."""

    def built() -> nn.Sequential:
        if network == "encoder":
            return networks.conv_encoder((1, 28, 28), 5, "affine", 0.0, False)
        return networks.conv_decoder(5, (1, 28, 28), "affine", False)

    spectral = built()
    monkeypatch.setattr(networks, "SPECTRAL_SIDE", 6)
    direct = built()
    direct.load_state_dict(spectral.state_dict())
    counts = [sum(isinstance(m, SpectralConvolution) for m in net.modules()) for net in (spectral, direct)]
    assert counts == [2, 0]
    inputs = torch.rand(4, 1, 28, 28) if network == "encoder" else torch.randn(4, 5)
    results = [net(inputs) for net in (spectral, direct)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(results[0])
    gradients = [
        torch.autograd.grad((result * weights).sum(), net.parameters())
        for result, net in zip(results, (spectral, direct), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_convolutions_work_in_channels_last_memory():
    encoder = networks.conv_encoder((3, 8, 8), 5, "none", 0.0, False)
    weights = [m.weight for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_layers_start_as_in_keras():
    layers = nn.Linear(300, 500), nn.Conv2d(20, 40, 3), nn.Conv2d(40, 20, 3)
    network = networks.initialize(nn.Sequential(*layers))
    for layer, (fan_in, fan_out) in zip(network, [(300, 500), (180, 360), (180, 360)], strict=True):
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert not layer.bias.any()
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)


# SOM-VAE


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize(("height", "width", "channels"), [(7, 7, 5), (1, 3, 2), (4, 6, 1)])
def test_convolving_without_the_upsampled_maps_equals_convolving_them(height, width, channels, kernel):
    layer = networks.UpsampledConvolution(3, channels, kernel).double()
    features = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    padding = (1, kernel - 2) * 2
    plain = F.conv2d(F.pad(F.interpolate(features, scale_factor=2), padding), layer.weight, layer.bias)
    weights = torch.randn_like(plain)
    variables = (features, layer.weight, layer.bias)
    torch.testing.assert_close(layer(features), plain)
    torch.testing.assert_close(
        torch.autograd.grad((layer(features) * weights).sum(), variables),
        torch.autograd.grad((plain * weights).sum(), variables),
    )
