"""Convolutions of many channels through the discrete Fourier transform.

Spectra are multiplied instead of shifting a kernel over the maps (the convolution theorem), and half a spectrum tells
all of a real map: for 4x4 kernels on 14x14 maps 2.7 products for every value and pair of channels, not 16; at SOM-VAE's
batch of 32 the transforms cost about as much again. The maps are so small that the transforms are matrix products
themselves. In fp32 the result errs by 3 to 4 roundings (in the norm, times 2^-23), that of a direct convolution by 2
(AVX512) to 9 (AVX2); in bfloat16 by 1.3 (times 2^-8), a direct one by .7. It is for small maps: the transforms cost the
fourth power of the side. At 28 half of the gain is left, at 56 (pictures of 112 pixels) none, and the spectra of 256 x
256 kernels take 240 and 880 MB.
"""

import math

import torch
from torch import Tensor, nn


class SpectralConvolution(nn.Conv2d):
    """Repeats every value of `[B, C, H, W]` `scale` times each way, then convolves: `[B, O, scale * H, scale * W]`.

    The padding is zero, `(kernel - 1) // 2` before and the rest behind. Under autocast all products are of its type.

    Args:
        channels_in: C.
        channels_out: O.
        kernel: side of the square kernel.
        shape: of one map, `(H, W)`.
        scale: see above.

    Raises:
        ValueError: maps of another shape.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, shape: tuple[int, int], scale: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel)
        self.shape_in = shape
        self.shape = tuple(scale * side for side in shape)
        before, behind = (kernel - 1) // 2, kernel // 2
        lengths = tuple(side + behind for side in self.shape)  # the transform is periodic: zeros part end from start
        frequencies, represented = half_spectrum(lengths)
        spectrum = fourier(frequencies, lengths, self.shape)
        of_repeated = spectrum.unflatten(1, (shape[0], scale, shape[1], scale)).sum((2, 4)).flatten(1)
        synthesis = spectrum * represented[:, None] / math.prod(lengths)
        self.register_buffer("analysis", real_and_imaginary(of_repeated), persistent=False)
        self.register_buffer(
            "kernel_analysis",
            real_and_imaginary(fourier(frequencies, lengths, (kernel, kernel), origin=before)),
            persistent=False,
        )
        self.register_buffer("synthesis", real_and_imaginary(synthesis).t().contiguous(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[2:] != self.shape_in:
            raise ValueError(f"maps of {tuple(features.shape[2:])}, expected {self.shape_in}")
        device = features.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        with torch.autocast(device, enabled=False):
            analysis, kernel_analysis, synthesis, weight, bias = (
                tensor.to(kind)
                for tensor in (self.analysis, self.kernel_analysis, self.synthesis, self.weight, self.bias)
            )
            samples = features.to(kind).permute(0, 2, 3, 1).flatten(1, 2)  # [B, H * W, C]
            analysed = analysis @ samples  # [B, 2F, C]
            real, imaginary = analysed.unflatten(1, (-1, 2)).permute(2, 1, 0, 3)  # [F, B, C] each
            spectra = torch.cat([torch.cat([real, imaginary], 2), torch.cat([imaginary, -real], 2)], 1)  # [F, 2B, 2C]
            taps = weight.permute(2, 3, 1, 0).flatten(2).flatten(0, 1)  # [kernel^2, C * O]
            kernels = (kernel_analysis @ taps).view(len(spectra), -1, self.out_channels)  # [F, 2C, O]
            products = (spectra @ kernels).unflatten(1, (2, -1)).flatten(0, 1)  # [2F, B, O]
            maps = synthesis @ products.transpose(0, 1) + bias
            return maps.unflatten(1, self.shape).permute(0, 3, 1, 2)


def half_spectrum(lengths: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Frequencies `[F, 2]`, one of every pair whose values are conjugate in a real map, and how many each stands for.

    Args:
        lengths: of the transform, in rows and columns.
    """
    frequencies = torch.cartesian_prod(*(torch.arange(length) for length in lengths))
    conjugate = -frequencies % torch.tensor(lengths)
    number, conjugate_number = (pairs @ torch.tensor([lengths[1], 1]) for pairs in (frequencies, conjugate))
    kept = number <= conjugate_number
    return frequencies[kept], 1 + (number < conjugate_number)[kept].int()


def fourier(frequencies: Tensor, lengths: tuple[int, int], shape: tuple[int, int], origin: int = 0) -> Tensor:
    """The transform of maps `[H, W]` as a complex matrix `[F, H * W]`; the position `(origin, origin)` has no phase."""
    positions = torch.cartesian_prod(*(torch.arange(side) - origin for side in shape))
    turns = (frequencies.double() / torch.tensor(lengths)) @ positions.double().t()
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def real_and_imaginary(matrix: Tensor) -> Tensor:
    """The rows of a complex matrix `[F, N]` in two, `[2F, N]` in fp32."""
    return torch.stack([matrix.real, matrix.imag], 1).flatten(0, 1).float()
