"""TPAE in two processes, as torchrun starts them (gloo, CPU), beside one process with the same global batch."""

import os
import signal
import subprocess
import sys
import time

from experiments import dpsom
from experiments.engine import processes
from experiments.errors import UserError
from models import batch
from models.tpae_networks import encoder_of

import pytest
import torch
from command_line import run, strict_json

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
EVERYTHING = "fast augmentation.flip=True loss.adversarial=0.1 tracking.figures=False tracking.tensorboard=False"
TOLERANCE = dict(rtol=1e-3, atol=1e-5)  # of weights after 28 steps of Adam; sums are taken in another order


def command(arguments, launcher):
    return [*launcher, "experiments/tpae.py", "with", *arguments.split(), "compute.threads=1", "compute.device=cpu"]


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folders of the same training in one process and in two."""
    folders = []
    for launcher in ([sys.executable], TORCHRUN):
        runs = tmp_path_factory.mktemp("runs")
        done = subprocess.run(
            command(f"{EVERYTHING} tracking.runs_dir={runs}", launcher), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder:") == 1
        folders.append(runs / "tpae" / "1")
    return folders


def test_two_processes_train_what_one_trains(finished):
    one, two = map(weights, finished)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


def test_their_losses_are_those_of_whole_batches(finished):
    one, two = (strict_json((folder / "record.json").read_text()) for folder in finished)
    assert (one["hardware"]["processes"], two["hardware"]["processes"]) == (1, 2)
    for of_one, of_two in zip(one["curve"], two["curve"], strict=True):
        terms = {name for name in of_one if "/" not in name} - {"phase", "epoch", "seconds"}
        assert {name: of_two[name] for name in terms} == pytest.approx({name: of_one[name] for name in terms}, rel=1e-3)


def test_only_the_first_process_leaves_a_run(finished):
    assert [path.name for path in finished[1].parent.iterdir() if path.name.isdigit()] == ["1"]


def interrupted(runs):
    """The folder of a training stopped behind its first checkpoint, or None where it was faster than the signal."""
    folder = runs / "tpae" / "1"
    started = subprocess.Popen(
        command(f"{EVERYTHING} tracking.runs_dir={runs}", TORCHRUN), stderr=subprocess.PIPE, text=True
    )
    with started:
        while not (folder / "checkpoint.pt").exists():
            assert started.poll() is None, started.stderr.read()
            time.sleep(0.05)
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=120)
    status = strict_json((folder / "run.json").read_text())["status"]
    assert status in {"INTERRUPTED", "COMPLETED"}
    return folder if status == "INTERRUPTED" else None


def test_interrupted_and_resumed_they_end_with_the_same_weights(finished, tmp_path):
    folder = next(filter(None, (interrupted(tmp_path / f"attempt{number}") for number in range(3))))
    resumed = command(f"resume={folder} tracking.runs_dir={folder.parent.parent}", TORCHRUN)
    resumed.remove("compute.device=cpu")
    done = subprocess.run(resumed, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole, parts = weights(finished[1]), weights(folder.with_name("2"))
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_other_experiments_refuse(tmp_path, monkeypatch, in_process):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = run(dpsom.ex, tmp_path, "fast")
    assert refused.status == 2
    assert refused.errors == "error: dpsom trains in one process: start it with python instead of torchrun\n"
    assert not os.listdir(tmp_path)


def test_what_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "WORLD_SIZE", 2)
    with pytest.raises(UserError, match="batch_size=25 cannot be divided among 2 processes"):
        processes.Parallel(torch.nn.Linear(2, 2), 25)
    normalising, _ = encoder_of("residual", 3, (8, 8), 2)
    with pytest.raises(UserError, match="encoder=published"):
        processes.Parallel(normalising, 24)


def test_the_gradient_that_other_operations_share_is_left_alone(monkeypatch):
    replacements = {
        "is_initialized": lambda: True,
        "get_world_size": lambda: 2,
        "get_rank": lambda: 0,
        "all_gather": lambda parts, rows: [part.copy_(rows) for part in parts],
        "all_reduce": lambda gradient: gradient.mul_(2),
    }
    for name, function in replacements.items():
        monkeypatch.setattr(batch.dist, name, function)
    rows, other = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    (batch.of_all_processes(rows) + other).backward(torch.ones(4, 3))
    assert torch.equal(rows.grad, torch.full((2, 3), 2.0))
    assert torch.equal(other.grad, torch.ones(4, 3))
