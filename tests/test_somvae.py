"""SOM-VAE: what its losses say and reach, its sequences, and the experiment from its command line to its record."""

from functools import partial
from pathlib import Path

from experiments import somvae
from experiments.errors import UserError
from experiments.ingredients.compute import autocast
from experiments.ingredients.data import Dataset, Split
from experiments.ingredients.series import by_saturated_pixels, evaluated_series, interpolate, of_next_class, sequences
from models import somvae_networks
from models.grid import Grid
from models.somvae import SOMVAE, LossWeights

import command_line
import pytest
import torch
import torch.nn.functional as F
import yaml

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = {path.stem for path in (FOLDER / "somvae").glob("*.yaml")}
SHORT = "fast training.joint_epochs=1 data.limit=100 "
STATIC = "series.enabled=False loss.gamma=0.0 loss.tau=0.0 "
PICTURES = {"decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions"}
SERIES_PICTURES = {"transition_graph", "paths_on_map", "sampled_paths"}

run = partial(command_line.run, somvae.ex)


@pytest.fixture(scope="module", autouse=True)
def narrow_networks(in_process):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(somvae_networks, "DENSE_WIDTHS", (16, 8))
        patch.setattr(somvae_networks, "CHANNELS", 32)
        yield


def images(count):
    """From dark to bright, so that they win different units."""
    return torch.rand(count, 1, 4, 8) * torch.linspace(0, 1, count).view(-1, 1, 1, 1)


def model(gradients="full", network="dense", gamma_twice=False, torus=False):
    torch.manual_seed(0)
    weights = LossWeights(alpha=1.5, beta=0.9, gamma=1.8, tau=1.4, gamma_twice=gamma_twice)
    made = SOMVAE((1, 4, 8), Grid(2, 3, torus), latent_dim=3, network=network, gradients=gradients, weights=weights)
    with torch.no_grad():
        made.centroids.copy_(made.encode(images(6)) + 0.01 * torch.randn(6, 3))
        made.transition_logits.normal_()
    return made


# Configs


@pytest.mark.parametrize(
    ("with_transitions", "without"),
    [
        *((f"somvae/{data}_series", f"somvae/{data}_series_no_transitions") for data in ("mnist", "fmnist")),
        *(
            (f"stays_baselines/{data}_somvae_prob", f"stays_baselines/{data}_somvae")
            for data in ("eicu", "lorenz", "physionet2012")
        ),
    ],
)
def test_transitions_alone_tell_such_rows_apart(with_transitions, without):
    """Each of their batches counts two steps, so that half as many batches' steps make the same learning rate."""
    ours, theirs = (yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in (with_transitions, without))
    assert ours.pop("loss")["gamma"] > 0 == theirs.pop("loss").get("gamma", 0)
    theirs["training"]["decay_steps"] *= 2
    ours["training"].pop("transition_learning_rate", None)
    assert ours == theirs


@pytest.mark.parametrize("path", sorted((FOLDER / "somvae").glob("*_original_rates.yaml")), ids=lambda path: path.stem)
def test_learning_rates_and_precision_alone_tell_the_originals_apart(path):
    ours = yaml.safe_load(path.with_stem(path.stem.removesuffix("_original_rates")).read_text())
    theirs = yaml.safe_load(path.read_text())
    ours.pop("compute", None)
    steps = 2 if ours["loss"].get("gamma") else 1  # of a batch
    for config, rates in (ours, (0.001, 2000 * steps)), (theirs, (0.0005, 500 * steps)):
        assert (config["training"].pop("learning_rate"), config["training"].pop("decay_steps")) == rates
    assert ours == theirs


@pytest.mark.parametrize("row", ["mnist", "fmnist", "mnist_vqvae", "fmnist_vqvae"])
def test_precision_alone_tells_such_rows_apart(row):
    bf16, fp32 = (yaml.safe_load((FOLDER / f"somvae/{row}{ending}.yaml").read_text()) for ending in ("", "_fp32"))
    assert (bf16.pop("compute"), fp32.pop("compute")) == ({"precision": "bf16"}, {"precision": "fp32"})
    assert bf16 == fp32


# What the losses reach


def reached(made, loss):
    """Parts of the model to which a loss sends a gradient that is not zero."""
    named = dict(made.named_parameters())
    gradients = torch.autograd.grad(loss, named.values(), retain_graph=True, allow_unused=True)
    return {
        name.partition(".")[0]
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and gradient.any()
    }


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize(
    ("gradients", "through_q", "through_e"),
    [
        ("full", {"decoder_q", "centroids"}, {"decoder_e", "encoder"}),
        ("straight_through", {"decoder_q", "encoder"}, None),
        ("none", {"decoder_q", "centroids"}, None),
    ],
)
def test_what_each_decoder_trains(gradients, through_q, through_e, network):
    made = model(gradients, network)
    terms = made.joint_loss(images(5))
    assert reached(made, terms["reconstruction_q"]) == through_q
    if through_e:
        assert reached(made, terms["reconstruction_e"]) == through_e
    else:
        assert "reconstruction_e" not in terms
        assert made.decoder_e is None


def test_what_the_other_losses_train():
    made, inputs = model(), images(5)
    terms = made.joint_loss(inputs)
    assert reached(made, terms["commitment"]) == {"encoder", "centroids"}
    assert reached(made, terms["som"]) == {"centroids"}
    assert reached(made, terms["transition"]) == {"transition_logits"}
    assert reached(made, terms["smoothness"]) == {"encoder", "centroids", "transition_logits"}
    assert reached(made, made.transition_loss(inputs)["loss"]) == {"transition_logits"}


def test_the_copied_gradient_is_that_of_the_centroid():
    made, inputs = model("straight_through"), images(5)
    latents = made.encode(inputs).detach().requires_grad_()
    winners = made.distances(latents).argmin(dim=1)
    quantized = made.centroids[winners].detach().requires_grad_()
    copied = made.reconstruction_terms(inputs, latents, winners)["reconstruction_q"]
    (given,) = torch.autograd.grad(copied, latents)
    (own,) = torch.autograd.grad((made.decode(quantized) - inputs).square().mean(), quantized)
    torch.testing.assert_close(given, own)


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_decoding_every_centroid_once_equals_decoding_every_sample(network):
    made, inputs = model(network=network).double(), images(40).double()
    latents = made.encoder(inputs).detach()
    winners = made.distances(latents).argmin(dim=1)
    assert len(winners.unique()) > 2
    parameters = [made.centroids, *made.decoder_q.parameters()]
    once, every = made.decode_winners(latents, winners), made.decode(made.centroids[winners])
    torch.testing.assert_close(once, every)
    gradients = [torch.autograd.grad((pictures - inputs).square().mean(), parameters) for pictures in (once, every)]
    torch.testing.assert_close(*gradients)


def test_evaluation_sees_each_image_as_its_nearest_centroid(monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    made, inputs = model(network="conv"), images(40)
    latents = made.encode(inputs)
    torch.testing.assert_close(somvae.reconstructed(made, latents), made.decode(made.quantize(latents)))


# What they say


@pytest.mark.parametrize("gamma_twice", [False, True])
@pytest.mark.parametrize("torus", [False, True])
def test_losses_equal_plain_loops(torus, gamma_twice):
    made, inputs = model(torus=torus, gamma_twice=gamma_twice), images(7)
    assert len(made.distances(made.encode(inputs)).argmin(dim=1).unique()) > 2
    terms = {name: value.item() for name, value in made.joint_loss(inputs).items()}
    latents, centroids = made.encode(inputs).double(), made.centroids.double()
    probabilities = made.transition_logits.double().softmax(dim=1)
    height, width = 2, 3
    commitment = som = nll = smoothness = 0.0
    previous = None
    for latent in latents:
        distances = [(latent - centroid).square().sum() for centroid in centroids]
        winner = min(range(6), key=lambda unit: distances[unit])
        row, column = divmod(winner, width)
        group = [centroids[winner]]
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            r, c = row + down, column + right
            if torus:
                r, c = r % height, c % width
            inside = 0 <= r < height and 0 <= c < width
            group.append(centroids[r * width + c] if inside else torch.zeros(3))
        commitment += (latent - centroids[winner]).square().mean().item() / 7
        som += sum((latent - centroid).square().mean().item() for centroid in group) / 5 / 7
        source = winner if previous is None else previous
        nll -= probabilities[source, winner].log().item() / 7
        smoothness += sum(p * d for p, d in zip(probabilities[source], distances, strict=True)).item() / 6 / 7
        previous = winner
    assert terms["commitment"] == pytest.approx(commitment, rel=1e-4)
    assert terms["som"] == pytest.approx(som, rel=1e-4)
    assert terms["transition"] == pytest.approx(nll, rel=1e-4)
    assert terms["smoothness"] == pytest.approx(smoothness, rel=1e-4)
    assert made.transition_loss(inputs)["loss"].item() == pytest.approx(1.8 * nll, rel=1e-4)
    gamma = 1.8 * 1.8 if gamma_twice else 1.8
    reconstruction = terms["reconstruction_q"] + terms["reconstruction_e"]
    total = reconstruction + 1.5 * commitment + 0.9 * som + gamma * nll + 1.4 * smoothness
    assert terms["loss"] == pytest.approx(total, rel=1e-4)


def test_sequences_one_behind_the_other_are_each_their_own():
    made = model()
    one, other = images(5), images(5).flip(0)
    both = made.joint_loss(torch.cat([one, other]), torch.arange(10) % 5 == 0)
    apart = [made.joint_loss(inputs) for inputs in (one, other)]
    for name, value in both.items():
        torch.testing.assert_close(value, (apart[0][name] + apart[1][name]) / 2)
    assert not torch.isclose(both["transition"], made.joint_loss(torch.cat([one, other]))["transition"])


def test_a_map_of_the_values_themselves_learns_by_commitment_and_neighbourhood_alone():
    weights = LossWeights(alpha=1.0, beta=0.9, gamma=0.0, tau=0.0)
    made = SOMVAE(
        (1, 4, 8), Grid(2, 3, False), latent_dim=32, network="identity", gradients="straight_through", weights=weights
    )
    inputs = images(7)
    terms = made.joint_loss(inputs)
    (found,) = torch.autograd.grad(terms["loss"], made.centroids, retain_graph=True)
    (expected,) = torch.autograd.grad(terms["commitment"] + 0.9 * terms["som"], made.centroids)
    assert expected.any()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(made.decode(inputs.flatten(1)), inputs, atol=1e-5, rtol=0)


def test_a_map_without_order_pays_for_no_transitions():
    made = model()
    made.weights = LossWeights(alpha=1.0, beta=0.9, gamma=0.0, tau=0.0)
    assert set(made.joint_loss(images(5))) == {*("loss", "reconstruction_q", "reconstruction_e", "commitment", "som")}


def test_transition_probabilities_start_equal():
    made = SOMVAE(
        (1, 4, 4), Grid(2, 2, False), latent_dim=2, network="dense", gradients="full",
        weights=LossWeights(1.0, 1.0, 1.0, 1.0),
    )  # fmt: skip
    assert torch.equal(made.transition_probabilities(), torch.full((4, 4), 0.25))


def test_a_transition_table_of_another_map_is_refused():
    state = model().state_dict()
    state["transition_logits"] = torch.zeros(9, 9)
    with pytest.raises(RuntimeError, match=r"size mismatch for transition_logits.*\[9, 9\].*\[6, 6\]"):
        model().load_state_dict(state)


# Sequences


def test_transitions_have_a_rate_of_their_own():
    made = model()
    training = dict(joint_epochs=4, learning_rate=0.001, transition_learning_rate=0.05)
    (phase,) = somvae.phases(made, torch.zeros(7), lambda **batch: batch, training)
    assert [(update.loss, update.learning_rates) for update in phase.updates] == [
        (made.joint_loss, (0.001,)), (made.transition_loss, (0.05,)),
    ]  # fmt: skip


def test_the_error_is_that_of_what_the_map_sees(monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    made, split = model(), Split(images(40), torch.arange(40) % 3)
    with torch.no_grad():
        latents = made.encode(split.inputs)
        expected = F.mse_loss(made.decode(made.quantize(latents)), split.inputs).item()
        assert somvae.final_metrics(made, split, latents)["reconstruction_error"] == pytest.approx(expected)


def frames_by_loop(start, end, length):
    """As the original builds them, where it can: its fade divides by zero below six frames."""
    resting, fading = int(length * 0.3), int(length * ((1 - 0.3) / 2))
    between = [start + index / (fading - 1) * (end - start) for index in range(fading)]
    return torch.cat([start] * resting + between + [end] * (length - resting - fading))


@pytest.mark.parametrize("length", [6, 7, 20, 32, 100])
def test_frames_equal_a_plain_loop(length):
    start, end = torch.rand(2, 1, 3, 4, 5).unbind()
    torch.testing.assert_close(interpolate(start, end, length), frames_by_loop(start, end, length))


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_short_sequences_begin_and_end_where_they_should(length):
    frames = interpolate(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), length)
    assert len(frames) == length
    assert frames[0].unique().tolist() == [0.0]
    assert frames[-1].unique().tolist() == [1.0]


def ramp(count=60, classes=3):
    """Training images of which each is recognised by its value."""
    inputs = torch.arange(count).float().div(count).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Split(inputs, torch.arange(count) % classes)


def test_sequences_lead_to_any_image_of_the_next_class():
    train = ramp()
    draw = of_next_class(train, 3)
    for label, following in ((0, 1), (1, 2), (2, 0)):
        drawn = draw(train.inputs[:1].expand(2000, -1, -1, -1), torch.full((2000,), label))
        assert set(train.labels[drawn].tolist()) == {following}
        counts = torch.bincount(drawn, minlength=60)[train.labels == following]
        assert (counts - 100).abs().max() < 50  # 2000 draws of 20 images: five standard deviations


def test_saturated_pixels_are_drawn_as_often_as_the_comparison_of_images_finds_them():
    train = Split(torch.randint(0, 4, (12, 1, 3, 3), generator=torch.Generator().manual_seed(1)) / 3, torch.zeros(12))
    images = train.inputs.double()
    draw = by_saturated_pixels(train, 3)
    for start in range(3):
        found = torch.nonzero(images == (images[start] + 1) % 10)[:, 0]  # labels[i] is an image in the original
        expected = torch.bincount(found, minlength=12) / len(found)
        drawn = torch.stack([draw(train.inputs[start : start + 1], None) for _ in range(3000)]).flatten()
        shares = torch.bincount(drawn, minlength=12) / 3000
        assert (shares - expected).abs().max() < 0.05
        assert set(drawn.tolist()) == set(found.tolist())


def test_one_step_sees_one_sequence():
    train = ramp()
    sequence = sequences(train, 3, 10, enabled=True, end="next_class", noise=0.0)
    frames = sequence(train.inputs[30:40], train.labels[30:40])["inputs"]
    assert frames.shape == (10, 1, 2, 2)
    assert torch.equal(frames[0], train.inputs[30])
    faded = torch.stack([interpolate(train.inputs[30:31], image[None], 10)[-1] for image in train.inputs])
    (end,) = (faded == frames[-1]).flatten(1).all(dim=1).nonzero().flatten().tolist()
    assert train.labels[end] == (train.labels[30] + 1) % 3
    noisy = sequences(train, 3, 10, enabled=True, end="next_class", noise=0.01)
    torch.manual_seed(0)
    spread = torch.cat([noisy(train.inputs, train.labels)["inputs"][0] - train.inputs[0] for _ in range(500)])
    assert spread.std().item() == pytest.approx(0.01, rel=0.1)


def test_evaluated_sequences_are_the_same_for_every_seed_and_labelled_frame_by_frame():
    split = ramp()
    dataset = Dataset("ramp", split, split, split, ("a", "b", "c"), "")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = evaluated_series(dataset, 10, end="next_class", noise=0.0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    for name, part in evaluated_series(dataset, 10, end="next_class", noise=0.0).items():
        assert torch.equal(part.inputs, found[name].inputs)
    assert len(found["train"].inputs) == 6  # an epoch of 60 images in batches of 10
    part = found["test"]
    assert part.inputs.shape == (60, 10, 1, 2, 2)
    first, last = part.labels[:, 0], part.labels[:, -1]
    assert sorted(first.tolist()) == sorted(split.labels.tolist())
    assert torch.equal(last, (first + 1) % 3)
    shown = [(frames[[0, -1]].mean(dim=(1, 2, 3)), frames.mean(dim=(1, 2, 3))) for frames in part.inputs]
    for labels, (ends, values) in zip(part.labels, shown, strict=True):
        nearer = (values[:, None] - ends).abs().argmin(dim=1)
        clear = ((values[:, None] - ends).abs().diff(dim=1).abs() > 0.05).flatten()
        assert torch.equal(labels[clear], labels[[0, -1]][nearer][clear])


def test_images_stay_images_without_series():
    assert sequences(ramp(), 3, 10, enabled=False, end="next_class", noise=0.01) is None


def test_a_set_without_saturated_pixels_says_so():
    with pytest.raises(UserError, match=r"saturated_pixels finds no end .* use series.end=next_class"):
        by_saturated_pixels(ramp(), 3)


# The experiment


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    finished = run(tmp_path_factory.mktemp("fast"), "fast seed=3", tensorboard=True)
    assert finished.status == 0, finished.errors
    return finished


def test_a_run_leaves_its_result_its_record_and_its_pictures(fast):
    assert fast.output.splitlines()[-1] == f"run folder: {fast.folder}"
    record = fast.record
    assert (record["experiment"], record["seed"], record["status"]) == ("somvae", 3, "COMPLETED")
    assert set(record["config"]) == {
        *("seed", "resume", "model", "loss", "data", "series", "compute", "training", "evaluation", "tracking")
    }
    assert [(row["phase"], row["epoch"]) for row in record["curve"]] == [("joint", 1), ("joint", 2), ("joint", 3)]
    terms = {"reconstruction_q", "reconstruction_e", "commitment", "som", "transition", "smoothness"}
    assert terms < set(record["curve"][-1])
    assert {path.stem for path in (fast.folder / "figures").glob("*.png")} == PICTURES | SERIES_PICTURES
    assert list((fast.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_it_learns(fast):
    first, *_, last = fast.record["curve"]
    for term in ("loss", "reconstruction_e", "transition"):
        assert last[term] < first[term]


def test_the_seed_decides_the_numbers(fast, tmp_path):
    assert run(tmp_path / "same", "fast seed=3").metrics == fast.metrics
    assert run(tmp_path / "other", "fast seed=4").metrics != fast.metrics


@pytest.mark.parametrize(
    "settings",
    [
        STATIC + "model.network=conv model.torus=True compute.precision=bf16",
        STATIC + "model.gradients=straight_through data.image_size=5 model.map_size='[1, 3]'",
        STATIC + "model.gradients=none data.validation_fraction=None",
        "series.end=saturated_pixels loss.gamma_twice=True training.shuffle=False evaluation.whole_batches=True",
        "loss.gamma=0.0 training.batch_size=2",
        STATIC + "model.network=identity model.latent_dim=64 model.gradients=straight_through",
        "loss.tau=0.0 model.map_size='[1, 1]'",
    ],
)
def test_models_of_many_kinds(tmp_path, settings):
    finished = run(tmp_path, SHORT + settings)
    assert finished.status == 0, finished.errors
    undefined = {"topographic_error", "topographic_error_4"} if "[1, 1]" in settings else set()
    assert {name.partition("/")[2] for name, value in finished.metrics.items() if value is None} == undefined
    pictures = PICTURES if STATIC in settings else PICTURES | SERIES_PICTURES
    assert {path.stem for path in (finished.folder / "figures").glob("*.png")} == pictures
    assert ("test_series/transition_nll" in finished.metrics) == ("loss.gamma=0.0" not in settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("training.batch_size=1", "a series of training.batch_size=1 frames is too short: it needs at least two"),
        ("model.map_size='[20, 20]'", "model.map_size=[20, 20] has more units than the 100 samples: lower it"),
        ("series.enabled=False", "loss.gamma and loss.tau need an order in time: use series.enabled=True, or set both"),
        ("data.limit=10 model.map_size='[2, 2]'", "series.end=next_class needs images of every class in every split"),
        (
            "model.network=conv data.image_size=10",
            "not 10 x 10: change data.image_size, model.latent_dim or",
        ),
        ("model.network=identity", "the identity needs as many latents as a sample has values, 64: change"),
        ("training.learning_rate=1e30", "is not finite in joint epoch 1: lower training.learning_rate"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, message):
    finished = run(tmp_path, SHORT + settings)
    assert finished.status == 2, finished.errors
    last = finished.errors.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in finished.errors
    assert not (finished.folder / "record.json").exists()


@pytest.mark.parametrize(("gradients", "status"), [("full", 2), ("straight_through", 2), ("none", 0)])
def test_a_collapsed_map_is_an_error_unless_it_is_what_the_ablation_shows(tmp_path, collapse, gradients, status):
    collapse(somvae)
    finished = run(tmp_path, SHORT + STATIC + f"model.gradients={gradients}")
    assert finished.status == status
    if status:
        assert finished.errors.splitlines()[-1].startswith("error: the map collapsed: after joint epoch 1 one unit")
    else:
        assert finished.metrics["validation/used_units"] == 1


def test_an_interrupted_run_ends_with_the_same_numbers(fast, tmp_path, monkeypatch):
    """Stopped within an epoch of sequences, whose ends and noise are drawn."""
    train_step, steps = somvae.Trainer._train_step, []

    def stopping(self, *arguments):
        train_step(self, *arguments)
        steps.append(None)
        if len(steps) == 25:
            self.signals.received = 2  # SIGINT

    monkeypatch.setattr(somvae.Trainer, "_train_step", stopping)
    interrupted = run(tmp_path, "fast seed=3")
    assert interrupted.status == 130, interrupted.errors
    monkeypatch.setattr(somvae.Trainer, "_train_step", train_step)
    resumed = run(tmp_path, f"resume={interrupted.folder}")
    assert resumed.status == 0, resumed.errors
    assert resumed.metrics == fast.metrics


def test_a_resumed_run_keeps_its_map(fast, tmp_path):
    """So no table of transitions meets a map of another size."""
    other = run(tmp_path, f"resume={fast.folder} model.map_size='[2, 2]'")
    assert other.status == 2
    assert other.errors.splitlines()[-1].startswith("error: model.map_size cannot change in a resumed run")


def test_the_published_settings_are_all_there():
    static = {f"{data}{units}" for data in ("mnist", "fmnist") for units in ("", "_k64", "_k512")}
    series = {f"{data}_series{ending}" for data in ("mnist", "fmnist") for ending in ("", "_no_transitions")}
    table_1 = {f"{data}_{row}" for data in ("mnist", "fmnist") for row in ("vqvae", "gbsom", "gradcopy", "no_grads")}
    others = {"mnist", "fmnist", "mnist_k64", "fmnist_k64", "mnist_series", "mnist_series_no_transitions"}
    rates = {f"{row}_original_rates" for row in table_1 | others}
    in_fp32 = {f"{data}{row}_fp32" for data in ("mnist", "fmnist") for row in ("", "_vqvae")}
    rest = {"mnist_dense", "fmnist_dense", "mnist_faithful", "mnist_notebook"}
    assert static | series | table_1 | rates | in_fp32 | rest | {"digits", "fast"} == CONFIGS
