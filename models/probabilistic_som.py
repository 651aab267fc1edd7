"""What DPSOM and T-DPSOM share: the latents of a variational autoencoder under a self-organising map."""

from models import assignment
from models.gaussian import PosteriorDiagonal, PosteriorFull
from models.grid import Grid

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProbabilisticSOM(nn.Module):
    """`K = height * width` centroids in the latent space, `[K, D]`, between an encoder and a decoder.

    Args:
        grid: the map's geometry.
        posterior: of D latents; reads them from what the encoder returns.
        encoder: of samples `[B, ...]` to the posterior's parameters `[B, P]`.
        decoder: of latents `[B, D]`.
        alpha: degrees of freedom of the Student-t assignment.
    """

    def __init__(
        self,
        grid: Grid,
        posterior: PosteriorDiagonal | PosteriorFull,
        encoder: nn.Module,
        decoder: nn.Module,
        alpha: float,
    ) -> None:
        super().__init__()
        self.grid, self.posterior, self.alpha = grid, posterior, alpha
        self.encoder, self.decoder = encoder, decoder
        centroids = torch.empty(grid.size, posterior.latent_dim)
        self.centroids = nn.Parameter(nn.init.trunc_normal_(centroids, std=0.05, a=-0.1, b=0.1))
        self.register_buffer("adjacency", assignment.adjacency_matrix(grid), persistent=False)
        self.register_buffer("neighbours", grid.neighbours, persistent=False)

    def encode(self, inputs: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One reparameterised sample of q(z|x), `[B, D]`, and the KL divergence to the prior N(0, I), `[B]`.

        `noise` `[B, D]` replaces the standard-normal draw.
        """
        parameters = self.encoder(inputs)
        if noise is None:
            noise = torch.randn(len(inputs), self.posterior.latent_dim, device=inputs.device)
        return self.posterior.sample_and_kl(parameters, noise)

    def mean(self, inputs: Tensor) -> Tensor:
        """Mean of q(z|x), `[B, D]`."""
        return self.posterior.mean(self.encoder(inputs))

    def distances(self, latents: Tensor) -> Tensor:
        """Squared distances `[B, K]` of latents `[B, D]` to the centroids."""
        return assignment.squared_distances(latents, self.centroids)

    def assign(self, latents: Tensor) -> Tensor:
        """Soft assignment q, `[B, K]`, of latents `[B, D]`."""
        return assignment.student_t_assignment(self.distances(latents), self.alpha)

    def initialization_terms(self, latents: Tensor) -> dict[str, Tensor]:
        """Phase 2: centroids move towards the latents `[B, D]` that they win, and their neighbours with them."""
        with torch.no_grad():
            winners = self.distances(latents).argmin(dim=1)
        to_winner = F.mse_loss(self.centroids[winners], latents)
        neighbourhood = assignment.neighbourhood_loss(latents, self.centroids, winners, self.neighbours)
        return {"loss": to_winner + neighbourhood, "to_winner": to_winner, "neighbourhood": neighbourhood}


def weighted_elbo(negative_log_likelihood: Tensor, kl: Tensor, weight: float) -> dict[str, Tensor]:
    """Negative log likelihood (a mean over samples), mean of the KL divergences `[B]`, and their weighted sum."""
    kl = kl.mean()
    return {
        "negative_log_likelihood": negative_log_likelihood,
        "kl": kl,
        "reconstruction": negative_log_likelihood + weight * kl,
    }
