"""A self-organising map as a layer whose loss any optimiser can minimise.

Source: T. Kohonen, "Essentials of the self-organizing map", Neural Networks 37, 2013 (the batch map, section 4.1), and
a layer posted in a forum with the question whether it is a correct implementation; the README answers.
"""

from models import networks
from models.assignment import squared_distances
from models.grid import Grid, gaussian_neighbourhood

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Topography(nn.Module):
    """`K = height * width` units with centroids in the space of the inputs, on a grid that says who learns with whom.

    Features are compared by squared Euclidean distance, which on the unit sphere is twice the cosine distance; units
    are compared on the grid by a metric of its own.

    Args:
        latent_dim: D, values of one input; of a picture, its pixels.
        grid: the map's geometry.
        grid_metric: between units: `euclidean`, `manhattan` or `chebyshev`.
        unit_norm: scale inputs and centroids to unit length before they are compared.
    """

    def __init__(self, latent_dim: int, grid: Grid, *, grid_metric: str = "euclidean", unit_norm: bool = False) -> None:
        super().__init__()
        self.grid, self.unit_norm = grid, unit_norm
        self.centroids = nn.Parameter(F.normalize(torch.randn(grid.size, latent_dim), dim=1))
        self.register_buffer("grid_distances", grid.distances(grid_metric))

    def features(self, inputs: Tensor) -> Tensor:
        """What is compared with the units: inputs `[B, ...]` as `[B, D]`, of unit length with `unit_norm`."""
        return self._scaled(self.encode(inputs))

    def units(self) -> Tensor:
        """What features are compared with, `[K, D]`: the centroids, of unit length with `unit_norm`."""
        return self._scaled(self.centroids)

    def distances(self, inputs: Tensor) -> Tensor:
        """Squared distances `[B, K]` of inputs `[B, ...]` to all units."""
        return squared_distances(self.features(inputs), self.units())

    def winners(self, inputs: Tensor) -> Tensor:
        """Index `[B]` of the unit nearest to each of the inputs `[B, ...]`."""
        return self.distances(inputs).argmin(dim=1)

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Each of the inputs `[B, ...]` as its winner sees it; with `unit_norm`, at the input's own length."""
        reconstructed = self.units()[self.winners(inputs)]
        if self.unit_norm:
            reconstructed = reconstructed * self.encode(inputs).norm(dim=1, keepdim=True)
        return self.decode(reconstructed, inputs.shape[1:])

    def encode(self, inputs: Tensor) -> Tensor:
        """The space of the map: inputs `[B, ...]` as `[B, D]`."""
        return inputs.flatten(1)

    def decode(self, vectors: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Vectors `[B, D]` of that space as inputs of this shape."""
        return vectors.view(-1, *shape)

    def loss(self, inputs: Tensor, sigma: float | Tensor) -> dict[str, Tensor]:
        """`mean_i sum_j exp(-g(c_i, j)^2 / (2 sigma^2)) ||x_i - w_j||^2`, c_i the winner of x_i, g the grid's metric.

        The winners are indices, so no gradient passes through their choice and none is missing: while they stay the
        same, minus half the gradient by w_j is `mean_i h_ij (x_i - w_j)`, Kohonen's batch direction. The gradient also
        reaches the inputs, so latents that are still in training can be given.

        Args:
            inputs: `[B, ...]`.
            sigma: width of the neighbourhood in steps of the grid.
        """
        distances = self.distances(inputs)
        to_winner, winners = distances.min(dim=1)
        neighbourhood = gaussian_neighbourhood(self.grid_distances[winners], sigma)
        return {"loss": (neighbourhood * distances).sum(dim=1).mean(), "to_winner": to_winner.mean()}

    def _scaled(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=1) if self.unit_norm else vectors


class LatentTopography(Topography):
    """A map of the latents of a dense autoencoder, which is trained before the map and then stays.

    Args:
        input_shape: `(C, H, W)` of one input, values in [0, 1].
        latent_dim: D.
        grid, options: see `Topography`.
    """

    def __init__(self, input_shape: tuple[int, int, int], latent_dim: int, grid: Grid, **options: bool | str) -> None:
        super().__init__(latent_dim, grid, **options)
        self.encoder = networks.dense_encoder(input_shape, latent_dim, "none", 0.0, normalize_before=False)
        self.decoder = networks.dense_decoder(
            latent_dim, input_shape, "none", normalize_before=False, leaky_logits=False
        )

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """Latents `[B, D]`; the map's loss does not reach the encoder."""
        return self.encoder(inputs).float()

    def decode(self, vectors: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Pictures `[B, C, H, W]` of latents `[B, D]`."""
        return self.decoder(vectors).float().sigmoid()

    def autoencoder_loss(self, inputs: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the autoencoder alone."""
        return {"loss": F.mse_loss(self.decoder(self.encoder(inputs)).float().sigmoid(), inputs)}
