"""TPAE's fusion decoder and encoders. Source: see `tpae`; the residual encoder is ours."""

from models import networks

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64  # channels of the encoder's last feature map and of the decoders' first


def encoder_of(kind: str, channels: int, sides: tuple[int, int], width: int) -> tuple[nn.Sequential, int]:
    """Pictures `[B, channels, H, W]` to features `[B, size]`, and that size.

    - `published`: two 3 x 3 convolutions of stride 2, 32 and 64 channels, flattened.
    - `residual`: a small residual network, `width` channels at full size, eight times as many at an eighth of it,
      their maxima there; batch normalisation.

    Raises:
        ValueError: sides that are no multiples of four or below eight.
    """
    if any(side % 4 or side < 8 for side in sides):
        raise ValueError(f"the sides of pictures must be multiples of 4 from 8 on, not {sides[0]} x {sides[1]}")
    if kind == "published":
        layers = [
            nn.Conv2d(channels, FEATURES // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(FEATURES // 2, FEATURES, 3, stride=2, padding=1),
            nn.ReLU(),
            networks.ToVector(),
        ]
        return nn.Sequential(*layers), FEATURES * (sides[0] // 4) * (sides[1] // 4)
    layers = [*_convolution(channels, width)]
    for wide, residual in ((2 * width, True), (4 * width, False), (8 * width, True)):
        layers += [*_convolution(wide // 2, wide), nn.MaxPool2d(2)]
        if residual:
            layers.append(Residual(wide))
    return nn.Sequential(*layers, nn.MaxPool2d((sides[0] // 8, sides[1] // 8)), nn.Flatten()), 8 * width


def _convolution(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return layer, nn.BatchNorm2d(channels_out), nn.ReLU()


class Residual(nn.Module):
    """`x + f(x)`, f two 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)


class Fusion(nn.Module):
    """Fusion decoder: a picture `[B, C, H, W]` and topo_z `[B, D]`, spread over it, -> 64 -> 32 -> C, sigmoid.

    Spread over a picture, topo_z is the same everywhere, so its part of the first 3 x 3 convolution has only nine
    different values: inside, along the four edges and in the four corners. Computing these alone saves two thirds of
    the decoder's arithmetic.
    """

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(channels + latent_dim, FEATURES, 3, padding=1)
        self.rest = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(FEATURES // 2, channels, 3, padding=1),
        )

    def forward(self, pictures: Tensor, blended: Tensor) -> Tensor:
        of_pictures, of_blended = self.first.weight.split([self.channels, blended.shape[1]], dim=1)
        nine = F.conv2d(blended[:, :, None, None].expand(-1, -1, 3, 3), of_blended, self.first.bias, padding=1)
        spread = _stretch(_stretch(nine, 2, pictures.shape[2]), 3, pictures.shape[3])
        return self.rest(F.conv2d(pictures, of_pictures, padding=1) + spread).float().sigmoid()


def _stretch(values: Tensor, dim: int, size: int) -> Tensor:
    """Three entries along `dim` to `size`: the middle one is repeated."""
    first, middle, last = values.split(1, dim)
    shape = list(values.shape)
    shape[dim] = size - 2
    return torch.cat([first, middle.expand(shape), last], dim)
