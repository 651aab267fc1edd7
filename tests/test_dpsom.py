"""The DPSOM experiment from its command line to its record."""

import copy
import math
import socket
from functools import partial
from pathlib import Path

from experiments import dpsom
from experiments.datasets.samples import Samples
from experiments.ingredients import compute, evaluation
from experiments.ingredients.data import load_dataset
from models import networks
from models.assignment import target_distribution
from scripts.export import trained

import command_line
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import strict_json

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs" / "dpsom").glob("*.yaml"))
EPOCHS = "training.pretrain_epochs=1 training.som_epochs=1 training.joint_epochs=1"
SHORT = f"fast {EPOCHS} training.som_learning_rates='[0.01]' data.limit=100 "
CLUSTERING = {"nmi_geometric", "nmi_arithmetic", "ami", "ari", "purity", "accuracy", "used_units"}
TOPOLOGY = {"quantization_error", "topographic_error", "topographic_error_4", "trustworthiness", "continuity"}
PICTURES = {"decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions"}

run = partial(command_line.run, dpsom.ex)


@pytest.fixture(scope="module", autouse=True)
def narrow_networks(in_process):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "DENSE_WIDTHS", (8, 8, 16))
        patch.setattr(networks, "CONV_CHANNELS", (2, 2, 4, 4))
        yield


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    finished = run(tmp_path_factory.mktemp("fast"), "fast seed=3", tensorboard=True)
    assert finished.status == 0, finished.errors
    return finished


def test_the_last_lines_say_what_was_reached_and_where_it_lies(fast):
    *_, head, last = (line.split() for line in fast.output.splitlines() if "purity" in line or "run folder" in line)
    assert head == ["purity", *(f"{fast.metrics[f'{split}/purity']:.4g}" for split in ("validation", "test"))]
    assert last == ["run", "folder:", str(fast.folder)]
    assert set(fast.metrics) == {
        f"{split}/{name}"
        for split in ("validation", "test")
        for name in CLUSTERING | TOPOLOGY | {"reconstruction_error"}
    }


def test_the_record_is_complete(fast):
    record = fast.record
    assert set(record) == {
        *("format", "experiment", "config_name", "seed", "status", "config", "metrics", "curve", "seconds"),
        *("git_commit", "git_dirty", "versions", "hardware", "data_checksum"),
    }
    assert (record["experiment"], record["seed"], record["status"]) == ("dpsom", 3, "COMPLETED")
    assert set(record["config"]) == {
        *("seed", "resume", "model", "loss", "data", "compute", "training", "evaluation", "tracking")
    }
    assert record["config"]["model"]["map_size"] == [4, 4]
    assert set(record["seconds"]) == {"pretrain", "som", "joint", "evaluation"}
    assert record["hardware"]["threads"] == 1
    assert len(record["data_checksum"]) == 64
    phases = [(row["phase"], row["epoch"]) for row in record["curve"]]
    assert phases == [
        (name, epoch + 1) for name, epochs in (("pretrain", 2), ("som", 4), ("joint", 3)) for epoch in range(epochs)
    ]
    terms = {"negative_log_likelihood", "kl", "reconstruction", "commitment", "som", "loss", "seconds"}
    assert set(record["curve"][-1]) == {"phase", "epoch"} | terms | {f"validation/{name}" for name in CLUSTERING}


def test_the_record_names_no_host_and_no_place(fast):
    def texts(value):
        if isinstance(value, dict):
            return [*value, *(text for item in value.values() for text in texts(item))]
        if isinstance(value, list):
            return [text for item in value for text in texts(item)]
        return [value] if isinstance(value, str) else []

    found = texts(fast.record)
    assert not [text for text in found if Path(text).is_absolute()]
    for private in (socket.gethostname(), str(Path.home()), str(fast.folder.parents[1])):
        assert not [text for text in found if private in text]


def test_pictures_and_tensorboard_lie_in_the_run_folder(fast):
    assert strict_json((fast.folder / "run.json").read_text())["status"] == "COMPLETED"
    assert {path.stem for path in (fast.folder / "figures").glob("*.png")} == PICTURES
    assert list((fast.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_it_learns(fast):
    curve = fast.record["curve"]
    assert curve[1]["loss"] < curve[0]["loss"]
    assert curve[-1]["reconstruction"] < curve[0]["reconstruction"]


def test_the_seed_decides_the_numbers(fast, tmp_path):
    assert run(tmp_path / "same", "fast seed=3").metrics == fast.metrics
    assert run(tmp_path / "other", "fast seed=4").metrics != fast.metrics


@pytest.mark.parametrize(
    "settings",
    [
        "model.map_size='[2, 5]' model.torus=False model.latent_dim=3 model.posterior=full",
        "model.network=conv data.image_size=12 model.normalization=affine",
        "model.normalization=none model.assignment=sample model.dropout=0.4 model.leaky_logits=True",
        "model.normalization=batch model.normalize_before=False model.posterior=full model.latent_dim=1",
        "model.normalization=affine data.scaling=unit compute.precision=bf16 model.map_size='[1, 3]'",
        "data.image_size=9 training.shuffle=False training.fresh_optimizer=True",
    ],
)
def test_models_of_many_kinds(tmp_path, settings):
    finished = run(tmp_path, SHORT + settings)
    assert finished.status == 0, finished.errors
    assert all(math.isfinite(value) for value in finished.metrics.values())
    assert {path.stem for path in (finished.folder / "figures").glob("*.png")} == PICTURES


def test_a_map_of_one_unit_has_no_topographic_error(tmp_path):
    finished = run(tmp_path, SHORT + "model.map_size='[1, 1]'")
    assert finished.status == 0, finished.errors
    assert finished.metrics["test/topographic_error"] is None
    assert finished.metrics["test/used_units"] == 1
    assert finished.output.split()[-1] == str(finished.folder)


def test_the_curve_holds_the_epochs_and_splits_that_were_asked_for(tmp_path):
    settings = "fast training.joint_epochs=5 training.som_epochs=0 evaluation.every=2 evaluation.test_curve=True"
    curve = run(tmp_path, settings).record["curve"]
    assert [(row["phase"], row["epoch"]) for row in curve] == [
        ("pretrain", 2),
        ("joint", 2),
        ("joint", 4),
        ("joint", 5),
    ]
    assert all({"validation/purity", "test/purity"} < set(row) for row in curve)


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "model.network=conv data.image_size=30",
            r"not 30 x 30: change data.image_size or use model.netw",
        ),
        ("training.batch_size=101", "training.batch_size=101 exceeds the 100 samples: lower it"),
        (
            "training.learning_rate=1e30 model.normalization=none",
            "is not finite in pretrain epoch 1: lower training.le",
        ),
        (
            "evaluation.whole_batches=True data.limit=60 training.batch_size=60 data.validation_fraction=0.02",
            "whole_batches=True leaves nothing",
        ),
        ("training.batch_size=1 model.normalization=batch", "training.batch_size=1 is too small for model.normal"),
        ("model.map_size='[10, 11]'", "model.map_size=[10, 11] has more units than the 100 samples: lower it"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, message):
    finished = run(tmp_path, SHORT + settings)
    assert finished.status == 2, finished.errors
    assert finished.errors.splitlines()[-1].startswith("error: ")
    assert message in finished.errors.splitlines()[-1]
    assert "Traceback" not in finished.errors
    assert strict_json((finished.folder / "run.json").read_text())["status"] == "FAILED"
    assert not (finished.folder / "record.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(tmp_path):
    finished = run(tmp_path, SHORT, device="cuda")
    assert finished.status == 2
    assert finished.errors.splitlines()[-1] == (
        "error: compute.device=cuda, but PyTorch sees no CUDA device: use compute.device=auto or cpu"
    )


def test_a_collapsed_map_stops_the_run(tmp_path, collapse):
    collapse(dpsom)
    finished = run(tmp_path, SHORT + "training.joint_epochs=5")
    assert finished.status == 2
    last = finished.errors.splitlines()[-1]
    assert last.startswith(
        "error: the map collapsed: after joint epoch 1 one unit holds all of the validation split; lower "
    )
    assert torch.load(finished.folder / "failed.pt", weights_only=True)["progress"]["phase"] == 2


# The configuration


def test_the_published_settings_are_all_there():
    published = {
        f"{data}{network}{kind}"
        for data in ("mnist", "fmnist")
        for network in ("", "_conv")
        for kind in ("", "_faithful")
    }
    assert published | {"digits", "fast"} <= set(CONFIGS)


# Its parts


def test_map_npz_is_of_the_validation_split(fast):
    with np.load(fast.folder / "map.npz") as arrays:
        counts = arrays["counts"]
    assert counts.max(axis=1).sum() / counts.sum() == pytest.approx(fast.metrics["validation/purity"])
    assert (counts.sum(axis=1) > 0).sum() == fast.metrics["validation/used_units"]


def test_the_reconstruction_error_is_that_of_the_posterior_means(fast):
    model, record, _ = trained(fast.folder)
    for name, split in load_dataset(**record["config"]["data"]).held_out.items():
        with torch.no_grad():
            error = F.mse_loss(model.decode(model.mean(split.inputs)), split.inputs).item()
        assert fast.metrics[f"{name}/reconstruction_error"] == pytest.approx(error, rel=1e-4)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(compute.autocast, "config", {"precision": "fp32"})
    config = copy.deepcopy(dpsom.ex.configurations[0]())
    torch.manual_seed(0)
    config["model"] |= {"map_size": [2, 3], "latent_dim": 4, "dropout": 0.5}
    return dpsom.build(config, Samples((1, 6, 6)))


def test_the_phases_of_the_paper(model):
    training = {
        **dict(pretrain_epochs=15, som_epochs=20, joint_epochs=300, learning_rate=0.001),
        "som_learning_rates": [0.9, 0.3, 0.1, 0.01],
        "target": "mean",
    }
    pretrain, som, joint = dpsom.phases(model, torch.rand(5, 1, 6, 6), training)
    assert [(phase.name, phase.epochs) for phase in (pretrain, som, joint)] == [
        ("pretrain", 15),
        ("som", 20),
        ("joint", 300),
    ]
    assert [phase.updates[0].learning_rates for phase in (pretrain, som, joint)] == [
        (0.001,),
        (0.9, 0.3, 0.1, 0.01),
        (0.001,),
    ]
    assert [phase.updates[0].loss for phase in (pretrain, som, joint)] == [
        *(model.pretraining_loss, model.som_initialization_loss, model.joint_loss)
    ]


@pytest.mark.parametrize("kind", ["mean", "sample"])
def test_the_target_distribution_is_that_of_the_whole_set_without_dropout(model, monkeypatch, kind):
    inputs = torch.rand(30, 1, 6, 6)
    training = dict.fromkeys(("pretrain_epochs", "som_epochs", "joint_epochs", "learning_rate"), 1)
    columns = dpsom.phases(model, inputs, training | {"som_learning_rates": [1], "target": kind})[2].columns
    model.train()
    torch.manual_seed(1)
    target = columns()["target"]
    assert not target.requires_grad
    torch.manual_seed(1)
    with torch.no_grad():
        latents = model.eval().mean(inputs) if kind == "mean" else model.eval().encode(inputs)[0]
        expected = target_distribution(model.assign(latents))
    torch.testing.assert_close(target, expected)
    if kind == "mean":
        monkeypatch.setattr(evaluation, "CHUNK", 7)
        torch.testing.assert_close(columns()["target"], expected)


def test_sampled_latents_scatter_around_the_mean(model):
    inputs = torch.rand(1, 1, 6, 6).expand(4000, -1, -1, -1)
    means, samples = (dpsom.latents_of(model, inputs, kind) for kind in ("mean", "sample"))
    assert torch.equal(means[0].expand_as(means), means)
    torch.testing.assert_close(samples.mean(dim=0), means[0], atol=0.1, rtol=0)
    assert (samples.std(dim=0) > 0.1).all()


# CUDA


@pytest.mark.gpu
def test_losses_and_gradients_on_cuda_equal_those_on_the_cpu(model):
    inputs, noise, target = torch.rand(20, 1, 6, 6), torch.randn(20, 4), torch.rand(20, 6).softmax(dim=1)
    model.eval()  # no dropout
    found = []
    for device in ("cpu", "cuda"):
        moved = model.to(device)
        moved.zero_grad()
        arguments = inputs.to(device), noise.to(device)
        terms = [
            moved.pretraining_loss(*arguments),
            moved.som_initialization_loss(*arguments),
            moved.joint_loss(arguments[0], target.to(device), arguments[1]),
        ]
        sum(term["loss"] for term in terms).backward()
        gradients = [parameter.grad.cpu().clone() for parameter in moved.parameters()]
        found.append(([{name: value.item() for name, value in term.items()} for term in terms], gradients))
    (cpu_terms, cpu_gradients), (cuda_terms, cuda_gradients) = found
    for cpu, cuda in zip(cpu_terms, cuda_terms, strict=True):
        assert cuda == pytest.approx(cpu, rel=1e-4)
    torch.testing.assert_close(cuda_gradients, cpu_gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_run_on_cuda_learns_as_on_the_cpu(tmp_path):
    """Shuffled by another generator: the first losses agree to five percent."""
    curves = [run(tmp_path / device, "fast", device=device).record["curve"] for device in ("cpu", "cuda")]
    cpu, cuda = ([row["loss"] for row in curve if row["phase"] == "pretrain"] for curve in curves)
    assert cuda == pytest.approx(cpu, rel=0.05)
