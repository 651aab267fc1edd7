"""A stopped training continues through `resume=` and ends with the numbers of one that was never stopped.

The runs are real processes, killed by real signals: children that one small server forks, so that PyTorch is imported
once.
"""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from experiments.errors import UserError
from experiments.ingredients import checkpoint

SERVER = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import scipy.stats, sklearn.datasets, sklearn.manifold, sklearn.metrics
from torch.utils import tensorboard
from experiments.dpsom import ex
from experiments.ingredients.optimization import PhasedAdam
from experiments.launch import launch
from models import networks
networks.DENSE_WIDTHS = (8, 8, 16)

def stop_itself(owner, name, number, time, after):
    original, calls = getattr(owner, name), 0
    def counting(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == time and not after:
            os.kill(os.getpid(), number)
        result = original(*arguments, **options)
        if calls == time:
            os.kill(os.getpid(), number)
        return result
    setattr(owner, name, counting)

def run(job):
    for stream, path in ((1, job["stdout"]), (2, job["stderr"])):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), stream)
    os.chdir(job["folder"])
    if job["stop"]:
        place, time, number = job["stop"]
        if place == "step":
            stop_itself(PhasedAdam, "step_at", number, time, after=True)
        elif place == "saving":  # the new checkpoint is written but not yet in its place
            stop_itself(os, "fsync", number, time, after=False)
        else:
            stop_itself(torch, "save", number, time, after=True)
    launch(ex, ["experiments/dpsom.py", "with", *job["arguments"]])

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            run(job)
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# Four steps an epoch: pretraining takes 1-8, the map's initialisation 9-16, the joint phase 17-28.
FAST = [
    "fast",
    "training.som_epochs=2",
    "training.checkpoint_every=2",
    "model.assignment=sample",
    "model.dropout=0.2",
    "compute.threads=1",
    "compute.device=cpu",
    "tracking.figures=False",
]
EPOCHS = 7
SIGKILL, SIGTERM, SIGINT = 9, 15, 2


@dataclass
class Finished:
    status: int
    output: str
    errors: str

    @property
    def metrics(self):
        return json.loads(self.output.splitlines()[-1].removeprefix("result: "))


@pytest.fixture(scope="module")
def server():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    yield process
    process.stdin.close()
    process.wait(timeout=30)


class Project:
    """A folder in which runs are started."""

    def __init__(self, folder, server):
        self.folder, self.server, self.started = folder, server, 0

    def start(self, *arguments, stop=None):
        """Run `experiments/dpsom.py with ARGUMENTS`; `stop` is (place, which time, signal)."""
        self.started += 1
        paths = {stream: self.folder / f"{stream}{self.started}" for stream in ("stdout", "stderr")}
        job = {"arguments": arguments, "stop": stop, "folder": str(self.folder)}
        job |= {stream: str(path) for stream, path in paths.items()}
        print(json.dumps(job), file=self.server.stdin, flush=True)
        status = int(self.server.stdout.readline())
        return Finished(status, *(path.read_text() for path in paths.values()))

    def run_folder(self, number):
        return self.folder / "runs" / "dpsom" / str(number)

    def json(self, number, name):
        return json.loads((self.run_folder(number) / name).read_text())

    def checkpoint(self, number):
        return torch.load(self.run_folder(number) / "checkpoint.pt", weights_only=True)


@pytest.fixture
def project(tmp_path, server):
    return Project(tmp_path, server)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, server):
    """An uninterrupted run, number 1 of its folder, and what it printed."""
    project = Project(tmp_path_factory.mktemp("whole"), server)
    project.finished = project.start(*FAST)
    assert project.finished.status == 0, project.finished.errors
    return project


def curves(project, number):
    """Sacred's metrics of a run without the seconds: name -> (steps, values)."""
    metrics = project.json(number, "metrics.json")
    return {name: (m["steps"], m["values"]) for name, m in metrics.items() if not name.endswith("/seconds")}


def scalars(project, number):
    """TensorBoard's points of a run without the seconds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(project.run_folder(number) / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if not name.endswith("/seconds")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def assert_equals_whole(project, number, whole):
    """Metrics bit for bit, the learning curve, and the weights of the last checkpoint."""
    assert project.json(number, "record.json")["metrics"] == whole.json(1, "record.json")["metrics"]
    assert curves(project, number) == curves(whole, 1)
    found, expected = (shown.checkpoint(n)["model"] for shown, n in ((project, number), (whole, 1)))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    curve, expected = (shown.json(n, "record.json")["curve"] for shown, n in ((project, number), (whole, 1)))
    assert [row | {"seconds": 0} for row in curve] == [row | {"seconds": 0} for row in expected]


def test_the_uninterrupted_run_holds_each_epoch_once(whole):
    history = whole.checkpoint(1)["progress"]["history"]
    assert [(row["phase"], row["epoch"]) for row in history] == [
        *(("pretrain", epoch) for epoch in (1, 2)),
        *(("som", epoch) for epoch in (1, 2)),
        *(("joint", epoch) for epoch in (1, 2, 3)),
    ]
    steps = {name: steps for name, (steps, _) in curves(whole, 1).items()}
    assert steps["pretrain/loss"] == [1, 2]
    assert steps["som/loss"] == [3, 4]
    assert steps["joint/loss"] == [5, 6, 7]


# Checkpoints follow steps 8 and 16 (a phase ends), 24 (two joint epochs) and 28.
@pytest.mark.parametrize(
    ("stop", "saved_steps"),
    [
        (("step", 9), 8),
        (("step", 16), 8),
        (("step", 18), 16),
        (("step", 27), 24),
        (("saving", 3), 16),
        (("saved", 1), 0),
        (("saved", 2), 8),
        (("saved", 4), 24),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_killed_and_resumed_equals_uninterrupted(project, whole, stop, saved_steps):
    killed = project.start(*FAST, stop=(*stop, SIGKILL))
    assert killed.status == -SIGKILL
    if not saved_steps:
        resumed = project.start("resume=runs/dpsom/1")
        assert resumed.status == 2
        assert "there is no checkpoint.pt in it" in resumed.errors
        return
    assert project.checkpoint(1)["progress"]["global_step"] == saved_steps
    resumed = project.start("resume=runs/dpsom/1", "tracking.figures=False")
    assert resumed.status == 0, resumed.errors
    assert resumed.metrics == whole.finished.metrics
    assert_equals_whole(project, 2, whole)
    assert project.json(2, "info.json")["resumed_from"] == "runs/dpsom/1"
