"""Deep Probabilistic SOM: a variational autoencoder whose latent space is clustered by a self-organising map.

Source: Manduchi, Hüser, Faltys, Vogt, Rätsch, Fortuin, "T-DPSOM: An Interpretable Clustering Method for Unsupervised
Learning of Patient Health States", CHIL 2021, sections 3.1 to 3.3, and its code, ratschlab/dpsom.
"""

from dataclasses import dataclass

from models import assignment, networks
from models.gaussian import PosteriorDiagonal, PosteriorFull
from models.grid import Grid
from models.probabilistic_som import ProbabilisticSOM, weighted_elbo

import torch
import torch.nn.functional as F
from torch import Tensor

POSTERIORS = {"full": PosteriorFull, "diagonal": PosteriorDiagonal}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the joint loss; the names are the paper's."""

    theta: float
    """reconstruction (the ELBO)"""
    gamma: float
    """commitment: KL between target and soft assignment"""
    beta: float
    """neighbourhood of the map"""
    prior: float
    """KL between posterior and prior, inside the ELBO"""


class DPSOM(ProbabilisticSOM):
    """Encoder, decoder and `K = height * width` centroids in the latent space.

    Args:
        input_shape: `(C, H, W)` of one image, values in [0, 1].
        grid: the map's geometry.
        latent_dim: D.
        network: `dense` or `conv`.
        posterior: `full` or `diagonal` covariance of q(z|x).
        normalization: `affine`, `batch` or `none`, behind every activation or, with `normalize_before`, before it.
        dropout: rate in the encoder.
        leaky_logits: the original's leaky ReLU on the dense decoder's logits.
        alpha: degrees of freedom of the Student-t assignment.
        weights: of the loss terms.

    Raises:
        ValueError: an image whose sides are no multiples of four, with `network=conv`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        grid: Grid,
        *,
        latent_dim: int,
        network: str,
        posterior: str,
        normalization: str,
        normalize_before: bool,
        dropout: float,
        leaky_logits: bool,
        alpha: float,
        weights: LossWeights,
    ) -> None:
        posterior = POSTERIORS[posterior](latent_dim)
        outputs = posterior.number_of_parameters
        if network == "dense":
            encoder = networks.dense_encoder(input_shape, outputs, normalization, dropout, normalize_before)
            decoder = networks.dense_decoder(latent_dim, input_shape, normalization, normalize_before, leaky_logits)
        else:
            encoder = networks.conv_encoder(input_shape, outputs, normalization, dropout, normalize_before)
            decoder = networks.conv_decoder(latent_dim, input_shape, normalization, normalize_before)
        super().__init__(grid, posterior, encoder, decoder, alpha)
        self.weights = weights

    def winners(self, inputs: Tensor) -> Tensor:
        """Index `[B]` of the unit nearest to the posterior mean of each of the inputs `[B, C, H, W]`."""
        return self.distances(self.mean(inputs)).argmin(dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` in [0, 1] of latents `[B, D]`."""
        return self.decoder(latents).float().sigmoid()

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Pictures of the posterior means of inputs `[B, C, H, W]`."""
        return self.decode(self.mean(inputs))

    def elbo_terms(self, inputs: Tensor, latents: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """`weighted_elbo` of images `[B, C, H, W]`: Bernoulli with soft targets, summed over pixels."""
        logits = self.decoder(latents).float()
        negative_log_likelihood = F.binary_cross_entropy_with_logits(logits, inputs, reduction="sum") / len(inputs)
        return weighted_elbo(negative_log_likelihood, kl, self.weights.prior)

    def pretraining_loss(self, inputs: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Phase 1, the variational autoencoder alone."""
        terms = self.elbo_terms(inputs, *self.encode(inputs, noise))
        return {"loss": terms["reconstruction"], **terms}

    def som_initialization_loss(self, inputs: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Phase 2: centroids move towards the latents, the networks' weights stay."""
        with torch.no_grad():
            latents, _ = self.encode(inputs, noise)
        return self.initialization_terms(latents)

    def joint_loss(self, inputs: Tensor, target: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Phase 3: ELBO, commitment to the target distribution `[B, K]`, and the map's neighbourhood."""
        latents, kl = self.encode(inputs, noise)
        terms = self.elbo_terms(inputs, latents, kl)
        soft = self.assign(latents)
        terms["commitment"] = assignment.commitment_loss(target, soft)
        terms["som"] = assignment.soft_som_loss(soft.detach(), self.assign(latents.detach()), self.adjacency)
        loss = (
            self.weights.theta * terms["reconstruction"]
            + self.weights.gamma * terms["commitment"]
            + self.weights.beta * terms["som"]
        )
        return {"loss": loss, **terms}
