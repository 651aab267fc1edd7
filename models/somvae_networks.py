"""Encoders and decoders of SOM-VAE.

Source: ratschlab/SOM-VAE, somvae_model.py: layer -> ReLU. Images and logits are as in `networks`.
"""

import math
from itertools import pairwise

from models.networks import ToImage, ToVector, UpsampledConvolution, glorot_, initialize, pooled_shape
from models.spectral import SpectralConvolution

import torch
from torch import Tensor, nn

DENSE_WIDTHS = (256, 128)
CHANNELS = 256
SMALL_CHANNELS = (32, 128)
SPECTRAL_SIDE = 28
"""Of the largest maps on which convolutions through spectra are not slower than direct ones at a batch of 32."""


def dense_encoder(input_shape: tuple[int, ...], latent_dim: int) -> nn.Sequential:
    """`[B, ...]` -> 256 -> 128 -> `[B, latent_dim]`.

    The latents are linear; the original has a ReLU behind them, which confines them to an orthant.
    """
    widths = (math.prod(input_shape), *DENSE_WIDTHS)
    hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return initialize(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], latent_dim)))


def dense_decoder(latent_dim: int, output_shape: tuple[int, ...]) -> nn.Sequential:
    """`[B, latent_dim]` -> 128 -> 256 -> logits `[B, ...]`."""
    widths = (latent_dim, *reversed(DENSE_WIDTHS))
    hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    last = nn.Linear(widths[-1], math.prod(output_shape))
    return initialize(nn.Sequential(*hidden, last, nn.Unflatten(1, output_shape)))


def conv_encoder(input_shape: tuple[int, int, int], latent_dim: int) -> nn.Sequential:
    """`[B, C, H, W]` -> two 4x4 convolutions of 256 channels, each pooled -> `[B, latent_dim]`."""
    channels, height, width = pooled_shape(input_shape)
    network = nn.Sequential(
        nn.ZeroPad2d((1, 2, 1, 2)),
        _started(nn.Conv2d(channels, CHANNELS, 4)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _wide_convolution((2 * height, 2 * width)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        ToVector(),
        glorot_(nn.Linear(CHANNELS * height * width, latent_dim)),
    )
    return network.to(memory_format=torch.channels_last)


def conv_decoder(latent_dim: int, output_shape: tuple[int, int, int]) -> nn.Sequential:
    """`[B, latent_dim]` -> 256 linear feature maps -> twice upsampled and convolved 4x4 -> logits `[B, C, H, W]`."""
    channels, height, width = pooled_shape(output_shape)
    network = nn.Sequential(
        glorot_(nn.Linear(latent_dim, CHANNELS * height * width)),
        ToImage(height, width),
        _wide_upsampled_convolution((height, width)),
        nn.ReLU(),
        _started(UpsampledConvolution(CHANNELS, channels, 4)),
    )
    return network.to(memory_format=torch.channels_last)


def small_encoder(input_shape: tuple[int, int, int], latent_dim: int) -> nn.Sequential:
    """`[B, C, H, W]` -> 4x4 convolutions of 32 and 128 channels without padding, each pooled -> `[B, latent_dim]`.

    Source: the public SOM-VAE notebook in PyTorch.
    """
    narrow, wide = SMALL_CHANNELS
    height, width = _small_shape(input_shape)
    return nn.Sequential(
        nn.Conv2d(input_shape[0], narrow, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(narrow, wide, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        ToVector(),
        nn.Linear(wide * height * width, latent_dim),
    ).to(memory_format=torch.channels_last)


def small_decoder(latent_dim: int, output_shape: tuple[int, int, int]) -> nn.Sequential:
    """`[B, latent_dim]` -> 128 linear feature maps -> upsampled, 4x4 -> upsampled to the image, 3x3, 1x1 -> logits.

    The notebook does not say how many channels lie between; ours mirror the encoder.
    """
    narrow, wide = SMALL_CHANNELS
    height, width = _small_shape(output_shape)
    return nn.Sequential(
        nn.Linear(latent_dim, wide * height * width),
        ToImage(height, width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(wide, narrow, 4),
        nn.ReLU(),
        nn.Upsample(size=output_shape[1:]),
        nn.Conv2d(narrow, narrow, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(narrow, output_shape[0], 1),
    ).to(memory_format=torch.channels_last)


def _wide_convolution(shape: tuple[int, int]) -> nn.Module:
    """A 4x4 convolution of 256 to 256 channels with zero padding, on maps of this shape."""
    if max(shape) <= SPECTRAL_SIDE:
        return _started(SpectralConvolution(CHANNELS, CHANNELS, 4, shape))
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), _started(nn.Conv2d(CHANNELS, CHANNELS, 4)))


def _wide_upsampled_convolution(shape: tuple[int, int]) -> nn.Conv2d:
    """The same on maps of this shape that are upsampled twice before."""
    if 2 * max(shape) <= SPECTRAL_SIDE:
        return _started(SpectralConvolution(CHANNELS, CHANNELS, 4, shape, scale=2))
    return _started(UpsampledConvolution(CHANNELS, CHANNELS, 4))


def _started(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with SOM-VAE's initial values: kernels truncated-normal (0.1), biases 0.1."""
    nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
    nn.init.constant_(layer.bias, 0.1)
    return layer


def _small_shape(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """What two unpadded 4x4 convolutions, each pooled, leave of an image: 28 -> 25 -> 12 -> 9 -> 4."""
    height, width = (((size - 3) // 2 - 3) // 2 for size in image_shape[1:])
    if min(height, width) < 2:
        raise ValueError(f"the small convolutional network needs at least 17 x 17 pixels, not {image_shape[1:]}")
    return height, width


def identity_encoder(input_shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    """`[B, ...]` -> `[B, latent_dim]`: the values themselves are the latents."""
    if latent_dim != math.prod(input_shape):
        raise ValueError(f"the identity needs as many latents as a sample has values, {math.prod(input_shape)}")
    return nn.Flatten()


def identity_decoder(latent_dim: int, output_shape: tuple[int, ...]) -> nn.Module:
    """`[B, latent_dim]` -> logits `[B, ...]` of the latents, confined to [0, 1]."""
    return nn.Sequential(Logit(), nn.Unflatten(1, output_shape))


class Logit(nn.Module):
    """The inverse of the sigmoid, for values in [0, 1]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.logit(eps=1e-6)
