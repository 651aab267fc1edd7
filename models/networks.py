"""Encoders and decoders of DPSOM and T-DPSOM, dense and convolutional, and the layers they are made of.

Images are `[B, C, H, W]`; feature maps are flattened in the order H, W, C, which is a view of the channels-last memory
the convolutions work in. Decoders return logits, or the raw parameters of another distribution.

Source: ratschlab/dpsom, DPSOM_model.py and TempDPSOM_model.py: each block is layer -> leaky ReLU -> normalisation,
and weights start as in Keras with Glorot-uniform kernels and zero biases.
"""

import math
from itertools import pairwise

from models.spectral import SpectralConvolution

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
DENSE_WIDTHS = (500, 500, 2000)
CONV_CHANNELS = (32, 64, 128, 256)
SPECTRAL_SIDE = 12
"""Of the largest maps on which convolutions through spectra pay: 128 -> 256 channels then take two thirds of the time
of direct ones, 64 -> 128 as long (one Zen 5 core)."""


class Affine(nn.Module):
    """`weight * x / sqrt(1 + 1e-3) + bias` per channel: Keras' BatchNorm while its statistics stay 0 and 1.

    The originals never switch BatchNorm to training, so this is the normalisation that produced their numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (features.dim() - 2)
        weight = (self.weight / math.sqrt(1.0 + 1e-3)).to(features.dtype).view(shape)
        return torch.addcmul(self.bias.to(features.dtype).view(shape), features, weight)


def normalization_layer(kind: str, channels: int, image: bool) -> nn.Module:
    """The normalisation of a block: `affine`, `batch` (batch statistics in training) or `none`."""
    if kind == "affine":
        return Affine(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)
    return nn.Identity()


class Dropout(nn.Module):
    """Inverted dropout from 16 random bits a value, several times faster on a CPU than a Bernoulli draw each.

    The rate is rounded to a multiple of 2^-16; what is kept is scaled by the inverse of the rounded rate.
    """

    LEVELS = 2**16

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped_levels = round(rate * self.LEVELS)
        self.scale = self.LEVELS / (self.LEVELS - self.dropped_levels)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        words = torch.empty(-(-features.numel() // 4), dtype=torch.int64, device=features.device)
        bits = words.random_(-(2**63), None).view(torch.int16).as_strided(features.shape, features.stride())
        kept = bits.ge_(self.dropped_levels - self.LEVELS // 2)
        return features * kept.to(features.dtype).mul_(self.scale)


class Block(nn.Module):
    """layer -> leaky ReLU -> dropout -> normalisation, or with the normalisation before the activation."""

    def __init__(
        self, layer: nn.Module, channels: int, normalization: str, dropout: float = 0.0, normalize_before: bool = False
    ) -> None:
        super().__init__()
        self.layer = layer
        self.normalization = normalization_layer(normalization, channels, image=not isinstance(layer, nn.Linear))
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.normalize_before = normalize_before

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.layer(inputs)
        if self.normalize_before:
            return self.dropout(F.leaky_relu(self.normalization(features), LEAK))
        return self.normalization(self.dropout(F.leaky_relu(features, LEAK)))


class ToImage(nn.Module):
    """`[B, H * W * C]` to `[B, C, H, W]`, the inverse of the flattening in the order H, W, C."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(1, (self.height, self.width, -1)).permute(0, 3, 1, 2)


class ToVector(nn.Module):
    """`[B, C, H, W]` to `[B, H * W * C]`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1).flatten(1)


class Shift(nn.Module):
    """Adds a constant to its input."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.offset


class UpsampledConvolution(nn.Conv2d):
    """Nearest-neighbour upsampling by two, then a 3x3 or 4x4 convolution; zero padding as in `SpectralConvolution`.

    It is computed without the upsampled maps: on each of the four interleaved parts of the result, taps that meet the
    same value are summed beforehand, which leaves a 3x3 convolution of the small maps with four times the channels (a
    4x4 kernel then takes 9 instead of 16 products a value, and a quarter of the memory).
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel)
        positions = torch.arange(2)[:, None] + torch.arange(kernel) - (kernel - 1) // 2
        met = positions.div(2, rounding_mode="floor")  # [even or odd, tap]: the value that a tap meets, from its own
        taps = torch.stack([met == value for value in (-1, 0, 1)], 1)
        self.register_buffer("taps", taps.float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        kernels = torch.einsum("pik, qjl, ockl -> opqcij", self.taps, self.taps, self.weight)
        parts = F.conv2d(features, kernels.flatten(0, 2), self.bias.repeat_interleave(4), padding=1)
        return F.pixel_shuffle(parts, 2)


def dense_encoder(
    input_shape: tuple[int, ...], outputs: int, normalization: str, dropout: float, normalize_before: bool
) -> nn.Sequential:
    """`[B, ...]` -> 500 -> 500 -> 2000 -> `[B, outputs]`."""
    widths = (math.prod(input_shape), *DENSE_WIDTHS)
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    blocks = [Block(layer, layer.out_features, normalization, dropout, normalize_before) for layer in layers]
    return initialize(nn.Sequential(nn.Flatten(), *blocks, nn.Linear(widths[-1], outputs)))


def dense_decoder(
    latent_dim: int, output_shape: tuple[int, ...], normalization: str, normalize_before: bool, leaky_logits: bool
) -> nn.Sequential:
    """`[B, latent_dim]` -> 2000 -> 500 -> 500 -> `[B, ...]`.

    `leaky_logits` keeps the original DPSOM's leaky ReLU on the last layer, which shrinks negative logits fivefold.
    """
    widths = (latent_dim, *reversed(DENSE_WIDTHS))
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    blocks = [Block(layer, layer.out_features, normalization, normalize_before=normalize_before) for layer in layers]
    last = [nn.LeakyReLU(LEAK)] if leaky_logits else []
    return initialize(
        nn.Sequential(*blocks, nn.Linear(widths[-1], math.prod(output_shape)), *last, nn.Unflatten(1, output_shape))
    )


def pooled_convolution(channels_in: int, channels_out: int, shape: tuple[int, int]) -> nn.Conv2d:
    """A 3x3 convolution, zero-padded by 1, of many channels on maps `(H, W)`: through spectra where that is faster."""
    if max(shape) <= SPECTRAL_SIDE:
        return SpectralConvolution(channels_in, channels_out, 3, shape)
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def conv_encoder(
    input_shape: tuple[int, int, int], outputs: int, normalization: str, dropout: float, normalize_before: bool
) -> nn.Sequential:
    """`[B, C, H, W]` -> four 3x3 convolutions (32, 64, 128, 256), pooled after the first two -> `[B, outputs]`."""
    channels, height, width = pooled_shape(input_shape)
    first, second, third, fourth = CONV_CHANNELS
    layers = (
        nn.Conv2d(channels, first, 3, padding=1),
        nn.Conv2d(first, second, 3, padding=1),
        pooled_convolution(second, third, (height, width)),
        pooled_convolution(third, fourth, (height, width)),
    )
    blocks = [Block(layer, layer.out_channels, normalization, dropout, normalize_before) for layer in layers]
    network = nn.Sequential(
        Shift(-0.5),
        blocks[0],
        nn.MaxPool2d(2),
        blocks[1],
        nn.MaxPool2d(2),
        blocks[2],
        blocks[3],
        ToVector(),
        nn.Linear(fourth * height * width, outputs),
    )
    return initialize(network).to(memory_format=torch.channels_last)


def conv_decoder(
    latent_dim: int, output_shape: tuple[int, int, int], normalization: str, normalize_before: bool
) -> nn.Sequential:
    """`[B, latent_dim]` -> dense 256 feature maps -> 3x3 convolutions 128, 64, 32 -> logits `[B, C, H, W]`.

    The maps are upsampled before the last two. The original's transposed convolutions of stride 1 are convolutions,
    with the kernel turned by half a turn.
    """
    channels, height, width = pooled_shape(output_shape)
    first, second, third, fourth = CONV_CHANNELS
    dense = nn.Linear(latent_dim, fourth * height * width)
    layers = (
        pooled_convolution(fourth, third, (height, width)),
        pooled_convolution(third, second, (height, width)),
        nn.Conv2d(second, first, 3, padding=1),
    )
    blocks = [Block(layer, layer.out_channels, normalization, normalize_before=normalize_before) for layer in layers]
    network = nn.Sequential(
        Block(dense, dense.out_features, "none"),
        ToImage(height, width),
        blocks[0],
        blocks[1],
        nn.Upsample(scale_factor=2),
        blocks[2],
        UpsampledConvolution(first, channels, 3),
    )
    return initialize(network).to(memory_format=torch.channels_last)


def pooled_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels and sides of what two poolings leave of an image.

    Raises:
        ValueError: a side is not a multiple of 4.
    """
    channels, height, width = image_shape
    if height % 4 or width % 4:
        raise ValueError(f"the convolutional network takes sides that are multiples of 4, not {height} x {width}")
    return channels, height // 4, width // 4


def initialize(network: nn.Sequential) -> nn.Sequential:
    """Glorot-uniform kernels and zero biases, in place, as Keras starts its layers."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            glorot_(module)
    return network


def glorot_(layer: nn.Module) -> nn.Module:
    """Glorot-uniform kernel and zero bias of one layer, in place."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
