"""SOM-VAE: an autoencoder whose latents are quantised to the units of a self-organising map, with a Markov model on it.

Source: Fortuin, Hüser, Locatello, Strathmann, Rätsch, "SOM-VAE: Interpretable Discrete Representation Learning on Time
Series", ICLR 2019, sections 2.1 to 2.3, and its code, ratschlab/SOM-VAE. Despite its name it is deterministic.

All losses are means over every element. With latents `z = encoder(x)`, winner `k = argmin_j ||z - e_j||^2`:

    reconstruction = MSE(x, decoder_q(e_k)) + MSE(x, decoder_e(z))
    commitment     = mean (z - e_k)^2
    som            = mean over k and its four neighbours n of (sg[z] - e_n)^2; beyond the edge e_n = 0
    transition     = -mean_t log P[k_(t-1), k_t]
    smoothness     = mean_(t, j) P[k_(t-1), j] ||z_t - e_j||^2
    loss           = reconstruction + alpha commitment + beta som + gamma transition + tau smoothness
"""

from dataclasses import dataclass

from models import assignment, somvae_networks
from models.grid import Grid

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NETWORKS = {
    "conv": (somvae_networks.conv_encoder, somvae_networks.conv_decoder),
    "conv_small": (somvae_networks.small_encoder, somvae_networks.small_decoder),
    "dense": (somvae_networks.dense_encoder, somvae_networks.dense_decoder),
    "identity": (somvae_networks.identity_encoder, somvae_networks.identity_decoder),
}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the joint loss; the names are the paper's."""

    alpha: float
    """commitment of latents and centroids to each other"""
    beta: float
    """neighbourhood of the map"""
    gamma: float
    """negative log likelihood of the transitions"""
    tau: float
    """smoothness: expected distance to where the transitions lead"""
    gamma_twice: bool = False
    """the original multiplies the transitions of the joint loss by gamma once more"""

    @property
    def temporal(self) -> bool:
        """Whether the order of the samples matters."""
        return self.gamma > 0 or self.tau > 0


class SOMVAE(nn.Module):
    """Encoder, decoders, `K = height * width` centroids in the latent space, and `[K, K]` transition logits.

    How the reconstruction trains the latents (`gradients`):

    - `full`: two decoders. The one that sees the centroid trains the centroid, the one that sees the latent trains the
      encoder.
    - `straight_through` (the paper's gradcopy): one decoder, whose gradient with respect to the centroid is given to
      the latent instead, as in VQ-VAE.
    - `none` (the paper's no_grads): one decoder, which trains the centroid; the encoder learns nothing of the pictures.

    Args:
        input_shape: of one sample, `(C, H, W)`, values in [0, 1].
        grid: the map's geometry.
        latent_dim: D.
        network: `conv`, `conv_small`, `dense`, or `identity`: a self-organising map of the values themselves, trained
            by gradients.
        gradients: see above.
        weights: of the loss terms.

    Raises:
        ValueError: an image whose sides are no multiples of four, with `network=conv`, or below 17 pixels, with
            `conv_small`; another number of latents than values, with `identity`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        grid: Grid,
        *,
        latent_dim: int,
        network: str,
        gradients: str,
        weights: LossWeights,
    ) -> None:
        super().__init__()
        encoder, decoder = NETWORKS[network]
        self.grid = grid
        self.gradients = gradients
        self.weights = weights
        self.encoder = encoder(input_shape, latent_dim)
        self.decoder_q = decoder(latent_dim, input_shape)
        self.decoder_e = decoder(latent_dim, input_shape) if gradients == "full" else None
        centroids = torch.empty(grid.size, latent_dim)
        self.centroids = nn.Parameter(nn.init.trunc_normal_(centroids, std=0.05, a=-0.1, b=0.1))
        self.transition_logits = nn.Parameter(torch.zeros(grid.size, grid.size))
        self.register_buffer("neighbours", grid.neighbours, persistent=False)

    def encode(self, inputs: Tensor) -> Tensor:
        """Latents `[B, D]` of samples `[B, C, H, W]`."""
        return self.encoder(inputs).float()

    def distances(self, latents: Tensor) -> Tensor:
        """Squared distances `[B, K]` of latents `[B, D]` to the centroids."""
        return assignment.squared_distances(latents, self.centroids)

    def winners(self, inputs: Tensor) -> Tensor:
        """Index `[B]` of the unit nearest to the latent of each of the inputs `[B, C, H, W]`."""
        return self.distances(self.encode(inputs)).argmin(dim=1)

    def quantize(self, latents: Tensor) -> Tensor:
        """The nearest centroid `[B, D]` of each latent `[B, D]`."""
        return self.centroids[self.distances(latents).argmin(dim=1)]

    def decode(self, quantized: Tensor) -> Tensor:
        """Samples `[B, C, H, W]` in [0, 1] of centroids `[B, D]`."""
        return self.decoder_q(quantized).float().sigmoid()

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Samples `[B, C, H, W]` in [0, 1] of latents `[B, D]`, by the second decoder (`gradients=full` only)."""
        return self.decoder_e(latents).float().sigmoid()

    def transition_probabilities(self) -> Tensor:
        """P `[K, K]`: row i holds the probabilities of the units that may follow unit i."""
        return self.transition_logits.softmax(dim=1)

    def learned_transitions(self) -> Tensor | None:
        """P on the CPU, or None where its own loss has no weight."""
        return self.transition_probabilities().detach().cpu() if self.weights.gamma > 0 else None

    def joint_loss(self, inputs: Tensor, starts: Tensor | None = None) -> dict[str, Tensor]:
        """Everything. Where transitions have a weight, `inputs` `[B, C, H, W]` are sequences one behind the other.

        `starts` `[B]` is true where a sequence begins; without it there is one.
        """
        weights = self.weights
        latents = self.encode(inputs)
        distances = self.distances(latents)
        winners = distances.argmin(dim=1)
        quantized = self.centroids[winners]
        reconstruction = self.reconstruction_terms(inputs, latents, winners)
        commitment = F.mse_loss(latents, quantized)
        som = assignment.neighbourhood_loss(latents.detach(), self.centroids, winners, self.neighbours)
        loss = sum(reconstruction.values()) + weights.alpha * commitment + weights.beta * som
        terms = {**reconstruction, "commitment": commitment, "som": som}
        if weights.temporal:
            before = predecessors(winners, starts)
            terms["transition"] = self.transition_nll(winners, before)
            terms["smoothness"] = self.smoothness(distances, before)
            gamma = weights.gamma**2 if weights.gamma_twice else weights.gamma
            loss = loss + gamma * terms["transition"] + weights.tau * terms["smoothness"]
        return {"loss": loss, **terms}

    def reconstruction_terms(self, inputs: Tensor, latents: Tensor, winners: Tensor) -> dict[str, Tensor]:
        """Mean squared error of each decoder for inputs `[B, C, H, W]`, their latents `[B, D]` and winners `[B]`."""
        terms = {"reconstruction_q": F.mse_loss(self.decode_winners(latents, winners), inputs)}
        if self.decoder_e is not None:
            terms["reconstruction_e"] = F.mse_loss(self.decode_latents(latents), inputs)
        return terms

    def decode_winners(self, latents: Tensor, winners: Tensor) -> Tensor:
        """Samples `[B, C, H, W]` of the centroids of the winners `[B]`, each of which is decoded once.

        `straight_through` gives each sample's gradient to its latent, so there every sample is decoded. A GPU, which
        would have to wait to learn how many winners differ, decodes all units or all samples, whichever are fewer.
        """
        if self.gradients == "straight_through":
            return self.decode(latents + (self.centroids[winners] - latents).detach())
        if not winners.is_cuda:
            units, places = winners.unique(return_inverse=True)
            return self.decode(self.centroids[units])[places]
        if self.grid.size < len(winners):
            return self.decode(self.centroids)[winners]
        return self.decode(self.centroids[winners])

    def transition_loss(self, inputs: Tensor, starts: Tensor | None = None) -> dict[str, Tensor]:
        """The transitions of sequences alone, as in `joint_loss`: the networks and the centroids stay."""
        with torch.no_grad():
            winners = self.winners(inputs)
        return {"loss": self.weights.gamma * self.transition_nll(winners, predecessors(winners, starts))}

    def transition_nll(self, winners: Tensor, before: Tensor) -> Tensor:
        """Mean negative log probability of winners `[B]`, each given the winner `before` it, `[B]`."""
        return F.cross_entropy(self.transition_logits[before], winners)

    def smoothness(self, distances: Tensor, before: Tensor) -> Tensor:
        """Mean of `P[k_(t-1), j] d_tj` for squared distances `[B, K]` and the winners before, `[B]`."""
        return (self.transition_logits[before].softmax(dim=1) * distances).mean()


def predecessors(winners: Tensor, starts: Tensor | None = None) -> Tensor:
    """The winner one step before each of the winners `[B]` of sequences; the first of a sequence precedes itself.

    `starts` `[B]` is true where a sequence begins; without it all are one.
    """
    before = torch.cat([winners[:1], winners[:-1]])
    return before if starts is None else torch.where(starts, winners, before)
