"""T-DPSOM from its command line to its record, its forecast errors, and its speed."""

import csv
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from experiments import tdpsom
from experiments.analyses.forecasting import STEPS, forecast_errors, forecast_metrics
from experiments.analyses.stays_map import clinical_lines, draw_stays, often_visited
from experiments.datasets.stays import Channel, Description, Stays
from experiments.drawing.trajectories import TRAJECTORIES
from experiments.ingredients.compute import autocast
from experiments.ingredients.lorenz import WINGS
from experiments.measures.hours import Hours
from models.assignment import student_t_assignment, student_t_kernel, target_distribution
from models.grid import Grid
from models.tdpsom import TDPSOM, LossWeights
from scripts.scheduling.plan import resolve_config

import command_line
import numpy as np
import pytest
import torch

CHANNELS, HOURS = 5, 12
SPLITS = ("validation", "test")
PICTURES = {
    "hit_map", "u_matrix", "component_planes", "risk_wing", "trajectory", "forecast", "typical_stays",
}  # fmt: skip

run = partial(command_line.run, tdpsom.ex)


@pytest.fixture(scope="module", autouse=True)
def narrow_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.networks.DENSE_WIDTHS", (16, 8, 12))
        yield


@pytest.fixture(scope="module")
def fast(in_process, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), "fast")


def model(eta=1.0, normalization="affine"):
    torch.manual_seed(0)
    weights = LossWeights(theta=1.0, gamma=5.0, beta=2.0, kappa=3.0, eta=eta, prior=0.1)
    return TDPSOM(
        CHANNELS,
        Grid(3, 4, torus=True),
        latent_dim=3,
        lstm_units=6,
        recurrent_activation="sigmoid",
        normalization=normalization,
        normalize_before=False,
        dropout=0.0,
        scale_minimum=0.0,
        alpha=10.0,
        weights=weights,
    )


def stays(lengths=(12, 3, 9, 9, STEPS + 1, STEPS)):
    torch.manual_seed(1)
    lengths = torch.tensor(lengths, dtype=torch.int32)
    behind = torch.arange(HOURS) >= lengths[:, None]
    inputs = torch.randn(len(lengths), HOURS, CHANNELS).masked_fill(behind[..., None], 0)
    observed = (torch.rand(inputs.shape) < 0.5) & ~behind[..., None]
    return Stays(
        inputs=inputs,
        observed=observed,
        lengths=lengths,
        labels={"score_1": torch.zeros(len(lengths), HOURS, dtype=torch.int16).masked_fill(behind, -1)},
        outcomes={},
        static=torch.zeros(len(lengths), 0),
        split=torch.zeros(len(lengths), dtype=torch.int8),
        description=Description("Test", tuple(Channel(str(i), "", 0.0, 1.0) for i in range(CHANNELS)), (), "", {}),
    )


# ------------------------------------------------------------------------------------------------------ a whole run


def test_a_run_leaves_its_record_and_its_pictures(fast):
    assert fast.status == 0, fast.errors
    record = fast.record
    assert set(record["seconds"]) == {"pretrain", "som", "joint", "prediction", "evaluation"}
    assert record["data_checksum"]
    for split in SPLITS:
        metrics = {name.removeprefix(f"{split}/") for name in record["metrics"] if name.startswith(split)}
        assert metrics >= {
            "nmi_geometric_wing", "nmi_geometric_wing_low", "ami_wing", "morans_i", "unit_changes", "used_units",
            "topographic_error", "forecast_measured", "persistence_measured", "forecast_gain_low",
        }  # fmt: skip
    assert {path.stem for path in (fast.folder / "figures").glob("*.png")} == PICTURES
    with (fast.folder / "units.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    assert sum(int(row["hours"]) for row in table) == 10 * 20  # the validation split
    assert {"wing", "wing_low", "wing_high"} <= set(table[0])
    with np.load(fast.folder / TRAJECTORIES) as arrays:
        assert arrays["hits"].tolist() == [int(row["hours"]) for row in table]
        assert list(arrays["classes"]) == list(WINGS)


def test_the_map_is_evaluated_while_it_changes(fast):
    phases = [row["phase"] for row in fast.record["curve"]]
    assert phases == ["pretrain"] * 2 + ["som"] * 3 + ["joint"] * 2 + ["prediction"] * 2
    assert all("validation/nmi_geometric_wing" in row for row in fast.record["curve"])


def test_a_resumed_run_ends_with_the_same_numbers(fast, in_process, tmp_path, monkeypatch):
    evaluate, calls = tdpsom.clustering, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(tdpsom, "clustering", interrupt)
    first = run(tmp_path, "fast")
    assert first.status == 130
    monkeypatch.setattr(tdpsom, "clustering", evaluate)
    second = run(tmp_path, f"resume={first.folder}")
    assert second.status == 0, second.errors
    assert second.metrics == fast.metrics


def test_without_a_weight_nothing_is_forecast(in_process, tmp_path):
    finished = run(tmp_path, "fast loss.eta=0.0 tracking.figures=False")
    assert finished.status == 0, finished.errors
    assert "prediction" not in finished.record["seconds"]
    assert "validation/persistence_data" in finished.metrics
    assert not [name for name in finished.metrics if "forecast" in name]


def test_a_map_larger_than_the_training_hours_is_refused(in_process, tmp_path):
    finished = run(tmp_path, "fast model.map_size='[200, 200]'")
    assert finished.status == 2, finished.errors
    assert "model.map_size=[200, 200] has more units than the" in finished.errors.splitlines()[-1]


def test_a_collapsed_map_stops_the_run(in_process, tmp_path, collapse):
    collapse(tdpsom)
    finished = run(tmp_path, "fast")
    assert finished.status == 2
    assert "the map collapsed: after joint epoch 1 one unit holds all of" in finished.errors.splitlines()[-1]


def test_stays_of_one_hour_one_by_one_are_too_few_for_batch_statistics(in_process, tmp_path, monkeypatch):
    load = tdpsom.load_parts

    def first_hours():
        return {name: replace(part, lengths=torch.ones_like(part.lengths)) for name, part in load().items()}

    monkeypatch.setattr(tdpsom, "load_parts", first_hours)
    finished = run(tmp_path, "fast training.batch_size=1")
    assert finished.status == 2, finished.errors
    assert "training.batch_size=1 is too small for batch normalisation" in finished.errors.splitlines()[-1]


def test_stays_without_a_label_leave_the_other_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    names = []
    tracker = SimpleNamespace(folder=tmp_path, artifact=lambda path: None, figure=lambda name, *_: names.append(name))
    made, unlabelled = model(), stays()
    unlabelled.labels["score_1"].fill_(-1)
    latents = tdpsom.latents_of(made, unlabelled, "mean")
    draw_stays(tracker, made, unlabelled, Hours.nearest(unlabelled, latents, made.centroids), latents, 1)
    assert set(names) == PICTURES - {"risk_wing", "typical_stays"} | {"risk_score_1"}


def test_the_faithful_configuration_runs(in_process, tmp_path):
    faithful = resolve_config(tdpsom.ex, "physionet2012_faithful")
    switches = ("recurrent_activation", "normalization", "normalize_before", "scale_minimum", "assignment")
    model = " ".join(f"model.{name}={faithful['model'][name]}" for name in switches)
    rest = "training.target=sample training.shuffle=False evaluation.whole_batches=True tracking.figures=False"
    finished = run(tmp_path, f"fast {model} {rest}")
    assert finished.status == 0, finished.errors
    assert all(math.isfinite(value) for name, value in finished.metrics.items() if "nmi" in name)


def test_missing_eicu_says_what_to_do(in_process, tmp_path):
    finished = run(tmp_path, f"fast data.name=eicu data.root={tmp_path}")
    assert finished.status == 2
    assert "eICU holds no prepared stays" in finished.errors


@pytest.mark.parametrize("kind", ["mean", "sample"])
def test_the_phases_of_the_paper_see_no_hour_behind_the_end_of_a_stay(monkeypatch, kind):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    made, data = model(), stays()
    training = dict(
        pretrain_epochs=1, som_epochs=2, joint_epochs=3, prediction_epochs=4,
        learning_rate=0.001, som_learning_rates=[0.9, 0.1], target=kind,
    )  # fmt: skip
    stages = tdpsom.phases(made, data, training)
    assert [(stage.name, stage.epochs) for stage in stages] == [
        ("pretrain", 1), ("som", 2), ("joint", 3), ("prediction", 4),
    ]  # fmt: skip
    rates = [[update.learning_rates for update in stage.updates] for stage in stages]
    assert rates == [[(0.001,)], [(0.9, 0.1)], [(0.001,), (0.001,)], [(0.001,)]]
    torch.manual_seed(1)
    columns = [stage.columns() for stage in stages]
    assert all(torch.equal(found["mask"], data.mask) for found in columns)
    torch.manual_seed(1)
    hours = data.inputs[data.mask]
    with torch.no_grad():
        latents = made.mean(hours) if kind == "mean" else made.encode(hours)[0]
        expected = target_distribution(made.assign(latents))
    torch.testing.assert_close(columns[2]["target"][data.mask], expected)


# ------------------------------------------------------------------------------------------------------------ pictures


def test_lines_are_in_clinical_units_from_the_first_measurement_on():
    data = stays()
    channels = tuple(Channel(str(index), "u", 10.0 * index, 2.0) for index in range(CHANNELS))
    data = replace(data, description=replace(data.description, channels=channels))
    data.observed[0, :, 3] = torch.arange(HOURS) == 4
    (line,) = clinical_lines(data, 0, [3])
    assert np.isnan(line.values[:4]).all()
    np.testing.assert_allclose(line.values[4:], 2.0 * data.inputs[0, 4:, 3].numpy() + 30.0, rtol=1e-6)
    assert line.measured.nonzero()[0].tolist() == [4]
    assert line.label == "3 (u)"


# ------------------------------------------------------------------------------------------------------------ forecast


def test_forecast_errors_equal_a_plain_loop():
    made, data = model(), stays()
    made.eval()
    expected = {name: [] for name in forecast_errors(made, data)}
    lengths = data.lengths.tolist()
    for stay in sorted(range(len(lengths)), key=lambda stay: lengths[stay]):  # stable, as groups of equal lengths are
        length = lengths[stay]
        if length <= STEPS:
            continue
        inputs, observed = data.inputs[stay, :length], data.observed[stay, :length]
        with torch.no_grad():
            latents = made.mean(inputs)
            predicted = made.forecast(latents[None, :-STEPS], STEPS)[0]
            last = latents[-STEPS - 1].expand(STEPS, -1)
            for name, coming, values in (
                ("forecast", predicted, made.decode(predicted).mean),
                ("persistence", last, inputs[-STEPS - 1].expand(STEPS, -1)),
            ):
                squared = (values - inputs[-STEPS:]) ** 2
                expected[f"{name}_latent"].append(((coming - latents[-STEPS:]) ** 2).mean())
                difference = made.decode(coming).mean - made.decode(latents[-STEPS:]).mean
                expected[f"{name}_reconstruction"].append((difference**2).mean())
                expected[f"{name}_data"].append(squared.mean())
                expected[f"{name}_measured"].append(squared[observed[-STEPS:]].mean())
    for name, values in forecast_errors(made, data).items():
        np.testing.assert_allclose(values, torch.stack(expected[name]).numpy(), rtol=1e-4, err_msg=name)


def test_forecast_gain_is_persistence_minus_forecast():
    metrics = forecast_metrics(model(), stays())
    gain = metrics["persistence_measured"] - metrics["forecast_measured"]
    assert metrics["forecast_gain"] == pytest.approx(gain, rel=1e-5)
    assert metrics["forecast_gain_low"] <= metrics["forecast_gain"] <= metrics["forecast_gain_high"]
    assert forecast_metrics(model(), stays((1, STEPS))) == {}
    assert not [name for name in forecast_metrics(model(eta=0.0), stays()) if name.startswith("forecast")]


def test_sampled_forecasts_spread_around_the_mean():
    made = model()
    latents = torch.randn(1, 4, 3).expand(2000, -1, -1)
    torch.manual_seed(0)
    samples, mean = made.forecast(latents, 1, sampled=True), made.forecast(latents[:1], 1)
    spread = samples.std(dim=0)
    assert (spread > 0).all()
    assert ((samples.mean(dim=0) - mean[0]).abs() < 5 * spread / 2000**0.5).all()


def test_stays_without_a_measurement_do_not_count_as_forecast(monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    made, data = model(), stays((12, 9))
    alone = forecast_metrics(made, stays((12, 9)).first(1))
    data.observed[1] = False
    assert forecast_metrics(made, data)["forecast_measured"] == pytest.approx(alone["forecast_measured"])


# --------------------------------------------------------------------------------------------------------------- speed


def plain_joint_loss(made, inputs, target, noise, lengths):
    """The joint loss hour by hour, one stay after the other."""
    weights, terms = made.weights, []
    for stay, length in enumerate(lengths):
        latents, winners, state = [], [], None
        for hour in range(length):
            latent, kl = made.encode(inputs[stay, hour, None], noise[stay, hour, None])
            distances = (latent - made.centroids).square().sum(dim=1)[None]
            soft = student_t_assignment(distances, made.alpha)
            fixed = student_t_assignment((latent.detach() - made.centroids).square().sum(dim=1)[None], made.alpha)
            elbo = -made.decode(latent).log_prob(inputs[stay, hour, None]) + weights.prior * kl
            p = target[stay, hour, None]
            commitment = (p * (p / soft).log()).sum()
            som = -sum(
                soft[0, unit].detach() * fixed[0, neighbour].log()
                for unit, neighbours in enumerate(made.grid.neighbours.tolist())
                for neighbour in neighbours
            )
            latents.append(latent)
            winners.append(distances.argmin())
            before = made.centroids[winners[max(hour - 1, 0)]].detach()
            smoothness = -student_t_kernel((latent - before).square().sum(), made.alpha)
            terms.append(
                weights.theta * elbo.sum()
                + weights.gamma * commitment
                + weights.beta * som
                + weights.kappa * smoothness
            )
        for hour, latent in enumerate(latents):
            hidden, state = made.lstm(latent.detach()[None], state)
            coming = latents[min(hour + 1, length - 1)].detach()
            predicted = torch.distributions.Independent(
                torch.distributions.Normal(*gaussian(made.forecast_head(hidden[0]))), 1
            )
            terms.append(-weights.eta * predicted.log_prob(coming).sum())
    return sum(terms) / sum(lengths)


def gaussian(parameters):
    mean, raw = parameters.chunk(2, dim=1)
    return mean, torch.nn.functional.softplus(raw)


def seconds(function):
    start = time.process_time()
    value = function()
    return value, time.process_time() - start


def test_padded_batches_are_faster_than_a_plain_loop_and_equal_to_it():
    made = model()
    torch.manual_seed(2)
    lengths = [12, 7, 12, 3, 12, 9, 12, 12]
    inputs, noise = torch.randn(len(lengths), HOURS, CHANNELS), torch.randn(len(lengths), HOURS, 3)
    target = torch.randn(len(lengths), HOURS, 12).softmax(dim=2)
    mask = torch.arange(HOURS) < torch.tensor(lengths)[:, None]
    parameters = list(made.parameters())

    def batched():
        loss = made.joint_loss(inputs, target, mask, noise)["loss"]
        return loss, torch.autograd.grad(loss, parameters)

    def plain():
        loss = plain_joint_loss(made, inputs, target, noise, lengths)
        return loss, torch.autograd.grad(loss, parameters)

    batched()  # the first call sets PyTorch up
    (expected, expected_gradients), slow = seconds(plain)
    (loss, gradients), quick = min((seconds(batched) for _ in range(3)), key=lambda timed: timed[1])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-3)
    assert slow > 3 * quick, f"{slow:.3f} s hour by hour, {quick:.3f} s in a padded batch"


def test_every_config_is_documented():
    folder = Path(__file__).parents[1] / "configs" / "tdpsom"
    assert {path.stem for path in folder.glob("*.yaml")} >= {
        "physionet2012", "eicu", "physionet2012_faithful", "eicu_faithful", "no_prediction", "no_smoothness",
        "forecast", "lorenz", "fast",
    }  # fmt: skip


def test_a_typical_unit_is_one_with_labels_even_if_others_are_visited_more():
    nan = float("nan")
    assert often_visited(np.array([9, 4, 1, 0]), np.array([2.0, 1.0, 3.0, nan])).tolist() == [0, 1]
    assert often_visited(np.array([90, 80, 3, 70]), np.array([nan, nan, 1.0, nan])).tolist() == [2]
