"""TPAE: a stack of autoencoder blocks, each of which sees its input through the prototypes of a self-organising map.

Source: the public code and text of `brianchristensen/ml`, archive/tpae. Block i encodes the picture x beside the
reconstruction of block i - 1 (block 1: x itself) and that block's topo_z (block 1: zeros) into a latent z:

    weights_j = softmax_j(-||z - p_j|| / temperature)        p_j: prototypes of K units on a grid
    topo_z    = sum_j weights_j p_j
    fusion decoder:    (x, topo_z) -> reconstruction         it sees x, so a small error proves little
    prototype decoder: topo_z -> picture                     it sees the map alone

The classifier reads the last topo_z. The loss is a weighted sum over these terms, each a mean over the batch, summed
over the blocks (classification and adversarial: of the last block alone):

    reconstruction   MSE(reconstruction, x)
    pictures         MSE(picture, x)
    neighbourhood    mean_i sum_j h(c_i, j) ||z_i - p_j||^2 / (D sum_j h(c_i, j)), c_i the winner of z_i, h Gaussian
    pairwise         mean ||z_i - z_j||^2 / D over the pairs of a batch whose winners are neighbours on the grid
    diversity        1 - entropy(mean_i weights_i) / log K: 0 when all prototypes are used alike
    classification   cross entropy of the classifier (label: class of x)
    auxiliary        cross entropy of a small classifier of each block's pictures
    adversarial      -log sigmoid(discriminator(picture of the last block))

The text asks for the fourth and fifth too; the public code has neither, and calls no diversity loss. Its own compares
the prototypes of different blocks; ours is that of wav2vec 2.0 (Baevski et al., NeurIPS 2020, equation 4), because
collapse happens within a map.
"""

from dataclasses import dataclass
from typing import NamedTuple

from models import networks
from models.assignment import squared_distances
from models.grid import Grid
from models.soft_som import Assignment, SoftSOM
from models.tpae_networks import FEATURES, Fusion, encoder_of

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

PHASES = {
    "reconstruct": ("reconstruction", "pictures"),
    "joint": (
        "reconstruction", "pictures", "neighbourhood", "pairwise", "diversity", "classification", "auxiliary",
        "adversarial",
    ),
}  # fmt: skip
"""Which terms `TPAE.loss` minimises in a phase; between the two, `TPAE.map_loss` organises the maps alone."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; a term of weight 0 is not computed."""

    reconstruction: float
    pictures: float
    neighbourhood: float
    pairwise: float
    diversity: float
    classification: float
    auxiliary: float
    adversarial: float


class Seen(NamedTuple):
    """What one block makes of a batch of pictures."""

    latents: Tensor  # [B, D]
    assignment: Assignment
    reconstruction: Tensor | None  # [B, C, H, W]


class Block(nn.Module):
    """Encoder, soft SOM, fusion decoder, prototype decoder and auxiliary classifier.

    Args:
        shape: `(C, H, W)` of a picture, its sides multiples of four, at least eight.
        classes: number of them.
        encoder: `published` or `residual` (see `encoder_of`).
        width: channels of the residual encoder.
        latent_dim: D.
        som: the map.
        sampling: what the fusion decoder works at: `native`, or `downsampled`, a quarter of the sides.
        normalize_latents: scale each latent to zero mean and unit variance over its dimensions.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        encoder: str,
        width: int,
        latent_dim: int,
        som: SoftSOM,
        sampling: str,
        normalize_latents: bool,
    ) -> None:
        super().__init__()
        channels, height, width_of_picture = shape
        features, size = encoder_of(encoder, 2 * channels, (height, width_of_picture), width)
        self.features = features
        self.to_latent = nn.Linear(size + latent_dim, latent_dim)
        self.normalize = nn.LayerNorm(latent_dim, elementwise_affine=False) if normalize_latents else nn.Identity()
        self.som = som
        self.sampling = sampling
        self.fusion = Fusion(channels, latent_dim)
        quarter = height // 4, width_of_picture // 4
        self.prototype_decoder = nn.Sequential(
            nn.Linear(latent_dim, FEATURES * quarter[0] * quarter[1]),
            networks.ToImage(*quarter),
            nn.ConvTranspose2d(FEATURES, FEATURES // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(FEATURES // 2, channels, 4, stride=2, padding=1),
        )
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        )

    def encode(self, inputs: Tensor, reconstruction: Tensor, blended: Tensor) -> Tensor:
        """Latents `[B, D]` of pictures, the last block's reconstruction of them and its topo_z `[B, D]`."""
        features = self.features(torch.cat([inputs, reconstruction], dim=1))
        return self.normalize(self.to_latent(torch.cat([features, blended.to(features.dtype)], dim=1)).float())

    def reconstruct(self, inputs: Tensor, blended: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` from themselves and topo_z; blurry when downsampled."""
        if self.sampling == "native":
            return self.fusion(inputs, blended)
        small = self.fusion(F.avg_pool2d(inputs, 4), blended)
        return F.interpolate(small, size=inputs.shape[2:], mode="bilinear")

    def picture(self, blended: Tensor) -> Tensor:
        """Pictures `[N, C, H, W]` of topo_z or of prototypes `[N, D]` alone."""
        return self.prototype_decoder(blended).float().sigmoid()


class TPAE(nn.Module):
    """A stack of blocks, the classifier of the last block's topo_z and, where it is wanted, a discriminator.

    Args:
        shape: `(C, H, W)` of a picture, values in [0, 1].
        classes: number of them.
        grid: geometry of every block's map.
        blocks: how many.
        encoder, width, latent_dim, sampling, normalize_latents: see `Block`.
        temperature, assignment: see `SoftSOM`.
        recompute: do not keep what the decoders compute for the backward pass but compute it again: slower, and the
            memory of a block is then that of its reconstruction.
        weights: of the loss terms.

    Raises:
        ValueError: pictures whose sides are no multiples of four or below eight; a temperature that is not positive.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        grid: Grid,
        *,
        blocks: int,
        encoder: str,
        width: int,
        latent_dim: int,
        sampling: str,
        normalize_latents: bool,
        temperature: float,
        assignment: str,
        recompute: bool,
        weights: LossWeights,
    ) -> None:
        super().__init__()
        self.grid, self.weights, self.recompute = grid, weights, recompute
        self.blocks = nn.ModuleList(
            Block(
                shape,
                classes,
                encoder,
                width,
                latent_dim,
                SoftSOM(grid, latent_dim, temperature, assignment),
                sampling,
                normalize_latents,
            )
            for _ in range(blocks)
        )
        self.classifier = nn.Linear(latent_dim, classes)
        if weights.adversarial:
            features, size = encoder_of("published", shape[0], shape[1:], 0)
            self.discriminator = nn.Sequential(features, nn.Linear(size, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, through_maps: bool = True, last_reconstruction: bool = True) -> list[Seen]:
        """What each block makes of pictures `[B, C, H, W]`.

        Not `through_maps`, each topo_z is the latent itself. The `last_reconstruction`, which no block sees, is None
        where it is not wanted.
        """
        seen = []
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        reconstruction, blended = inputs, inputs.new_zeros(inputs.shape[0], self.classifier.in_features)
        for block in self.blocks:
            latents = block.encode(inputs, reconstruction, blended)
            assignment = block.som(latents)
            if not through_maps:
                assignment = assignment._replace(blended=latents)
            blended = assignment.blended
            wanted = last_reconstruction or block is not self.blocks[-1]
            reconstruction = self._computed(block.reconstruct, inputs, blended) if wanted else None
            seen.append(Seen(latents, assignment, reconstruction))
        return seen

    def classify(self, seen: list[Seen]) -> Tensor:
        """Logits `[B, classes]`."""
        return self.classifier(seen[-1].assignment.blended).float()

    def winners(self, inputs: Tensor) -> Tensor:
        """Index `[B, blocks]` of the unit nearest to each block's latent of each of the pictures `[B, C, H, W]`."""
        seen = self(inputs, last_reconstruction=False)
        return torch.stack([one.assignment.distances.argmin(dim=1) for one in seen], dim=1)

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `[B, classes]` of pictures `[B, C, H, W]`."""
        return self.classify(self(inputs, last_reconstruction=False))

    def pictures(self, seen: list[Seen]) -> list[Tensor]:
        """What the map of each block alone knows of the pictures, `[B, C, H, W]` each."""
        return [
            self._computed(block.picture, one.assignment.blended) for block, one in zip(self.blocks, seen, strict=True)
        ]

    def loss(self, phase: str, inputs: Tensor, labels: Tensor, sigma: float | Tensor) -> dict[str, Tensor]:
        """The terms that a phase minimises and their weighted sum, `loss`.

        `reconstruct` trains the autoencoders without their maps, which otherwise collapse before there is anything to
        map: far from all prototypes the softmax has one winner and no gradient.

        Args:
            phase: `reconstruct` or `joint`.
            inputs: `[B, C, H, W]`.
            labels: `[B]`.
            sigma: width of the neighbourhood, in steps of the grid.
        """
        wanted = {name for name in PHASES[phase] if getattr(self.weights, name)}
        seen = self(inputs, through_maps=phase != "reconstruct")
        maps = [(block.som, one) for block, one in zip(self.blocks, seen, strict=True)]
        terms = {}
        if "reconstruction" in wanted:
            terms["reconstruction"] = sum(F.mse_loss(one.reconstruction, inputs) for one in seen)
        if wanted & {"pictures", "auxiliary", "adversarial"}:
            pictures = self.pictures(seen)
        if "pictures" in wanted:
            terms["pictures"] = sum(F.mse_loss(picture, inputs) for picture in pictures)
        if "neighbourhood" in wanted:
            terms["neighbourhood"] = sum(som.neighbourhood(one.assignment.distances, sigma) for som, one in maps)
        if "pairwise" in wanted:
            terms["pairwise"] = sum(som.pairwise(one.latents, one.assignment.distances) for som, one in maps)
        if "diversity" in wanted:
            terms["diversity"] = sum(som.diversity(one.assignment.weights) for som, one in maps)
        logits = self.classify(seen)
        if "classification" in wanted:
            terms["classification"] = F.cross_entropy(logits, labels)
        if "auxiliary" in wanted:
            terms["auxiliary"] = sum(
                F.cross_entropy(block.auxiliary(picture).float(), labels)
                for block, picture in zip(self.blocks, pictures, strict=True)
            )
        if "adversarial" in wanted:
            terms["adversarial"] = F.softplus(-self._judged(pictures[-1])).mean()
        loss = sum(getattr(self.weights, name) * value for name, value in terms.items())
        return {"loss": loss, **terms, "training_accuracy": accuracy(logits, labels)}

    def map_loss(self, inputs: Tensor, labels: Tensor, sigma: float | Tensor) -> dict[str, Tensor]:
        """The neighbourhood term for the prototypes alone: maps are laid into latents; the networks' weights stay."""
        with torch.no_grad():
            latents = [one.latents for one in self(inputs, through_maps=False, last_reconstruction=False)]
        maps = zip(self.blocks, latents, strict=True)
        loss = sum(block.som.neighbourhood(squared_distances(z, block.som.prototypes), sigma) for block, z in maps)
        return {"loss": loss, "neighbourhood": loss.detach()}

    def discriminator_loss(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What the discriminator minimises, and it alone: the logistic loss of real pictures and the last block's."""
        with torch.no_grad():
            seen = self(inputs, last_reconstruction=False)
            pictures = self.blocks[-1].picture(seen[-1].assignment.blended)
        real, made = self.discriminator(inputs).float(), self.discriminator(pictures).float()
        loss = F.softplus(-real).mean() + F.softplus(made).mean()
        return {"loss": loss, "discriminator": loss.detach()}

    def _judged(self, pictures: Tensor) -> Tensor:
        """The discriminator's logits, without a gradient for its own parameters."""
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, frozen, (pictures,)).float()

    def _computed(self, function, *arguments: Tensor) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)  # they draw none
        return function(*arguments)


class PlainCNN(nn.Module):
    """The baseline: an encoder and a linear classifier, without maps and decoders; it knows the phase `joint` alone.

    Raises:
        ValueError: see `encoder_of`.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, encoder: str, width: int) -> None:
        super().__init__()
        self.features, size = encoder_of(encoder, shape[0], shape[1:], width)
        self.classifier = nn.Linear(size, classes)
        self.to(memory_format=torch.channels_last)

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `[B, classes]` of pictures `[B, C, H, W]`."""
        return self.classifier(self.features(inputs.contiguous(memory_format=torch.channels_last))).float()

    def loss(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross entropy for labels `[B]`."""
        logits = self.logits(inputs)
        return {"loss": F.cross_entropy(logits, labels), "training_accuracy": accuracy(logits, labels)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows of `[B, classes]` whose largest value is that of the label `[B]`."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()
