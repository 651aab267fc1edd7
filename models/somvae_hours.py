"""SOM-VAE of series: every hour is a sample of its own, and the model of transitions sees them in their order.

Source: Fortuin et al., "SOM-VAE: Interpretable Discrete Representation Learning on Time Series", ICLR 2019. Its decoder
ends in a sigmoid, so it sees every channel scaled to [0, 1] between the extremes of the training hours.
"""

from models.assignment import winners_of_series
from models.grid import Grid
from models.somvae import SOMVAE, LossWeights

import torch
from torch import Tensor, nn


class SOMVAEOfHours(nn.Module):
    """SOM-VAE whose samples are hours of C channels, scaled to [0, 1]; padded series reach it as rows.

    Args:
        channels: C.
        grid: the map's geometry.
        latent_dim: D.
        weights: of the loss terms.
    """

    def __init__(self, channels: int, grid: Grid, latent_dim: int, weights: LossWeights) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(channels))
        self.register_buffer("width", torch.ones(channels))
        shape = (channels, 1, 1)
        self.somvae = SOMVAE(shape, grid, latent_dim=latent_dim, network="dense", gradients="full", weights=weights)

    def set_scale(self, hours: Tensor) -> "SOMVAEOfHours":
        """Scale by the extremes of the training hours `[n, C]` from now on."""
        low, high = hours.min(dim=0).values, hours.max(dim=0).values
        self.low.copy_(low)
        self.width.copy_(torch.where(high > low, high - low, 1.0))
        return self

    @property
    def centroids(self) -> Tensor:
        return self.somvae.centroids

    def scaled(self, hours: Tensor) -> Tensor:
        """Hours `[n, C]` as the images `[n, C, 1, 1]` that SOM-VAE takes."""
        return ((hours - self.low) / self.width).clamp(0, 1)[..., None, None]

    def latents(self, hours: Tensor) -> Tensor:
        """Latents `[n, D]` of hours `[n, C]`."""
        return self.somvae.encode(self.scaled(hours))

    def winners(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Index `[B, T]` of the unit nearest to the latent of every hour of series `[B, T, C]`.

        It is -1 behind the end of a series of fewer hours, `lengths` `[B]`.
        """
        return winners_of_series(lambda hours: self.somvae.winners(self.scaled(hours)), inputs, lengths)

    def reconstruct(self, hours: Tensor) -> Tensor:
        """Hours `[n, C]` as the map sees them, in their own scale."""
        decoded = self.somvae.decode(self.somvae.quantize(self.latents(hours)))
        return decoded.flatten(1) * self.width + self.low

    def transitions(self) -> Tensor | None:
        """The learned table `[K, K]`; None where nothing trained it."""
        return self.somvae.learned_transitions()

    def rows(self, inputs: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Of series `[B, T, C]` the hours that count, one behind the other, and where each stay starts."""
        first = torch.zeros_like(mask)
        first[:, 0] = True
        return {"inputs": self.scaled(inputs[mask]), "starts": first[mask]}
