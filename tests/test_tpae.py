"""TPAE's model: what its loss terms are, which way gradients flow, and that its shortcuts change nothing."""

import math
from dataclasses import asdict, replace

from experiments import tpae
from experiments.ingredients.compute import autocast
from experiments.ingredients.data import Split
from experiments.measures.metrics import topology_metrics
from models.grid import Grid
from models.soft_som import SoftSOM
from models.tpae import PHASES, TPAE, Block, LossWeights, PlainCNN
from models.tpae_networks import Fusion, Residual, encoder_of

import numpy as np
import pytest
import torch
import torch.nn.functional as F

ONE_EACH = LossWeights(*[1.0] * 8)
SHAPE, CLASSES, GRID, LATENT_DIM = (3, 8, 12), 4, Grid(3, 4, torus=False), 5


def model(weights=ONE_EACH, shape=SHAPE, classes=CLASSES, grid=GRID, **changes):
    torch.manual_seed(0)
    options = dict(
        blocks=2,
        encoder="published",
        width=4,
        latent_dim=LATENT_DIM,
        sampling="native",
        normalize_latents=False,
        temperature=0.4,
        assignment="soft",
        recompute=False,
    )
    return TPAE(shape, classes, grid, weights=weights, **options | changes)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, *SHAPE, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])


def only(name):
    return replace(LossWeights(*[0.0] * 8), **{name: 1.0})


def gradients(net, loss):
    """Names of the parameters that a loss has a gradient for."""
    net.zero_grad()
    loss.backward()
    return {name for name, value in net.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}


# Shapes


@pytest.mark.parametrize("through_maps", [True, False])
def test_the_last_reconstruction_is_left_out_where_nobody_looks_at_it(batch, through_maps):
    net = model(blocks=3)
    drawn = []
    for number, block in enumerate(net.blocks):
        block.fusion.register_forward_hook(lambda *_, number=number: drawn.append(number))
    whole, short = net(batch[0], through_maps), net(batch[0], through_maps, last_reconstruction=False)
    assert drawn == [0, 1, 2, 0, 1]
    assert short[-1].reconstruction is None
    for one, other in zip(whole, short, strict=True):
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.assignment.weights, other.assignment.weights)
    drawn.clear()
    net.winners(batch[0]), net.logits(batch[0]), net.map_loss(*batch, 1.0), net.discriminator_loss(*batch)
    assert drawn == [0, 1] * 4


@pytest.mark.parametrize("sampling", ["native", "downsampled"])
@pytest.mark.parametrize("encoder", ["published", "residual"])
def test_shapes(batch, sampling, encoder):
    net = model(sampling=sampling, encoder=encoder)
    seen = net(batch[0])
    assert len(seen) == 2
    for one in seen:
        assert one.latents.shape == (6, LATENT_DIM)
        assert one.assignment.weights.shape == one.assignment.distances.shape == (6, GRID.size)
        assert one.reconstruction.shape == batch[0].shape
    assert net.classify(seen).shape == (6, CLASSES)
    assert all(picture.shape == batch[0].shape for picture in net.pictures(seen))
    assert PlainCNN(SHAPE, CLASSES, encoder, 4).logits(batch[0]).shape == (6, CLASSES)


def test_as_published_it_has_the_published_codes_parameters():
    net = model(replace(ONE_EACH, adversarial=0.0), (3, 32, 32), 10, Grid(10, 10, False), blocks=5, latent_dim=64)
    encoder = 6 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + (64 * 8 * 8 + 64) * 64 + 64
    prototypes, auxiliary = 100 * 64, 3 * 16 * 9 + 16 + 16 * 10 + 10
    prototype_decoder = 64 * 64 * 8 * 8 + 64 * 8 * 8 + 64 * 32 * 16 + 32 + 32 * 3 * 16 + 3
    fusion = (3 + 64) * 64 * 9 + 64 + 64 * 32 * 9 + 32 + 32 * 3 * 9 + 3
    assert sum(p.numel() for p in net.parameters()) == 64 * 10 + 10 + 5 * (
        encoder + prototypes + auxiliary + prototype_decoder + fusion
    )


@pytest.mark.parametrize(("sampling", "sides"), [("native", (8, 12)), ("downsampled", (2, 3))])
def test_what_the_fusion_decoder_sees(batch, sampling, sides):
    net, seen = model(sampling=sampling), []
    net.blocks[0].fusion.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0]))
    assert net(batch[0])[0].reconstruction.shape == batch[0].shape
    expected = batch[0] if sampling == "native" else batch[0].view(6, 3, 2, 4, 3, 4).mean(dim=(3, 5))
    assert seen[0].shape[2:] == sides
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("shape", [(1, 10, 8), (1, 8, 10), (1, 4, 4)])
def test_pictures_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="must be multiples of 4 from 8 on, not"):
        model(shape=shape)


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="greater than 0, not 0"):
        model(temperature=0.0)


# The fusion decoder's shortcut


@pytest.mark.parametrize("sides", [(2, 2), (2, 5), (7, 4)])
def test_nine_values_are_the_whole_convolution(sides):
    torch.manual_seed(0)
    fusion = Fusion(3, LATENT_DIM).double()
    pictures = torch.rand(4, 3, *sides, dtype=torch.float64)
    blended = torch.randn(4, LATENT_DIM, dtype=torch.float64, requires_grad=True)
    joined = torch.cat([pictures, blended[:, :, None, None].expand(-1, -1, *sides)], dim=1)
    plain = fusion.rest(fusion.first(joined)).float().sigmoid()
    short = fusion(pictures, blended)
    torch.testing.assert_close(short, plain)
    wanted = [blended, fusion.first.weight, fusion.first.bias]
    for fast, slow in zip(
        torch.autograd.grad(short.square().sum(), wanted),
        torch.autograd.grad(plain.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(fast, slow)


def test_computing_again_instead_of_keeping_changes_no_gradient(batch):
    kept, again = model(), model(recompute=True)
    for net in (kept, again):
        net.loss("joint", *batch, sigma=1.0)["loss"].backward()
    for (name, first), (_, second) in zip(kept.named_parameters(), again.named_parameters(), strict=True):
        if first.grad is not None:
            torch.testing.assert_close(first.grad, second.grad, msg=name)


# The soft map


def test_weights_are_a_softmax_over_distances_and_blend_the_prototypes():
    torch.manual_seed(0)
    som = SoftSOM(GRID, LATENT_DIM, temperature=0.4)
    latents = torch.randn(7, LATENT_DIM)
    seen = som(latents)
    for i, latent in enumerate(latents):
        scores = [math.exp(-(latent - prototype).norm().item() / 0.4) for prototype in som.prototypes]
        weights = torch.tensor([score / sum(scores) for score in scores])
        torch.testing.assert_close(seen.weights[i], weights, rtol=1e-4, atol=1e-6)
        blended = sum(weight * prototype for weight, prototype in zip(weights, som.prototypes, strict=True))
        torch.testing.assert_close(seen.blended[i], blended, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_on_a_prototype():
    som = SoftSOM(GRID, LATENT_DIM, temperature=0.4)
    latents = som.prototypes.detach().clone().requires_grad_()
    som(latents).blended.square().sum().backward()
    assert latents.grad.isfinite().all()
    assert som.prototypes.grad.isfinite().all()


def test_hard_assignment_is_the_nearest_prototype_with_the_soft_ones_gradient():
    torch.manual_seed(0)
    soft, hard = SoftSOM(GRID, LATENT_DIM, 0.4), SoftSOM(GRID, LATENT_DIM, 0.4, "hard")
    hard.load_state_dict(soft.state_dict())
    latents = torch.randn(7, LATENT_DIM, requires_grad=True)
    nearest = soft.prototypes[torch.cdist(latents, soft.prototypes).argmin(dim=1)]
    torch.testing.assert_close(hard(latents).blended, nearest)
    direction = torch.randn(7, LATENT_DIM)
    (of_soft,) = torch.autograd.grad((soft(latents).blended * direction).sum(), latents)
    (of_hard,) = torch.autograd.grad((hard(latents).blended * direction).sum(), latents)
    torch.testing.assert_close(of_hard, of_soft)


def test_gumbel_noise_is_drawn_in_training_alone():
    torch.manual_seed(0)
    som, latents = SoftSOM(GRID, LATENT_DIM, 0.4, "gumbel"), torch.randn(2000, LATENT_DIM)
    first, second = som(latents).weights, som(latents).weights
    assert not torch.equal(first, second)
    som.eval()
    soft = som(latents).weights
    assert torch.equal(soft, som(latents).weights)
    winners = F.one_hot(first.argmax(dim=1), GRID.size).float().mean(dim=0)  # drawn with the soft probabilities
    torch.testing.assert_close(winners, soft.mean(dim=0), rtol=0, atol=0.04)


# Loss terms against plain loops


def test_neighbourhood_term():
    torch.manual_seed(0)
    som, latents, sigma = SoftSOM(GRID, LATENT_DIM, 0.4), torch.randn(7, LATENT_DIM), 0.8
    total = 0.0
    for latent in latents:
        squared = [(latent - prototype).square().sum() for prototype in som.prototypes]
        winner = min(range(GRID.size), key=lambda j: squared[j])
        steps = (GRID.coordinates - GRID.coordinates[winner]).float().norm(dim=1)
        h = [math.exp(-(step.item() ** 2) / (2 * sigma**2)) for step in steps]
        total += sum(a * b for a, b in zip(h, squared, strict=True)) / sum(h) / LATENT_DIM
    torch.testing.assert_close(som.neighbourhood(som(latents).distances, sigma), total / 7)


def test_pairwise_term():
    torch.manual_seed(0)
    som, latents = SoftSOM(GRID, LATENT_DIM, 0.4), torch.randn(20, LATENT_DIM)
    distances = som(latents).distances
    cells = GRID.coordinates[distances.argmin(dim=1)].tolist()
    of_pairs = [
        (latents[i] - latents[j]).square().mean().item()
        for i, (row, column) in enumerate(cells)
        for j, (other_row, other_column) in enumerate(cells)
        if abs(row - other_row) + abs(column - other_column) == 1
    ]
    assert len(of_pairs) > 10
    assert som.pairwise(latents, distances).item() == pytest.approx(sum(of_pairs) / len(of_pairs), rel=1e-4)
    alone = latents[:1]
    assert som.pairwise(alone, som(alone).distances).item() == 0


def test_diversity_term():
    som = SoftSOM(GRID, LATENT_DIM, 0.4)
    even = torch.full((5, GRID.size), 1 / GRID.size)
    assert som.diversity(even).item() == pytest.approx(0, abs=1e-6)
    assert som.diversity(torch.eye(GRID.size)).item() == pytest.approx(0, abs=1e-6)
    one = F.one_hot(torch.zeros(5, dtype=torch.long), GRID.size).float().requires_grad_()
    assert som.diversity(one).item() == pytest.approx(1)
    (gradient,) = torch.autograd.grad(som.diversity(one), one)
    assert gradient.isfinite().all()
    half = torch.eye(GRID.size)[[0, 1]]
    assert som.diversity(half).item() == pytest.approx(1 - math.log(2) / math.log(GRID.size))


def test_the_loss_is_the_weighted_sum_of_its_phases_terms(batch):
    weights = LossWeights(*[0.5 + number for number in range(8)])
    net = model(weights)
    for phase, names in PHASES.items():
        terms = net.loss(phase, *batch, sigma=1.0)
        assert set(terms) == {"loss", "training_accuracy", *names}
        expected = sum(asdict(weights)[name] * terms[name] for name in names)
        torch.testing.assert_close(terms["loss"], expected)


def test_errors_and_cross_entropies(batch):
    net = model()
    inputs, labels = batch
    terms, seen = net.loss("joint", *batch, sigma=1.0), net(inputs)
    torch.testing.assert_close(
        terms["reconstruction"], sum((one.reconstruction - inputs).square().mean() for one in seen)
    )
    torch.testing.assert_close(
        terms["pictures"], sum((picture - inputs).square().mean() for picture in net.pictures(seen))
    )
    torch.testing.assert_close(
        terms["classification"], F.cross_entropy(net.classifier(seen[-1].assignment.blended), labels)
    )
    judged = net.discriminator(net.pictures(seen)[-1])
    torch.testing.assert_close(terms["adversarial"], -judged.sigmoid().log().mean())


# Where gradients flow


def test_topology_moves_encoders_and_prototypes_but_no_decoder(batch):
    for name in ("neighbourhood", "pairwise", "diversity"):
        net = model(only(name), blocks=1)
        with torch.no_grad():  # so that winners are different and neighbours of each other
            net.blocks[0].som.prototypes[:6] = net(batch[0])[0].latents + 1e-3
        moved = gradients(net, net.loss("joint", *batch, sigma=1.0)["loss"])
        assert {"blocks.0.to_latent.weight", "blocks.0.features.0.weight"} <= moved
        assert ("blocks.0.som.prototypes" in moved) == (name != "pairwise")
        assert not any(
            "fusion" in key or "decoder" in key or "classifier" in key or "auxiliary" in key for key in moved
        )


def test_organising_moves_prototypes_alone(batch):
    net = model(only("neighbourhood"))
    terms = net.map_loss(*batch, sigma=1.0)
    assert gradients(net, terms["loss"]) == {"blocks.0.som.prototypes", "blocks.1.som.prototypes"}
    seen = net(batch[0], through_maps=False)
    for one in seen:
        assert torch.equal(one.assignment.blended, one.latents)
    expected = sum(
        block.som.neighbourhood(one.assignment.distances, 1.0) for block, one in zip(net.blocks, seen, strict=True)
    )
    torch.testing.assert_close(terms["loss"], expected)


def test_reconstructing_leaves_the_maps_alone(batch):
    net = model()
    moved = gradients(net, net.loss("reconstruct", *batch, sigma=1.0)["loss"])
    assert {"blocks.0.to_latent.weight", "blocks.1.prototype_decoder.0.weight"} <= moved
    assert not any("som" in name or "classifier" in name for name in moved)


def test_a_later_block_trains_the_earlier_ones(batch):
    net = model(only("classification"))
    moved = gradients(net, net.loss("joint", *batch, sigma=1.0)["loss"])
    assert {"blocks.0.fusion.first.weight", "blocks.0.som.prototypes", "blocks.1.som.prototypes"} <= moved
    assert "blocks.1.fusion.first.weight" not in moved  # nothing reads the last reconstruction
    assert not any("prototype_decoder" in key for key in moved)


def test_generator_and_discriminator_train_apart(batch):
    net = model(only("adversarial"))
    moved = gradients(net, net.loss("joint", *batch, sigma=1.0)["loss"])
    assert "blocks.1.prototype_decoder.0.weight" in moved
    assert not any(key.startswith("discriminator") for key in moved)
    moved = gradients(net, net.discriminator_loss(*batch)["loss"])
    assert moved == {name for name, _ in net.named_parameters() if name.startswith("discriminator")}


def test_the_discriminator_learns_to_tell_pictures_apart(batch):
    net = model(only("adversarial"))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = net.discriminator_loss(*batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2 * math.log(2), rel=0.2)
    assert losses[-1] < 0.2


def test_without_its_weight_there_is_no_discriminator():
    assert not hasattr(model(replace(ONE_EACH, adversarial=0.0)), "discriminator")


# Topology


def test_the_neighbourhood_term_unfolds_a_map_and_its_absence_leaves_it_folded():
    """Points of a square: with a shrinking neighbourhood the map gets ordered, with the winner alone it does not."""
    torch.manual_seed(0)
    grid, points = Grid(6, 6, torus=False), torch.rand(1000, 2) * 4
    errors = {}
    for name, first in (("with", 2.5), ("without", 0.1)):
        torch.manual_seed(1)
        som = SoftSOM(grid, 2, temperature=0.4)
        optimizer = torch.optim.Adam(som.parameters(), lr=0.05)
        for sigma in np.geomspace(first, 0.5 if name == "with" else 0.1, 300):
            optimizer.zero_grad()
            som.neighbourhood(som(points[torch.randperm(1000)[:200]]).distances, float(sigma)).backward()
            optimizer.step()
        found = topology_metrics(points.numpy(), som.prototypes.detach().numpy(), grid)
        errors[name] = found["topographic_error"]
    assert errors["with"] < 0.05
    assert errors["without"] > 0.3


def test_normalised_latents_have_no_scale_to_lose(batch):
    latents = model(normalize_latents=True)(batch[0])[0].latents
    torch.testing.assert_close(latents.mean(dim=1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.var(dim=1, unbiased=False), torch.ones(6), atol=5e-2, rtol=0)


def test_encoders_name_the_size_of_their_features():
    for kind in ("published", "residual"):
        features, size = encoder_of(kind, 3, (16, 8), 4)
        assert features(torch.rand(2, 3, 16, 8)).shape == (2, size)


def test_a_residual_block_adds_what_it_computes():
    block, features = Residual(3).eval(), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(block(features) - features, block.branch(features))


def test_the_auxiliary_classifiers_see_the_pictures_of_their_maps(batch):
    net, (inputs, labels) = model(), batch
    pictures = net.pictures(net(inputs))
    expected = sum(F.cross_entropy(b.auxiliary(p), labels) for b, p in zip(net.blocks, pictures, strict=True))
    torch.testing.assert_close(net.loss("joint", inputs, labels, sigma=1.0)["auxiliary"], expected)


def test_each_block_sees_what_the_one_before_made_of_the_picture(batch, monkeypatch):
    net, seen, encode = model(blocks=3), [], Block.encode
    monkeypatch.setattr(Block, "encode", lambda self, *given: seen.append(given[1:]) or encode(self, *given))
    made = net(batch[0])
    assert torch.equal(seen[0][0], batch[0])
    assert not seen[0][1].any()
    for (reconstruction, blended), before in zip(seen[1:], made[:2], strict=True):
        assert torch.equal(reconstruction, before.reconstruction)
        assert torch.equal(blended, before.assignment.blended)


def test_metrics_are_those_of_their_split_their_block_and_their_decoder(monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    net = model().eval()
    generator = torch.Generator().manual_seed(0)
    splits = {
        name: Split(torch.rand(size, *SHAPE, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for name, size in (("train", 20), ("validation", 23), ("test", 26))
    }
    found = tpae.final_metrics(net, splits["train"], {name: splits[name] for name in ("validation", "test")})
    for name, split in splits.items():
        with torch.no_grad():
            seen = net(split.inputs)
            pictures = net.pictures(seen)
        right = net.classify(seen).argmax(dim=1) == split.labels
        assert found[f"{name}/classifier_accuracy"] == pytest.approx(right.float().mean().item())
        for block, (one, picture) in enumerate(zip(seen, pictures, strict=True), start=1):
            for metric, shown in (("reconstruction_error", one.reconstruction), ("picture_error", picture)):
                expected = F.mse_loss(shown, split.inputs).item()
                assert found[f"{name}/block{block}_{metric}"] == pytest.approx(expected, rel=1e-5)
