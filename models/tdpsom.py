"""T-DPSOM: DPSOM's map over every hour of every patient's stay, smooth in time, with a forecast of the next hour.

Source: Manduchi, Hüser, Faltys, Vogt, Rätsch, Fortuin, "T-DPSOM: An Interpretable Clustering Method for Unsupervised
Learning of Patient Health States", CHIL 2021, section 3, and its code, ratschlab/dpsom.

All means are over hours. With a sample z of the posterior at each hour, its winner k, the centroids e, and sg[] where
no gradient passes:

    reconstruction = mean -log N(x | decoder(z)) + prior KL(N(mean, scale^2) || N(0, I))
    commitment     = mean KL(p || q)                              p: target distribution, q: soft assignment
    som            = mean -sum_j sg[q_j] sum_(n next to j) log q_n(sg[z])
    smoothness     = mean -t(||z_t - sg[e_(k_(t-1))]||^2)         t: Student's kernel; before the first hour k_0
    prediction     = mean -log N(sg[z_(t+1)] | LSTM(sg[z_1..t]))  after the last hour z_T
    loss           = theta reconstruction + gamma commitment + beta som + kappa smoothness + eta prediction
"""

from dataclasses import dataclass

from models import assignment, networks
from models.gaussian import PosteriorDiagonal, diagonal_gaussian
from models.grid import Grid
from models.lstm import LSTM
from models.probabilistic_som import ProbabilisticSOM, weighted_elbo

import torch
from torch import Tensor, nn
from torch.distributions import Independent


@dataclass(frozen=True)
class LossWeights:
    """Weights of the joint loss; the names are the paper's."""

    theta: float
    """reconstruction (the ELBO)"""
    gamma: float
    """commitment: KL between target and soft assignment"""
    beta: float
    """neighbourhood of the map"""
    kappa: float
    """smoothness in time"""
    eta: float
    """prediction of the next hour; at 0 the joint loss leaves it out"""
    prior: float
    """KL between posterior and prior, inside the ELBO"""


class SeriesLayout:
    """The hours of a batch of series `[B, T, ...]` that count, as rows `[N, ...]`, series after series.

    `mask` `[B, T]` is true for them; each series fills its row from the left. None: all of them.
    """

    def __init__(self, series: Tensor, mask: Tensor | None) -> None:
        self.shape = series.shape[:2]
        self.places = None if mask is None else mask.flatten().nonzero()[:, 0]  # of the rows; the device is waited for
        self.row_at = None if mask is None else mask.flatten().cumsum(0) - 1

    def rows(self, series: Tensor) -> Tensor:
        """Rows `[N, ...]` of series `[B, T, ...]`."""
        rows = series.flatten(0, 1)
        return rows if self.places is None else rows.index_select(0, self.places)

    def series(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`, `[B, T, ...]`; behind its end a series repeats its last hour."""
        rows = rows if self.row_at is None else rows.index_select(0, self.row_at)
        return rows.unflatten(0, self.shape)


class TDPSOM(ProbabilisticSOM):
    """Encoder, decoder, `K = height * width` centroids in the latent space, and a forecaster of the latents.

    Series are `[B, T, C]`, optionally with a mask `[B, T]` as in `SeriesLayout`; what belongs to them, the target
    `[B, T, K]` and the noise `[B, T, L]`, has their layout. Rows are hours of any series.

    Args:
        channels: C.
        grid: the map's geometry.
        latent_dim: L.
        lstm_units: of the forecaster, and width of the layer behind it.
        recurrent_activation: of the forecaster's gates, `sigmoid` or the original's `hard_sigmoid`.
        normalization: `affine`, `batch` or `none`, behind every activation or, with `normalize_before`, before it.
        dropout: rate in the encoder.
        scale_minimum: smallest standard deviation of encoder, decoder and forecaster; the original has none, 0.
        alpha: degrees of freedom of Student's t.
        weights: of the loss terms.
    """

    def __init__(
        self,
        channels: int,
        grid: Grid,
        *,
        latent_dim: int,
        lstm_units: int,
        recurrent_activation: str,
        normalization: str,
        normalize_before: bool,
        dropout: float,
        scale_minimum: float,
        alpha: float,
        weights: LossWeights,
    ) -> None:
        posterior = PosteriorDiagonal(latent_dim, scale_minimum)
        outputs = posterior.number_of_parameters
        encoder = networks.dense_encoder((channels,), outputs, normalization, dropout, normalize_before)
        decoder = networks.dense_decoder(
            latent_dim, (2 * channels,), normalization, normalize_before, leaky_logits=False
        )
        lstm = LSTM(latent_dim, lstm_units, recurrent_activation)
        forecast_head = networks.initialize(
            nn.Sequential(
                nn.Linear(lstm_units, lstm_units),
                nn.LeakyReLU(networks.LEAK),
                nn.Linear(lstm_units, 2 * latent_dim),
            )
        )
        super().__init__(grid, posterior, encoder, decoder, alpha)
        self.lstm, self.forecast_head = lstm, forecast_head
        self.scale_minimum = scale_minimum
        self.weights = weights

    def decode(self, latents: Tensor) -> Independent:
        """p(x|z) of latents `[N, L]`: Gaussians over `[N, C]`."""
        return diagonal_gaussian(self.decoder(latents), self.scale_minimum)

    # Series

    def winners(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Index `[B, T]` of the unit nearest to the posterior mean of every hour of series `[B, T, C]`.

        It is -1 behind the end of a series of fewer hours, `lengths` `[B]`.
        """

        def nearest(hours: Tensor) -> Tensor:
            return self.distances(self.mean(hours)).argmin(dim=1)

        return assignment.winners_of_series(nearest, inputs, lengths)

    def predict(self, latents: Tensor) -> Independent:
        """Gaussians over the next hour's latents at each hour of latents `[B, T, L]`, from it and those before."""
        hidden, _ = self.lstm(latents)
        return diagonal_gaussian(self.forecast_head(hidden), self.scale_minimum)

    def forecast(self, latents: Tensor, steps: int, sampled: bool = False) -> Tensor:
        """Latents `[B, steps, L]` after those `[B, T, L]` given: each prediction is the next input.

        Predictions are means, or samples of the predicted Gaussians.
        """
        hidden, state = self.lstm(latents)
        following = []
        for _ in range(steps):
            predicted = diagonal_gaussian(self.forecast_head(hidden[:, -1:]), self.scale_minimum)
            following.append(predicted.sample() if sampled else predicted.mean)
            hidden, state = self.lstm(following[-1], state)
        return torch.cat(following, dim=1)

    def forecast_hours(self, inputs: Tensor, steps: int) -> Tensor:
        """Hours `[B, steps, C]` expected after all those of series `[B, T, C]`: what the forecast latents decode to."""
        latents = self.mean(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        following = self.forecast(latents, steps)
        return self.decode(following.flatten(0, 1)).mean.unflatten(0, following.shape[:2])

    # Terms

    def elbo_terms(self, inputs: Tensor, latents: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """`weighted_elbo` of hours `[N, C]`: Gaussian, summed over channels."""
        negative_log_likelihood = -self.decode(latents).log_prob(inputs).mean()
        return weighted_elbo(negative_log_likelihood, kl, self.weights.prior)

    def smoothness(self, latents: Tensor, winners: Tensor, layout: SeriesLayout) -> Tensor:
        """Latents `[N, L]` shall be near the winner `[N]` of one hour before; that of the first hour is its own."""
        winners = layout.series(winners)
        previous = layout.rows(torch.cat([winners[:, :1], winners[:, :-1]], dim=1))
        distances = (latents - self.centroids.detach()[previous]).square().sum(dim=1)
        return -assignment.student_t_kernel(distances, self.alpha).mean()

    def prediction_nll(self, latents: Tensor, layout: SeriesLayout) -> Tensor:
        """Negative log likelihood of each hour's successor in the latents `[N, L]`; the last hour succeeds itself."""
        latents = layout.series(latents)
        following = torch.cat([latents[:, 1:], latents[:, -1:]], dim=1)
        return -layout.rows(self.predict(latents).log_prob(following)).mean()

    # Phases

    def pretraining_loss(
        self, inputs: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Phase 1, the variational autoencoder alone."""
        terms = self.elbo_terms(*self._encode_series(inputs, SeriesLayout(inputs, mask), noise))
        return {"loss": terms["reconstruction"], **terms}

    def som_initialization_loss(
        self, inputs: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Phase 2: centroids move towards the latents, the networks' weights stay."""
        with torch.no_grad():
            _, latents, _ = self._encode_series(inputs, SeriesLayout(inputs, mask), noise)
        return self.initialization_terms(latents)

    def joint_loss(
        self, inputs: Tensor, target: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Phase 3: everything, with the target distribution `[B, T, K]` of the soft assignments."""
        weights, layout = self.weights, SeriesLayout(inputs, mask)
        rows, latents, kl = self._encode_series(inputs, layout, noise)
        distances = self.distances(latents)
        soft = assignment.student_t_assignment(distances, self.alpha)
        terms = self.elbo_terms(rows, latents, kl)
        terms["commitment"] = assignment.commitment_loss(layout.rows(target), soft)
        terms["som"] = assignment.soft_som_loss(soft.detach(), self.assign(latents.detach()), self.adjacency)
        terms["smoothness"] = self.smoothness(latents, distances.argmin(dim=1), layout)
        loss = (
            weights.theta * terms["reconstruction"]
            + weights.gamma * terms["commitment"]
            + weights.beta * terms["som"]
            + weights.kappa * terms["smoothness"]
        )
        if weights.eta > 0:
            terms["prediction"] = self.prediction_nll(latents.detach(), layout)
            loss = loss + weights.eta * terms["prediction"]
        return {"loss": loss, **terms}

    def prediction_loss(
        self, inputs: Tensor, mask: Tensor | None = None, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The forecaster alone, after each joint step and in phase 4: other weights stay, batch statistics go on."""
        layout = SeriesLayout(inputs, mask)
        with torch.no_grad():
            _, latents, _ = self._encode_series(inputs, layout, noise)
        return {"loss": self.prediction_nll(latents, layout)}

    def _encode_series(
        self, inputs: Tensor, layout: SeriesLayout, noise: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of series `[B, T, C]`: hours `[N, C]`, and what `encode` makes of them."""
        rows = layout.rows(inputs)
        return rows, *self.encode(rows, None if noise is None else layout.rows(noise))
