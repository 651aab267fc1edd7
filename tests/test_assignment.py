"""Soft assignment and the losses built on it, against their formulas written out as loops."""

import math

from models import assignment
from models.dpsom import DPSOM, LossWeights
from models.grid import Grid

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

GRIDS = [
    Grid(3, 4, torus=True),
    Grid(3, 4, torus=False),
    Grid(2, 5, torus=True),
    Grid(1, 4, torus=False),
    Grid(1, 1, torus=True),
]


def name(grid):
    return f"{grid.shape[0]}x{grid.shape[1]}{'-torus' if grid.torus else ''}"


patient = settings(deadline=None)  # the machine may be busy
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=name)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(grid, batch=7, dim=3, dtype=torch.float32):
    """Points and centroids that a gradient can reach."""
    return torch.randn(batch, dim, dtype=dtype).requires_grad_(), torch.randn(grid.size, dim).requires_grad_()


def q_of(points, centroids, alpha=10.0):
    return assignment.student_t_assignment(assignment.squared_distances(points, centroids), alpha)


@patient
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.floats(0.01, 100))
def test_squared_distances_are_those_of_cdist(batch, units, dim, scale):
    points, centroids = scale * torch.randn(batch, dim), scale * torch.randn(units, dim)
    expected = torch.cdist(points.double(), centroids.double()).square()
    found = assignment.squared_distances(points, centroids)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * scale**2 * dim)


def test_squared_distances_are_never_negative():
    points = 1000 + 1e-3 * torch.randn(200, 20)
    assert (assignment.squared_distances(points, points) >= 0).all()


def test_squared_distances_keep_their_precision_under_autocast():
    points, centroids = torch.randn(20, 100), torch.randn(9, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = assignment.squared_distances(points.bfloat16(), centroids)
    assert torch.equal(found, assignment.squared_distances(points.bfloat16().float(), centroids))


@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_assignment_is_the_normalised_student_t_kernel(alpha):
    distances = torch.rand(5, 8) * 30
    rows = []
    for row in distances.tolist():
        kernel = [1e-7 + 1 / (1 + distance / alpha) ** ((alpha + 1) / 2) for distance in row]
        rows.append([value / sum(kernel) for value in kernel])
    torch.testing.assert_close(assignment.student_t_assignment(distances, alpha), torch.tensor(rows))


@patient
@given(st.integers(1, 20), st.floats(0.5, 20), st.floats(0, 1e12))
def test_rows_of_the_assignment_sum_to_one_at_any_distance(units, alpha, farthest):
    soft = assignment.student_t_assignment(torch.rand(4, units) * farthest, alpha)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))
    assert (soft > 0).all()


def test_target_distribution_against_numpy():
    soft = torch.rand(50, 6).softmax(dim=1)
    weight = soft.numpy() ** 2 / soft.numpy().sum(axis=0)
    expected = weight / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(assignment.target_distribution(soft), expected, rtol=1e-5)


def test_target_distribution_sharpens_balanced_assignments():
    soft = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    assert assignment.target_distribution(soft)[0, 0] == pytest.approx(0.49 / 0.58)


def test_commitment_loss_is_the_mean_divergence():
    soft, target = torch.rand(5, 4).softmax(dim=1), torch.rand(5, 4).softmax(dim=1)
    target[0, 1] = 0.0  # 0 log 0 = 0
    divergence = sum(
        p * (math.log(p) - math.log(q))
        for p_row, q_row in zip(target.tolist(), soft.tolist(), strict=True)
        for p, q in zip(p_row, q_row, strict=True)
        if p
    )
    assert assignment.commitment_loss(target, soft).item() == pytest.approx(divergence / 5, rel=1e-5)


@every_grid
def test_soft_som_loss_is_the_double_sum_over_units_and_their_neighbours(grid):
    soft, of_neighbours = (torch.rand(6, grid.size).softmax(dim=1) for _ in range(2))
    total = 0.0
    for row, logarithms in zip(soft.tolist(), of_neighbours.log().tolist(), strict=True):
        for unit, around in enumerate(grid.neighbours.tolist()):
            total -= row[unit] * sum(logarithms[neighbour] for neighbour in around if neighbour != -1)
    found = assignment.soft_som_loss(soft, of_neighbours, assignment.adjacency_matrix(grid))
    assert found.item() == pytest.approx(total / 6, rel=1e-5, abs=1e-7)


@every_grid
def test_adjacency_counts_every_neighbour(grid):
    counts = assignment.adjacency_matrix(grid)
    for unit, around in enumerate(grid.neighbours.tolist()):
        assert counts[unit].tolist() == [around.count(other) for other in range(grid.size)]


@every_grid
def test_neighbourhood_loss_puts_the_zero_vector_beyond_the_edge(grid):
    points, centroids = draw(grid)
    winners = torch.randint(grid.size, (len(points),))
    squares = []
    for point, winner in zip(points.tolist(), winners.tolist(), strict=True):
        for unit in [winner, *grid.neighbours[winner].tolist()]:
            vector = [0.0] * len(point) if unit == -1 else centroids[unit].tolist()
            squares += [(value - other) ** 2 for value, other in zip(point, vector, strict=True)]
    found = assignment.neighbourhood_loss(points, centroids, winners, grid.neighbours)
    assert found.item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_neighbourhood_loss_pulls_the_winner_and_its_neighbours_only():
    grid = Grid(4, 4, torus=False)
    points, centroids = draw(grid, batch=1)
    assignment.neighbourhood_loss(points, centroids, torch.tensor([0]), grid.neighbours).backward()
    assert centroids.grad.any(dim=1).nonzero().flatten().tolist() == [0, 1, 4]


# What the gradient of each loss reaches


def test_commitment_moves_points_and_centroids():
    grid = GRIDS[0]
    points, centroids = draw(grid)
    target = assignment.target_distribution(q_of(points, centroids)).detach()
    assignment.commitment_loss(target, q_of(points, centroids)).backward()
    assert points.grad.any(dim=1).all()
    assert centroids.grad.any(dim=1).all()


@pytest.fixture(params=["full", "diagonal"])
def dpsom(request, monkeypatch):
    monkeypatch.setattr("models.networks.DENSE_WIDTHS", (8, 8, 16))
    return DPSOM(
        (1, 4, 4),
        Grid(2, 3, torus=True),
        latent_dim=3,
        network="dense",
        posterior=request.param,
        normalization="affine",
        normalize_before=False,
        dropout=0.0,
        leaky_logits=False,
        alpha=10.0,
        weights=LossWeights(theta=1.0, gamma=20.0, beta=0.25, prior=0.5),
    )


def reached(dpsom, loss):
    """Parts of the model with a gradient that is not zero."""
    dpsom.zero_grad()
    loss.backward()
    return {
        key.partition(".")[0]
        for key, parameter in dpsom.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_each_loss_of_dpsom_reaches_the_parts_it_should(dpsom):
    inputs = torch.rand(5, 1, 4, 4)
    with torch.no_grad():
        target = assignment.target_distribution(dpsom.assign(dpsom.mean(inputs)))
    everything = {"encoder", "decoder", "centroids"}
    assert reached(dpsom, dpsom.pretraining_loss(inputs)["loss"]) == everything - {"centroids"}
    assert reached(dpsom, dpsom.som_initialization_loss(inputs)["loss"]) == {"centroids"}
    assert reached(dpsom, dpsom.joint_loss(inputs, target)["som"]) == {"centroids"}
    assert reached(dpsom, dpsom.joint_loss(inputs, target)["commitment"]) == {"encoder", "centroids"}
    assert reached(dpsom, dpsom.joint_loss(inputs, target)["reconstruction"]) == {"encoder", "decoder"}
    assert reached(dpsom, dpsom.joint_loss(inputs, target)["loss"]) == everything


def test_the_gradient_of_the_map_is_that_of_the_logarithm_alone(dpsom):
    """`q_ij` that weighs is a constant: differences of the loss with it held fixed give the gradient."""
    inputs, noise, grid = torch.rand(5, 1, 4, 4), torch.randn(5, 3), dpsom.grid
    target = torch.full((5, grid.size), 1 / grid.size)
    dpsom.zero_grad()
    dpsom.joint_loss(inputs, target, noise)["som"].backward()
    latents = dpsom.encode(inputs, noise)[0].detach().double()
    centroids = dpsom.centroids.detach().double()

    def q(centroids):
        kernel = (1 + torch.cdist(latents, centroids).square() / dpsom.alpha) ** (-(dpsom.alpha + 1) / 2) + 1e-7
        return kernel / kernel.sum(dim=1, keepdim=True)

    def loss(moved):
        return -torch.einsum("ij,jn,in->i", q(centroids), dpsom.adjacency.double(), q(moved).log()).mean()

    for entry in ((0, 0), (3, 2), (5, 1)):
        step = torch.zeros_like(centroids)
        step[entry] = 1e-5
        slope = (loss(centroids + step) - loss(centroids - step)) / 2e-5
        assert dpsom.centroids.grad[entry].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def test_losses_of_dpsom_add_up(dpsom):
    inputs, noise = torch.rand(5, 1, 4, 4), torch.randn(5, 3)
    target = torch.rand(5, dpsom.grid.size).softmax(dim=1)
    terms = {key: value.item() for key, value in dpsom.joint_loss(inputs, target, noise).items()}
    latents, kl = dpsom.encode(inputs, noise)
    pictures = dpsom.decode(latents)
    likelihood = inputs * pictures.log() + (1 - inputs) * (1 - pictures).log()
    assert terms["negative_log_likelihood"] == pytest.approx(-likelihood.sum().item() / 5, rel=1e-5)
    assert terms["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    assert terms["reconstruction"] == pytest.approx(terms["negative_log_likelihood"] + 0.5 * terms["kl"], rel=1e-5)
    expected = terms["reconstruction"] + 20 * terms["commitment"] + 0.25 * terms["som"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert dpsom.pretraining_loss(inputs, noise)["loss"].item() == pytest.approx(terms["reconstruction"], rel=1e-6)


def test_autocast_rounds_no_assignment():
    torch.manual_seed(0)
    points, centroids = torch.randn(20, 5), torch.randn(6, 5)
    adjacency = assignment.adjacency_matrix(Grid(2, 3, torus=True))

    def losses():
        soft = assignment.student_t_assignment(assignment.squared_distances(points, centroids), alpha=10.0)
        return soft, assignment.soft_som_loss(soft, soft, adjacency)

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(losses(), plain, strict=True))
