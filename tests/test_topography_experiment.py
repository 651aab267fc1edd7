"""The Topography experiment from its command line to its record, interrupted and resumed, and minisom beside it."""

import contextlib
import io
import json
import math
import os
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from experiments import topography
from experiments.ingredients.optimization import MomentumSGD
from experiments.launch import launch
from scripts.reproduce import resolve_config

import pytest
from sacred import SETTINGS

FOLDER = Path(__file__).parents[1] / "configs" / "topography"
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PICTURES = {"decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions"}


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """Nothing captured by Sacred, signal handlers put back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "CAPTURE_MODE", "no")
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@dataclass
class Finished:
    status: int
    output: str
    errors: str

    @property
    def metrics(self):
        return json.loads(self.output.splitlines()[-1].removeprefix("result: "))


def run(arguments, runs_dir, command="", figures=False):
    """`python experiments/topography.py COMMAND with ARGUMENTS` in this process."""
    settings = f"compute.threads=1 tracking.runs_dir={runs_dir} tracking.tensorboard=False tracking.figures={figures}"
    line = ["experiments/topography.py", *command.split(), "with", *shlex.split(arguments), *settings.split()]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as stop:
        launch(topography.ex, line)
    return Finished(stop.value.code or 0, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("fast")
    finished = run("fast", runs_dir, figures=True)
    assert finished.status == 0, finished.errors
    return finished, runs_dir / "topography" / "1"


def test_a_run_leaves_its_record_and_its_pictures(fast):
    finished, folder = fast
    record = json.loads((folder / "record.json").read_text())
    assert record["metrics"] == finished.metrics
    assert {"test/quantization_error", "test/topographic_error_4", "test/nmi_geometric"} < set(finished.metrics)
    assert {path.stem for path in (folder / "figures").glob("*.png")} == PICTURES
    assert [row["epoch"] for row in record["curve"]] == [1, 2, 3, 4, 5, 6]
    assert record["curve"][-1]["validation/quantization_error"] < record["curve"][0]["validation/quantization_error"]


@pytest.mark.parametrize(
    "settings",
    [
        "model.unit_norm=True training.optimizer=sgd training.epochs=1",
        "model.map_size='[2, 5]' model.torus=True model.grid_metric=manhattan training.sigma='[1, 1]'",
    ],
)
def test_maps_of_other_kinds(tmp_path, settings):
    finished = run(f"fast {settings}", tmp_path)
    assert finished.status == 0, finished.errors
    assert all(math.isfinite(value) for value in finished.metrics.values())


def test_data_in_the_plane_get_a_picture_of_the_map_among_them(tmp_path):
    finished = run("square training.epochs=1", tmp_path, figures=True)
    assert finished.status == 0, finished.errors
    figures = tmp_path / "topography" / "1" / "figures"
    assert {path.stem for path in figures.glob("*.png")} == PICTURES | {"map_in_plane"}


@pytest.mark.parametrize("step", [7, 12])  # within an epoch of four steps, and at its end
def test_interrupted_and_resumed_it_ends_with_the_same_numbers(tmp_path, monkeypatch, step):
    settings = "fast training.optimizer=sgd training.learning_rate=0.5 training.epochs=5"
    whole = run(settings, tmp_path / "whole")
    step_at, steps = MomentumSGD.step_at, []

    def stopping(self, learning_rate):
        step_at(self, learning_rate)
        steps.append(learning_rate)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MomentumSGD, "step_at", stopping)
    runs_dir = tmp_path / "parts"
    assert run(settings, runs_dir).status == 143
    resumed = run(f"resume={runs_dir}/topography/1", runs_dir)
    assert resumed.status == 0, resumed.errors
    assert len(steps) == 20
    assert resumed.metrics == whole.metrics


def test_minisom_beside_it(tmp_path):
    found = []
    for seed in (0, 0, 1):
        finished = run(f"fast training.epochs=2 seed={seed}", tmp_path, command="minisom")
        assert finished.status == 0, finished.errors
        found.append(finished.metrics)
    assert all(metrics.pop("seconds") > 0 for metrics in found)
    assert found[0] == found[1] != found[2]
    assert found[0]["test/purity"] > 0.4  # chance is about .2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "command", "message"),
    [
        (
            "training.sigma='[4, 0]'",
            "",
            "training.sigma is [4, 0]: it must be a list of 2 values, each a number, greater",
        ),
        ("training.sigma='[-1, 1]'", "", "training.sigma is [-1, 1]: it must be a list of 2 values, each a number, gr"),
        (
            "training.optimizer=rmsprop",
            "",
            "training.optimizer is 'rmsprop': it must be a string, one of 'adam', 'sgd'",
        ),
        ("model.map_size='[10, 21]'", "", "model.map_size=[10, 21] has more units than the 200 training samples: make"),
        ("training.learning_rate=1e30", "", "is not finite in map epoch 1: lower training.learning_rate"),
        ("model.torus=True", "minisom", "minisom knows neither a torus nor another metric: model.torus=False"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, command, message):
    finished = run(f"fast {settings}", tmp_path, command)
    assert finished.status == 2, finished.errors
    assert message in finished.errors.splitlines()[-1]
    assert "Traceback" not in finished.errors


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_resolves_and_says_how_to_run_it(name):
    assert resolve_config(topography.ex, name)["seed"] == 0
    assert f"python experiments/topography.py with {name}" in (FOLDER / f"{name}.yaml").read_text().split("\ndata:")[0]


def test_the_settings_are_all_there():
    assert {"as_posted", "as_posted_corrected", "digits", "fast", "fmnist", "mnist", "square"} == set(CONFIGS)
