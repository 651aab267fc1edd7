from models.gaussian import PosteriorDiagonal, PosteriorFull

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def draw(posterior, batch=5, dtype=torch.float64):
    parameters = torch.randn(batch, posterior.number_of_parameters, dtype=dtype)
    return parameters, torch.randn(batch, posterior.latent_dim, dtype=dtype)


def reference(posterior, parameters):
    """The posterior as a torch distribution, with S filled one entry at a time."""
    size = posterior.latent_dim
    mean = parameters[:, :size]
    scale_diagonal = torch.nn.functional.softplus(parameters[:, size : 2 * size]) + 1e-5
    if isinstance(posterior, PosteriorDiagonal):
        return MultivariateNormal(mean, scale_tril=torch.diag_embed(scale_diagonal))
    positions = posterior.positions().tolist()
    rows = []
    for row in range(size):
        below = [parameters[:, size + positions[row][column]] for column in range(row)]
        above = [torch.zeros_like(mean[:, 0])] * (size - 1 - row)
        rows.append(torch.stack([*below, scale_diagonal[:, row], *above], 1))
    return MultivariateNormal(mean, scale_tril=torch.stack(rows, 1))


def standard_normal(size, dtype):
    return MultivariateNormal(torch.zeros(size, dtype=dtype), torch.eye(size, dtype=dtype))


POSTERIORS = [PosteriorDiagonal(1), PosteriorDiagonal(6)] + [PosteriorFull(size) for size in (1, 2, 3, 4, 9, 10)]


def name(posterior):
    return f"{type(posterior).__name__}-{posterior.latent_dim}"


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 100])
def test_positions_are_a_bijection_with_the_diagonal_first(size):
    positions = PosteriorFull(size).positions()
    assert torch.equal(positions.diagonal(), torch.arange(size))
    rows, columns = torch.tril_indices(size, size)
    assert torch.equal(positions[rows, columns].sort().values, torch.arange(size * (size + 1) // 2))
    assert (positions.triu(1) == torch.full((size, size), -1).triu(1)).all()


def test_number_of_parameters_of_the_paper():
    assert PosteriorFull(100).number_of_parameters == 5150
    assert PosteriorDiagonal(100).number_of_parameters == 200


@pytest.mark.parametrize("posterior", POSTERIORS, ids=name)
def test_sample_and_divergence_equal_the_dense_distribution(posterior):
    parameters, noise = draw(posterior)
    dense = reference(posterior, parameters)
    sample, kl = posterior.sample_and_kl(parameters, noise)
    torch.testing.assert_close(sample, dense.loc + (dense.scale_tril @ noise[:, :, None])[:, :, 0])
    torch.testing.assert_close(kl, kl_divergence(dense, standard_normal(posterior.latent_dim, kl.dtype)))
    torch.testing.assert_close(posterior.mean(parameters), dense.loc)
    torch.testing.assert_close(posterior.scale_diagonal(parameters), dense.scale_tril.diagonal(dim1=1, dim2=2))


@pytest.mark.parametrize("posterior", POSTERIORS, ids=name)
def test_gradients_equal_those_through_the_dense_distribution(posterior):
    parameters, noise = draw(posterior)
    parameters.requires_grad_()
    sample_weights, kl_weights = torch.randn_like(noise), torch.randn(len(noise), dtype=noise.dtype)

    def gradient(sample, kl):
        return torch.autograd.grad((sample * sample_weights).sum() + (kl * kl_weights).sum(), parameters)[0]

    dense = reference(posterior, parameters)
    dense_sample = dense.loc + (dense.scale_tril @ noise[:, :, None])[:, :, 0]
    dense_kl = kl_divergence(dense, standard_normal(posterior.latent_dim, noise.dtype))
    torch.testing.assert_close(gradient(*posterior.sample_and_kl(parameters, noise)), gradient(dense_sample, dense_kl))


@pytest.mark.parametrize("posterior", POSTERIORS, ids=name)
def test_gradcheck(posterior):
    parameters, noise = draw(posterior, batch=2)
    assert torch.autograd.gradcheck(lambda p: posterior.sample_and_kl(p, noise), parameters.requires_grad_())


def test_divergence_is_the_mean_log_density_ratio_of_the_samples():
    posterior = PosteriorFull(4)
    parameters, noise = draw(posterior, batch=1)
    noise = torch.randn(200_000, 4, dtype=noise.dtype)
    sample, kl = posterior.sample_and_kl(parameters.expand(len(noise), -1), noise)
    dense = MultivariateNormal(posterior.mean(parameters)[0], scale_tril=posterior.scale_tril(parameters)[0])
    ratio = dense.log_prob(sample) - Normal(0.0, 1.0).log_prob(sample).sum(1)
    assert (ratio.mean() - kl[0]).abs() < 5 * ratio.std() / len(ratio) ** 0.5


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 100])
def test_tfp_order_fills_the_triangle_as_tensorflow_probability_does(size):
    posterior = PosteriorFull(size)
    mean, numbers = torch.randn(1, size), torch.randn(1, size * (size + 1) // 2)
    square = torch.cat([numbers[:, size:], numbers.flip(1)], 1).reshape(1, size, size)
    expected = square.tril(-1) + torch.diag_embed(torch.nn.functional.softplus(square.diagonal(dim1=1, dim2=2)) + 1e-5)
    packed = torch.empty_like(numbers)
    packed[:, posterior.tfp_order()] = numbers
    torch.testing.assert_close(posterior.scale_tril(torch.cat([mean, packed], 1)), expected)


@pytest.mark.parametrize("posterior", [PosteriorDiagonal(100), PosteriorFull(100), PosteriorFull(9)], ids=name)
def test_bfloat16_parameters_give_float32_results_close_to_float32_parameters(posterior):
    parameters, noise = draw(posterior, batch=7, dtype=torch.float32)
    parameters = (0.3 * parameters).bfloat16().requires_grad_()
    exact = parameters.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        results = posterior.sample_and_kl(parameters, noise)
    expected = posterior.sample_and_kl(exact, noise)
    assert results[0].dtype == results[1].dtype == torch.float32
    assert (results[0] - expected[0]).norm() < 5e-3 * expected[0].norm()
    torch.testing.assert_close(results[1], expected[1], rtol=1e-5, atol=1e-4)
    (results[0].sum() + results[1].mean()).backward()
    (expected[0].sum() + expected[1].mean()).backward()
    assert parameters.grad.dtype == torch.bfloat16
    assert (parameters.grad.float() - exact.grad).norm() < 5e-3 * exact.grad.norm()


@pytest.mark.parametrize("posterior", [PosteriorDiagonal(9), PosteriorFull(9)], ids=name)
def test_can_be_traced_by_torch_compile_without_graph_breaks(posterior):
    parameters, noise = draw(posterior)
    compiled = torch.compile(posterior.sample_and_kl, backend="aot_eager", fullgraph=True)
    gradients = []
    for function in (posterior.sample_and_kl, compiled):
        leaf = parameters.clone().requires_grad_()
        sample, kl = function(leaf, noise)
        (sample.square().sum() + kl.sum()).backward()
        gradients.append((sample, kl, leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("posterior", [PosteriorDiagonal(5), PosteriorFull(5)], ids=name)
def test_extreme_raw_diagonals_stay_finite(posterior):
    parameters, noise = draw(posterior, dtype=torch.float32)
    parameters[:, 5:10] = torch.tensor([-200.0, -50.0, 0.0, 50.0, 200.0])
    parameters.requires_grad_()
    sample, kl = posterior.sample_and_kl(parameters, noise)
    (sample.sum() + kl.sum()).backward()
    assert sample.isfinite().all()
    assert kl.isfinite().all()
    assert parameters.grad.isfinite().all()


def test_scale_minimum_can_be_dropped():
    posterior = PosteriorDiagonal(3, scale_minimum=0.0)
    parameters, _ = draw(posterior)
    assert torch.equal(posterior.scale_diagonal(parameters), torch.nn.functional.softplus(parameters[:, 3:]))


@pytest.mark.gpu
@pytest.mark.parametrize("posterior", [PosteriorDiagonal(100), PosteriorFull(100), PosteriorFull(9)], ids=name)
def test_cuda_equals_cpu(posterior):
    parameters, noise = draw(posterior)
    gradients = []
    for device in ("cpu", "cuda"):
        moved = parameters.to(device, copy=True).requires_grad_()
        sample, kl = posterior.sample_and_kl(moved, noise.to(device))
        (sample.square().sum() + kl.sum()).backward()
        gradients.append((sample.cpu(), kl.cpu(), moved.grad.cpu()))
    torch.testing.assert_close(gradients[0], gradients[1])
