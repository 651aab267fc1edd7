"""A stopped training continues through `resume=` and ends with the numbers of one that was never stopped.

The runs are real processes, killed by real signals: children that one small server forks, so that PyTorch is imported
once.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.engine import checkpoint
from experiments.errors import UserError

import pytest
import torch

SERVER = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import torch._dynamo, matplotlib.pyplot, scipy.stats, sklearn.datasets, sklearn.manifold, sklearn.metrics
from torch.utils import tensorboard
from experiments.dpsom import ex
from experiments.engine.optimization import PhasedAdam
from experiments.launch import launch
from models import networks
networks.DENSE_WIDTHS = (8, 8, 16)

def stop_itself(owner, name, number, time):
    original, calls = getattr(owner, name), 0
    def counting(*arguments, **options):
        nonlocal calls
        result = original(*arguments, **options)
        calls += 1
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
        stop_itself(*{"step": (PhasedAdam, "step_at"), "save": (torch, "save")}[place], number, time)
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

QUIETLY = "tracking.tensorboard=False", "tracking.figures=False"
# Four steps and a checkpoint an epoch: pretraining is steps 1-8, the map's initialisation 9-16, the joint phase 17-28.
FAST = [
    "fast",
    "training.som_epochs=2",
    "model.assignment=sample",
    "training.target=sample",
    "model.dropout=0.2",
    "compute.threads=1",
    "compute.device=cpu",
    *QUIETLY,
]
SIGKILL, SIGTERM, SIGINT = 9, 15, 2


@dataclass
class Finished:
    status: int
    output: str
    errors: str
    started_in: Path

    @property
    def metrics(self):
        folder = self.started_in / self.output.splitlines()[-1].removeprefix("run folder: ")
        return json.loads((folder / "record.json").read_text())["metrics"]


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
        return Finished(status, *(path.read_text() for path in paths.values()), self.folder)

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
    project.finished = project.start(*FAST, "tracking.tensorboard=True")
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


@pytest.mark.parametrize(
    ("stop", "saved_steps"),
    [
        (("step", 5), 4),
        (("save", 2), 4),  # the new checkpoint is written but not yet in its place
        (("step", 9), 8),
        (("step", 14), 12),
        (("step", 27), 24),
        (("save", 7), 24),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else f"saved-{value}",
)
def test_killed_and_resumed_equals_uninterrupted(project, whole, stop, saved_steps):
    killed = project.start(*FAST, stop=(*stop, SIGKILL))
    assert killed.status == -SIGKILL
    assert project.checkpoint(1)["progress"]["global_step"] == saved_steps
    resumed = project.start("resume=runs/dpsom/1", *QUIETLY)
    assert resumed.status == 0, resumed.errors
    assert resumed.metrics == whole.finished.metrics
    assert_equals_whole(project, 2, whole)
    assert project.json(2, "info.json")["resumed_from"] == "runs/dpsom/1"


def test_a_finished_run_is_only_evaluated_again(whole):
    again = whole.start("resume=runs/dpsom/1", *QUIETLY, stop=("step", 1, SIGKILL))
    assert again.status == 0, again.errors
    assert again.metrics == whole.finished.metrics
    assert_equals_whole(whole, 2, whole)


@pytest.mark.parametrize("stop", [("step", 3), ("save", 1)], ids=lambda stop: stop[0])
def test_killed_before_the_first_checkpoint(project, stop):
    assert project.start(*FAST, stop=(*stop, SIGKILL)).status == -SIGKILL
    resumed = project.start("resume=runs/dpsom/1")
    assert resumed.status == 2
    assert resumed.errors == (
        "error: cannot resume runs/dpsom/1: there is no checkpoint.pt in it; give the folder of a run\n"
    )
    assert not project.run_folder(2).exists()


@pytest.mark.parametrize(
    ("stop", "status", "step_of_epoch"),
    [
        (("step", 2, SIGINT), 130, 2),
        (("step", 8, SIGTERM), 143, None),  # the last of an epoch and of a phase
        (("save", 3, SIGTERM), 143, 1),
        (("save", 7, SIGTERM), 143, None),  # the last save of all
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_interrupted_saves_at_once_and_resumes(project, whole, stop, status, step_of_epoch):
    interrupted = project.start(*FAST, stop=stop)
    assert interrupted.status == status
    assert interrupted.errors.splitlines()[-1] == (
        "interrupted; resume with: python experiments/dpsom.py with resume=runs/dpsom/1"
    )
    assert "Traceback" not in interrupted.errors
    assert project.json(1, "run.json")["status"] == "INTERRUPTED"
    assert not (project.run_folder(1) / "record.json").exists()
    state = project.checkpoint(1)
    assert (state["epoch"]["step"] if state["epoch"] else None) == step_of_epoch
    resumed = project.start("resume=runs/dpsom/1", *QUIETLY)
    assert resumed.status == 0, resumed.errors
    assert_equals_whole(project, 2, whole)


def test_a_resumed_run_can_be_stopped_and_resumed_too(project, whole):
    assert project.start(*FAST, stop=("step", 6, SIGKILL)).status == -SIGKILL
    assert project.start("resume=runs/dpsom/1", stop=("step", 9, SIGTERM)).status == 143  # in all step 4 + 9
    assert project.start("resume=runs/dpsom/2", stop=("step", 1, SIGKILL)).status == -SIGKILL
    before = project.checkpoint(3)["progress"]
    assert before["global_step"] == 13  # saved when the run started
    last = project.start("resume=runs/dpsom/3", "tracking.figures=False")
    assert last.status == 0, last.errors
    assert_equals_whole(project, 4, whole)
    assert scalars(project, 4) == scalars(whole, 1)

    # Seconds add up over the three resumptions.
    after = project.checkpoint(4)["progress"]
    assert after["seconds"]["pretrain"] == before["seconds"]["pretrain"] > 0
    assert after["seconds"]["som"] > before["seconds"]["som"] > 0
    assert [row["seconds"] for row in after["history"]][:3] == [row["seconds"] for row in before["history"]][:3]
    assert project.json(4, "record.json")["seconds"] == pytest.approx(after["seconds"], abs=0.051)


def test_the_number_of_threads_may_change(project, whole):
    project.start(*FAST, stop=("step", 22, SIGKILL))
    resumed = project.start("resume=runs/dpsom/1", "compute.threads=2", *QUIETLY)
    assert resumed.status == 0
    assert resumed.metrics.keys() == whole.finished.metrics.keys()


def test_a_checkpoint_that_does_not_fit_is_one_line_and_the_run_failed(project):
    project.start(*FAST, stop=("step", 22, SIGKILL))
    config = project.run_folder(1) / "config.json"
    config.write_text(config.read_text().replace('"latent_dim": 10', '"latent_dim": 9'))
    path = project.run_folder(1) / "checkpoint.pt"
    other = project.start("resume=runs/dpsom/1")
    path.write_bytes(path.read_bytes()[:-1000])
    truncated = project.start("resume=runs/dpsom/1")
    for run, message in (
        (other, "belongs to another configuration: use the one it was trained with"),
        (truncated, "is damaged (BadZipFile): start the run anew"),
    ):
        assert run.status == 2
        assert run.errors.splitlines()[-1] == f"error: runs/dpsom/1/checkpoint.pt {message}"
        assert "Traceback" not in run.errors
    for number in (2, 3):
        assert project.json(number, "run.json")["status"] == "FAILED"
        assert not (project.run_folder(number) / "checkpoint.pt").exists()


@pytest.mark.parametrize(("part", "key"), [("model", "centroids"), ("progress", "global_step")])
def test_a_checkpoint_of_other_code_is_one_line(project, part, key):
    project.start(*FAST, stop=("step", 22, SIGKILL))
    state = project.checkpoint(1)
    state[part]["renamed"] = state[part].pop(key)
    checkpoint.save(project.run_folder(1) / "checkpoint.pt", state)
    resumed = project.start("resume=runs/dpsom/1")
    assert resumed.status == 2
    assert "Traceback" not in resumed.errors
    assert resumed.errors.splitlines()[-1] == (
        "error: runs/dpsom/1/checkpoint.pt does not fit today's code: resume it with the code that began it, or start "
        "the run anew"
    )


# The file


CONFIG = {
    "seed": 0,
    "resume": None,
    "model": {"alpha": 10.0},
    "compute": {"precision": "fp32", "threads": 2},
    "tracking": {"runs_dir": "runs"},
}


@pytest.mark.parametrize(
    "changed",
    [{"resume": "runs/1"}, {"tracking": {"runs_dir": "x"}}, {"compute": {"precision": "fp32", "threads": None}}],
)
def test_fingerprint_ignores_what_changes_no_number(changed):
    assert checkpoint.fingerprint(CONFIG | changed) == checkpoint.fingerprint(CONFIG)


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"model": {"alpha": 9.0}}, {"compute": {"precision": "bf16", "threads": 2}}]
)
def test_fingerprint_depends_on_everything_else(changed):
    assert checkpoint.fingerprint(CONFIG | changed) != checkpoint.fingerprint(CONFIG)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"fingerprint": "a", "weights": torch.arange(1000.0)})
    return path


def test_saved_state_comes_back(saved):
    assert torch.equal(checkpoint.load(saved, "a")["weights"], torch.arange(1000.0))
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_is_replaced_in_one_step(saved, monkeypatch):
    before = saved.read_bytes()
    with saved.open("rb") as old:  # a file that was overwritten in place would change under its reader
        checkpoint.save(saved, {"fingerprint": "b"})
        assert old.read() == before
    after = saved.read_bytes()
    monkeypatch.setattr(torch, "save", lambda state, file: file.write(b"half") and os.remove("missing"))
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        checkpoint.save(saved, {"fingerprint": "c"})
    assert saved.read_bytes() == after
    assert list(saved.parent.iterdir()) == [saved], "half a checkpoint takes up no space"


def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(saved):
    (saved.parent / "checkpoint.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*: No space left on device; free space"):
        checkpoint.save(saved, {"fingerprint": "b"})
    checkpoint.load(saved, "a")


def test_a_disk_that_fills_in_the_middle_is_one_line_too(saved):
    """PyTorch then raises an error of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match="cannot write the checkpoint"):
            checkpoint.save(saved, {"fingerprint": "b", "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(saved.parent.iterdir()) == [saved]
    checkpoint.load(saved, "a")


class Attack:
    def __reduce__(self):
        return (os.system, ("touch attacked",))


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "text": lambda content: b"no checkpoint",
    "one bit of the weights": lambda content: content.replace(b"\x80\x3f", b"\x80\x3e", 1),
    "pickled code": lambda content: pickle.dumps(Attack()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(saved, damage, monkeypatch):
    monkeypatch.chdir(saved.parent)
    content = DAMAGES[damage](saved.read_bytes())
    assert content != saved.read_bytes()
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged"):
        checkpoint.load(saved, "a")


def test_code_in_a_checkpoint_is_not_run(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    torch.save({"fingerprint": "a", "attack": Attack()}, saved)
    with pytest.raises(UserError, match=r"damaged .*UnpicklingError"):
        checkpoint.load(saved, "a")
    assert not Path("attacked").exists()


@pytest.mark.parametrize("state", [{"fingerprint": "b"}, {}, [1, 2]])
def test_a_checkpoint_of_something_else_is_refused(saved, state):
    torch.save(state, saved)
    with pytest.raises(UserError, match="belongs to another configuration"):
        checkpoint.load(saved, "a")


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*: nothing to resume, start the run anew"):
        checkpoint.load(tmp_path / "checkpoint.pt", "a")
