"""Is it a self-organising map? Kohonen's rule from the loss's gradient, order and fit of trained maps, minisom."""

import io

from experiments.engine.optimization import MomentumSGD, PhasedAdam
from experiments.measures.metrics import topology_metrics
from models.grid import Grid, gaussian_neighbourhood
from models.topography import LatentTopography, Topography

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minisom import MiniSom
from sklearn.datasets import load_digits
from torch import nn

shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))
sigmas = st.floats(0.3, 6.0)
metrics = st.sampled_from(["euclidean", "manhattan", "chebyshev"])
seeds = st.integers(0, 2**31)


def problem(shape, seed, batch=7, dimension=3, torus=False, **options):
    """A map in double precision and a batch, both random; lengths far from 1."""
    torch.manual_seed(seed)
    topography = Topography(dimension, Grid(*shape, torus), **options).double()
    with torch.no_grad():
        topography.centroids.mul_(torch.rand(topography.grid.size, 1) * 3 + 0.5)
    return topography, 2 * torch.randn(batch, dimension, dtype=torch.float64)


def gradient(topography, inputs, sigma):
    topography.zero_grad()
    topography.loss(inputs, sigma)["loss"].backward()
    return topography.centroids.grad


def batch_direction(points, centroids, grid, metric, sigma):
    """Kohonen's `mean_i h_ij (x_i - w_j)`, `[K, D]`, and h `[B, K]`, by NumPy loops from the definition."""
    winners = [min(range(grid.size), key=lambda unit: np.sum((x - centroids[unit]) ** 2)) for x in points]
    norm = {"manhattan": 1, "euclidean": 2, "chebyshev": np.inf}[metric]
    weights = np.empty((len(points), grid.size))
    for sample, winner in enumerate(winners):
        for unit in range(grid.size):
            steps = np.abs(np.subtract(divmod(winner, grid.shape[1]), divmod(unit, grid.shape[1])))
            steps = np.minimum(steps, np.subtract(grid.shape, steps)) if grid.torus else steps
            weights[sample, unit] = np.exp(-(np.linalg.norm(steps, norm) ** 2) / (2 * sigma**2))
    return np.einsum("ij,ijd->jd", weights, points[:, None] - centroids[None]) / len(points), weights


# The gradient


@settings(max_examples=50)
@given(shapes, sigmas, metrics, st.booleans(), seeds)
def test_minus_half_the_gradient_is_kohonens_batch_direction(shape, sigma, metric, torus, seed):
    topography, inputs = problem(shape, seed, torus=torus, grid_metric=metric)
    direction, _ = batch_direction(
        inputs.numpy(), topography.centroids.detach().numpy(), Grid(*shape, torus=torus), metric, sigma
    )
    np.testing.assert_allclose(-0.5 * gradient(topography, inputs, sigma), direction, rtol=1e-5, atol=1e-6)


@settings(max_examples=50)
@given(shapes, sigmas, seeds)
def test_on_the_unit_sphere_it_is_that_directions_tangent_part_divided_by_the_units_length(shape, sigma, seed):
    topography, inputs = problem(shape, seed, unit_norm=True)
    centroids = topography.centroids.detach().numpy()
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    units, points = centroids / lengths, inputs.numpy() / np.linalg.norm(inputs.numpy(), axis=1, keepdims=True)
    direction, _ = batch_direction(points, units, Grid(*shape, torus=False), "euclidean", sigma)
    tangent = direction - (direction * units).sum(axis=1, keepdims=True) * units
    np.testing.assert_allclose(-0.5 * gradient(topography, inputs, sigma), tangent / lengths, rtol=1e-5, atol=1e-6)


def test_it_vanishes_at_the_batch_maps_means():
    """Iterating Kohonen's batch rule until the winners stay: a fixed point of both."""
    topography, inputs = problem((3, 4), seed=0, batch=60)
    assert gradient(topography, inputs, 1.0).abs().max() > 0.1
    for _ in range(40):
        centroids = topography.centroids.detach().numpy()
        _, weights = batch_direction(inputs.numpy(), centroids, topography.grid, "euclidean", 1.0)
        with torch.no_grad():
            topography.centroids.copy_(torch.from_numpy(weights.T @ inputs.numpy() / weights.sum(axis=0)[:, None]))
    assert gradient(topography, inputs, 1.0).abs().max() < 1e-6


def test_nothing_passes_through_the_choice_of_the_winner():
    """The loss's true slope, by finite differences where no winner changes, is the gradient."""
    topography, inputs = problem((2, 3), seed=1)
    start = topography.centroids.detach()

    def loss(centroids):
        return torch.func.functional_call(_Loss(topography), {"topography.centroids": centroids}, (inputs, 0.8))

    assert torch.autograd.gradcheck(loss, start.clone().requires_grad_(), eps=1e-6, atol=1e-6)


class _Loss(nn.Module):
    def __init__(self, topography):
        super().__init__()
        self.topography = topography

    def forward(self, inputs, sigma):
        return self.topography.loss(inputs, sigma)["loss"]


@pytest.mark.parametrize("unit_norm", [False, True])
def test_gradients_are_finite_where_a_unit_meets_an_input(unit_norm):
    topography, inputs = problem((2, 3), seed=2, batch=6, unit_norm=unit_norm)
    with torch.no_grad():
        topography.centroids.copy_(inputs)
    terms = topography.loss(inputs, 0.5)
    assert terms["to_winner"].item() == pytest.approx(0, abs=1e-12)
    found = gradient(topography, inputs, 0.5)
    assert found.isfinite().all()
    assert found.abs().max() > 0  # a winner's neighbours are pulled all the same


# The neighbourhood


@given(metrics, sigmas)
def test_a_winner_counts_fully_and_others_less_with_their_distance(metric, sigma):
    distances = Grid(4, 5, torus=False).distances(metric)
    strength = gaussian_neighbourhood(distances, sigma)
    assert torch.equal(strength.diagonal(), torch.ones(20))
    nearer = distances[:, :, None] < distances[:, None, :]
    assert (strength[:, :, None] >= strength[:, None, :])[nearer].all()
    assert torch.allclose(gaussian_neighbourhood(torch.tensor(sigma), sigma), torch.tensor(0.5).exp().reciprocal())


# A layer like any other


@pytest.mark.parametrize("options", [{}, {"torus": True, "grid_metric": "manhattan"}, {"unit_norm": True}])
def test_saved_and_loaded_it_is_the_same_map(options):
    topography, inputs = problem((3, 4), seed=3, **options)
    file = io.BytesIO()
    torch.save(topography.state_dict(), file)
    file.seek(0)
    loaded, _ = problem((3, 4), seed=4, **options)
    assert not torch.equal(loaded.winners(inputs), topography.winners(inputs))
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded.loss(inputs, 1.0)["loss"], topography.loss(inputs, 1.0)["loss"])
    assert torch.equal(loaded.winners(inputs), topography.winners(inputs))


def test_the_grid_moves_with_the_layer():
    topography, inputs = problem((3, 4), seed=4)
    exact, winners = topography.loss(inputs, 1.0)["loss"].item(), topography.winners(inputs)
    topography.float()
    assert {tensor.dtype for tensor in topography.state_dict().values()} == {torch.float32}
    assert torch.equal(topography.winners(inputs.float()), winners)
    assert topography.loss(inputs.float(), 1.0)["loss"].item() == pytest.approx(exact, rel=1e-5)
    topography.to("meta")  # a device that every machine has
    assert {tensor.device.type for tensor in topography.state_dict().values()} == {"meta"}
    assert not [name for name, value in vars(topography).items() if isinstance(value, torch.Tensor)]  # none left behind


@pytest.mark.gpu
def test_on_cuda_as_on_the_cpu():
    topography, inputs = problem((3, 4), seed=5)
    on_cpu = topography.loss(inputs, 1.0)["loss"].item(), gradient(topography, inputs, 1.0).clone()
    topography.cuda()
    assert topography.loss(inputs.cuda(), 1.0)["loss"].item() == pytest.approx(on_cpu[0], rel=1e-9)
    torch.testing.assert_close(gradient(topography, inputs.cuda(), 1.0).cpu(), on_cpu[1])


# What it learns


def trained(points, sigma, rates=(0.05, 0.005), optimizer=PhasedAdam, epochs=20, shape=(8, 8), seed=0):
    """Quantisation and topographic error of a map whose neighbourhood goes geometrically from `sigma[0]` to `[1]`."""
    torch.manual_seed(seed)
    topography = Topography(points.shape[1], Grid(*shape, torus=False))
    steps = optimizer(topography.parameters())
    for width, rate in zip(np.geomspace(*sigma, epochs), np.geomspace(*rates, epochs), strict=True):
        for batch in torch.randperm(len(points))[: len(points) // 50 * 50].view(-1, 50):
            steps.zero_grad()
            topography.loss(points[batch], width)["loss"].backward()
            steps.step_at(rate)
    found = topology_metrics(points.numpy(), topography.centroids.detach().numpy(), topography.grid)
    return found["quantization_error"], found["topographic_error"]


SQUARE = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
DIGITS = torch.from_numpy(load_digits().data[:1000] / 16).float()
"""Bounds of quantisation and topographic error. A perfect 8 x 8 lattice on the square would have .048."""
BOUNDS = {"square": (SQUARE, 0.065, 0.02), "digits": (DIGITS, 1.5, 0.08)}


@pytest.mark.parametrize("data", BOUNDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_shrinking_neighbourhood_the_map_unfolds(data, seed):
    points, most_quantization, most_topographic = BOUNDS[data]
    quantization, topographic = trained(points, (4.0, 0.5), seed=seed)
    assert quantization < most_quantization
    assert topographic < most_topographic


@pytest.mark.parametrize("data", BOUNDS)
def test_fixed_at_5_it_stays_coarse(data):
    """Ordered it is, but a wide neighbourhood pulls all units to the middle of the data."""
    points, most_quantization, most_topographic = BOUNDS[data]
    quantization, topographic = trained(points, (5.0, 5.0))
    assert quantization > 1.2 * most_quantization
    assert topographic < most_topographic


@pytest.mark.parametrize("data", BOUNDS)
def test_fixed_at_one_half_it_stays_folded(data):
    points, most_quantization, most_topographic = BOUNDS[data]
    quantization, topographic = trained(points, (0.5, 0.5))
    assert quantization < most_quantization
    assert topographic > 2 * most_topographic


def test_gradient_descent_unfolds_it_too():
    """Its rate must rise while the neighbourhood shrinks: the loss's curvature for a unit is the mean of its h."""
    _, most_quantization, most_topographic = BOUNDS["square"]
    quantization, topographic = trained(SQUARE, (4.0, 0.5), (0.05, 1.0), MomentumSGD)
    assert quantization < most_quantization
    assert topographic < most_topographic


# minisom


@pytest.mark.parametrize("shape", [(8, 8), (3, 7)])
def test_winners_error_and_neighbourhood_are_minisoms(shape):
    points = DIGITS.double()
    som = MiniSom(*shape, points.shape[1], sigma=1.5, random_seed=0)
    som.train(points.numpy(), 2000)
    topography = Topography(points.shape[1], Grid(*shape, torus=False)).double()
    with torch.no_grad():
        topography.centroids.copy_(torch.from_numpy(som.get_weights()).flatten(0, 1))
    winners = topography.winners(points)
    assert winners.unique().numel() > 10
    assert winners.tolist() == [int(np.ravel_multi_index(som.winner(x), shape)) for x in points.numpy()]
    to_winner = topography.distances(points).amin(dim=1).sqrt().mean().item()
    assert to_winner == pytest.approx(som.quantization_error(points.numpy()), rel=1e-9)
    strength = gaussian_neighbourhood(topography.grid_distances[winners[0]], 1.5)
    expected = som.neighborhood(som.winner(points[0].numpy()), 1.5).flatten()
    np.testing.assert_allclose(strength.numpy(), expected, rtol=1e-6)


def test_one_step_of_gradient_descent_is_one_step_of_minisom():
    """A batch of one, at half of minisom's learning rate."""
    point = DIGITS[0].double()
    som = MiniSom(4, 5, 64, sigma=1.3, learning_rate=0.4, random_seed=0)
    topography = Topography(64, Grid(4, 5, torus=False)).double()
    with torch.no_grad():
        topography.centroids.copy_(torch.from_numpy(som.get_weights()).flatten(0, 1))
    som.update(point.numpy(), som.winner(point.numpy()), 0, 100)
    topography.loss(point[None], 1.3)["loss"].backward()
    torch.optim.SGD(topography.parameters(), lr=0.2).step()
    np.testing.assert_allclose(topography.centroids.detach().numpy(), som.get_weights().reshape(20, 64), atol=1e-7)


def test_a_map_of_latents_stays_out_of_its_autoencoder():
    torch.manual_seed(0)
    inputs = torch.rand(8, 1, 4, 4)
    topography = LatentTopography((1, 4, 4), 3, Grid(2, 3, torus=False))
    assert topography.units().shape == (6, 3)
    assert topography.reconstruct(inputs).shape == inputs.shape
    torch.testing.assert_close(topography.features(inputs), topography.encoder(inputs).detach())
    topography.loss(inputs, sigma=1.0)["loss"].backward()
    assert [name for name, value in topography.named_parameters() if value.grad is not None] == ["centroids"]
    topography.zero_grad()
    loss = topography.autoencoder_loss(inputs)["loss"]
    decoded = topography.decode(topography.encode(inputs), (1, 4, 4))
    torch.testing.assert_close(loss.detach(), (decoded.detach() - inputs).square().mean())
    loss.backward()
    assert topography.centroids.grad is None
