"""Gaussians of a variational autoencoder, read directly from the packed outputs of a network.

Both posteriors have one interface: `parameters` [B, P] -> reparameterised sample [B, L] and KL divergence to N(0, I)
[B]. The first L columns of `parameters` are the mean, the next L the raw diagonal of the scale (softplus makes it
positive), and `PosteriorFull` then has the L (L - 1) / 2 entries of its Cholesky factor strictly below the diagonal.
Parameters may be bfloat16 (autocast); samples, divergences and the diagonal are always at least float32.

The entries below the diagonal are stored folded, so that no [B, L, L] tensor is needed: row r of the triangle has r
entries, and two rows whose lengths add up to W share one row of a full [H, W] rectangle, where H = L // 2, and W is the
odd one of L - 1 and L. Row h of the rectangle holds row L - 1 - h of the triangle from the left and, backwards from the
right, row h + W - L + 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Independent, Normal

SCALE_MINIMUM = 1e-5


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def diagonal_gaussian(parameters: Tensor, scale_minimum: float) -> Independent:
    """N(loc, diag(scale²)) over the last axis, of the packed loc and raw scale `[..., 2 D]` that a network returned."""
    loc, raw = _at_least_float32(parameters).chunk(2, dim=-1)
    return Independent(Normal(loc, F.softplus(raw) + scale_minimum, validate_args=False), 1, validate_args=False)


class PosteriorDiagonal:
    """N(mean, diag(scale²)) with scale = softplus(raw) + `scale_minimum`; P = 2 L."""

    def __init__(self, latent_dim: int, scale_minimum: float = SCALE_MINIMUM):
        self.latent_dim = latent_dim
        self.scale_minimum = scale_minimum
        self.number_of_parameters = 2 * latent_dim

    def mean(self, parameters: Tensor) -> Tensor:
        """Mean [B, L] of the posterior with `parameters` [B, P]."""
        return _at_least_float32(parameters[:, : self.latent_dim])

    def scale_diagonal(self, parameters: Tensor) -> Tensor:
        """Standard deviations [B, L]."""
        return F.softplus(_at_least_float32(parameters[:, self.latent_dim :])) + self.scale_minimum

    def sample_and_kl(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sample mean + scale · noise [B, L] from standard normal `noise` [B, L]; KL to N(0, I) in nats [B]."""
        mean, scale = self.mean(parameters), self.scale_diagonal(parameters)
        kl = 0.5 * (scale.square() + mean.square() - 1).sum(1) - scale.log().sum(1)
        return mean + scale * noise, kl


class PosteriorFull:
    """N(mean, S Sᵀ) with a lower-triangular S of diagonal softplus(raw) + 1e-5; P = L + L (L + 1) / 2."""

    def __init__(self, latent_dim: int):
        self.latent_dim = latent_dim
        self.number_of_parameters = latent_dim + latent_dim * (latent_dim + 1) // 2

    def mean(self, parameters: Tensor) -> Tensor:
        """Mean [B, L] of the posterior with `parameters` [B, P]."""
        return _at_least_float32(parameters[:, : self.latent_dim])

    def scale_diagonal(self, parameters: Tensor) -> Tensor:
        """Diagonal [B, L] of S; the standard deviations of the marginals are the norms of the rows of S."""
        raw = parameters[:, self.latent_dim : 2 * self.latent_dim]
        return F.softplus(_at_least_float32(raw)) + SCALE_MINIMUM

    def sample_and_kl(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sample mean + S · noise [B, L] from standard normal `noise` [B, L]; KL to N(0, I) in nats [B]."""
        return _PackedCholesky.apply(parameters, noise)

    def scale_tril(self, parameters: Tensor) -> Tensor:
        """S as a dense [B, L, L] tensor: for inspection, not for training."""
        row, column = torch.tril_indices(self.latent_dim, self.latent_dim, device=parameters.device)
        packed = torch.cat([self.scale_diagonal(parameters), parameters[:, 2 * self.latent_dim :]], 1)
        dense = packed.new_zeros(len(parameters), self.latent_dim, self.latent_dim)
        dense[:, row, column] = packed[:, self.positions().to(parameters.device)[row, column]]
        return dense

    def positions(self) -> Tensor:
        """[L, L]: place of each entry of S among the L (L + 1) / 2 parameters after the mean; -1 above the diagonal."""
        size = self.latent_dim
        _, width = _rectangle(size)
        row, column = torch.arange(size)[:, None], torch.arange(size)[None]
        from_left = (size - 1 - row) * width + column
        from_right = (row - (width - size + 1)) * width + width - 1 - column
        below = size + torch.where(row >= size - size // 2, from_left, from_right)
        return torch.where(row == column, row, torch.where(row > column, below, -1))

    def tfp_order(self) -> Tensor:
        """[L (L + 1) / 2]: position here of each number of TensorFlow Probability's `fill_triangular` order.

        With v the numbers in that order, S is the lower triangle of concat(v[L:], reverse(v)) reshaped to [L, L]. The
        rows of a TensorFlow head (after its L means) become ours by `weight[L + tfp_order()] = tensorflow_weight[L:]`.
        """
        size = self.latent_dim
        numbers = torch.arange(size * (size + 1) // 2)
        theirs = torch.cat([numbers[size:], numbers.flip(0)]).reshape(size, size)
        row, column = torch.tril_indices(size, size)
        order = torch.empty_like(numbers)
        order[theirs[row, column]] = self.positions()[row, column]
        return order


def _rectangle(size: int) -> tuple[int, int]:
    """Height and width of the rectangle into which a strict triangle of `size` rows folds."""
    height = size // 2
    return height, size - 1 + size % 2


def _fold(noise: Tensor) -> tuple[Tensor, Tensor]:
    """The noise [B, L] that each entry of the rectangle multiplies, as two [B, H, W] tensors: one for the rows filled
    from the left and one for those from the right, each zero where the other is not."""
    size = noise.shape[1]
    height, width = _rectangle(size)
    column, row = torch.arange(width, device=noise.device), torch.arange(height, device=noise.device)
    left = (column < size - 1 - row[:, None]).to(noise.dtype)
    noise = noise[:, None, :width]
    return noise * left, noise.flip(2) * (1 - left)


class _PackedCholesky(torch.autograd.Function):
    """Sample and divergence of `PosteriorFull`; the gradient is written once, in the layout of the parameters."""

    @staticmethod
    def forward(ctx, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        batch, size = noise.shape
        height, width = _rectangle(size)
        mean, raw = _at_least_float32(parameters[:, : 2 * size]).chunk(2, 1)
        diagonal = F.softplus(raw) + SCALE_MINIMUM
        below = parameters[:, 2 * size :].view(batch, height, width)

        left_noise, right_noise = _fold(noise.to(parameters.dtype))
        left, right = ((below * folded).sum(2, dtype=mean.dtype) for folded in (left_noise, right_noise))
        sample = mean + diagonal * noise
        sample[:, size - 2 * height :] += torch.cat([right, left.flip(1)], 1)

        squares = torch.linalg.vector_norm(below, dim=(1, 2), dtype=mean.dtype).square()
        squares += (diagonal.square() + mean.square()).sum(1)
        kl = 0.5 * (squares - size) - diagonal.log().sum(1)
        ctx.save_for_backward(parameters, noise, left_noise, right_noise)
        return sample, kl

    @staticmethod
    @once_differentiable
    def backward(ctx, sample_gradient: Tensor, kl_gradient: Tensor) -> tuple[Tensor, None]:
        parameters, noise, left_noise, right_noise = ctx.saved_tensors
        batch, size = noise.shape
        height, width = _rectangle(size)
        mean, raw = _at_least_float32(parameters[:, : 2 * size]).chunk(2, 1)
        diagonal = F.softplus(raw) + SCALE_MINIMUM
        kl_gradient = kl_gradient[:, None]

        gradient = parameters * kl_gradient.to(parameters.dtype)
        gradient[:, :size] = sample_gradient + kl_gradient * mean
        gradient[:, size : 2 * size] = (
            sample_gradient * noise + kl_gradient * (diagonal - 1 / diagonal)
        ) * torch.sigmoid(raw)
        rows = sample_gradient[:, size - 2 * height :, None].to(parameters.dtype)
        below = gradient[:, 2 * size :].view(batch, height, width)
        below.addcmul_(rows.flip(1)[:, :height], left_noise).addcmul_(rows[:, :height], right_noise)
        return gradient, None
