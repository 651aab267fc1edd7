"""scripts/search.py: the space, selection on the validation split, resuming after a kill, the exported best trial."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from experiments import PROJECT, topography
from experiments.errors import UserError
from scripts import search
from scripts.scheduling import jobs
from scripts.scheduling.plan import resolve_config
from scripts.search_space import Search, nested

import optuna
import pytest
import yaml
from PIL import Image
from sacred.utils import recursive_update

FAST = PROJECT / "configs" / "searches" / "fast.yaml"


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "scripts/search.py", *arguments]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


def write(path: Path, **changes) -> Path:
    content = yaml.safe_load(FAST.read_text()) | changes
    path.write_text(yaml.safe_dump(content))
    return path


def wait_for(condition, seconds: float = 300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("never happened")


def kill(process: subprocess.Popen, folder: Path) -> None:
    """Kills the search and the training that it has started."""
    process.kill()
    process.wait()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"runs_dir='{folder}".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def test_a_killed_search_goes_on_and_exports_its_best_trial(tmp_path, monkeypatch, capsys, in_process):
    folder = tmp_path / "fast"
    rates = {"low": 0.02, "high": 0.1, "log": True}  # with lower ones gradient descent may end with a collapsed map
    parameters = {"training.learning_rate": rates, "training.optimizer": {"choices": ["adam", "sgd"]}}
    path = write(tmp_path / "fast.yaml", parameters=parameters)
    arguments = [str(path), "--trials", "2", "--folder", str(tmp_path), "--threads", "1"]
    process = start(*arguments)
    wait_for((folder / "trials" / "0" / "topography" / "1" / "checkpoint.pt").exists)
    kill(process, folder)
    assert [trial.state.name for trial in study_of(folder).trials] == ["RUNNING"]

    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 12)  # Sacred's heart beats every 10 seconds
    monkeypatch.setattr(search, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(search, "GRACE_SECONDS", 3)
    assert search.main(arguments) == 0
    lost, *tried = study_of(folder).trials
    assert (lost.state.name, [trial.state.name for trial in tried]) == ("FAIL", ["COMPLETE"] * 2)
    assert lost.params in [trial.params for trial in tried], "the lost trial was not taken up again"
    resumed = json.loads((folder / "trials" / "0" / "topography" / "2" / "config.json").read_text())
    assert resumed["resume"].endswith("trials/0/topography/1")

    records = [json.loads(path.read_text()) for path in folder.glob("trials/*/topography/*/record.json")]
    values = {record["metrics"]["validation/quantization_error"] for record in records}
    assert {trial.value for trial in tried} == values
    best = min(tried, key=lambda trial: trial.value)
    assert f"best: validation/quantization_error {best.value:.4f}" in capsys.readouterr().out
    exported = yaml.safe_load((folder / "best.yaml").read_text())
    base = yaml.safe_load((PROJECT / "configs" / "topography" / "fast.yaml").read_text())
    assert exported == recursive_update(base, nested(best.params))
    assert f"{best.value:.4f} with seed 0" in (folder / "best.yaml").read_text()
    pictures = {path.stem for path in (folder / "figures").glob("*.png") if Image.open(path).width > 300}
    assert pictures == set(search.PLOTS)

    assert search.main(arguments) == 0
    assert len(study_of(folder).trials) == 3, "a study that is done trains nothing"


def test_lists_can_be_searched(tmp_path, in_process):
    path = write(tmp_path / "sizes.yaml", parameters={"model.map_size": {"choices": [[2, 3], [5, 4]]}})
    arguments = [str(path), "--trials", "2", "--folder", str(tmp_path / "studies"), "--threads", "1"]
    assert search.main(arguments) == 0
    folder = tmp_path / "studies" / "sizes"
    configs = folder.glob("trials/*/topography/1/config.json")
    tried = [json.loads(path.read_text())["model"]["map_size"] for path in configs]
    assert len(tried) == 2
    assert all(size in ([2, 3], [5, 4]) for size in tried)
    assert yaml.safe_load((folder / "best.yaml").read_text())["model"]["map_size"] in tried


def test_the_best_configuration_is_one_of_the_experiments(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "digits"}} | nested({"training.optimizer": "sgd"})))
    topography.ex.add_named_config("best", str(path))
    assert resolve_config(topography.ex, "best")["training"]["optimizer"] == "sgd"


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "searches").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_search_is_sound(path):
    found = Search.read(path)
    found.check(seed=0)
    assert f"configs/searches/{path.name}" in path.read_text(), "its command"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "test/purity"}, "metric 'test/purity' is no metric of the validation split"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"pruner": "median"}, "must have exactly these keys: experiment, config, metric"),
        ({"config": "quick"}, "no named config 'quick'"),
        ({"experiment": "topografy"}, "no experiment 'topografy'"),
        ({"parameters": {"training.learning_rat": {"low": 0.1, "high": 0.2}}}, "unknown configuration key"),
        ({"parameters": {"training.learning_rate": {"low": -0.1, "high": 0.2}}}, "must be a number, greater than 0"),
        ({"parameters": {"training.optimizer": {"choices": ["adam", "lion"]}}}, "training.optimizer is 'lion'"),
        ({"parameters": {"training.learning_rate": {"low": 0.3, "high": 0.2}}}, "is no space"),
        ({"parameters": {"training.learning_rate": {"high": 0.2}}}, "is no space"),
        ({"parameters": {"model.map_size": {"choices": [{"rows": 3}]}}}, "choices are numbers, words, lists, true"),
        (
            {"parameters": {"model.map_size": {"choices": [[3, 4], [4]]}}},
            "map_size is [4]: it must be a list of 2",
        ),
        ({"parameters": {"seed": {"low": 0, "high": 9}}}, "the seed is no hyperparameter: give it as --seed"),
        (
            {"parameters": {"model": {"choices": [1]}, "model.alpha": {"choices": [1]}}},
            "model.alpha is a part of model",
        ),
        ({"parameters": {}}, "parameters must name values of the config"),
        ({"parameters": ["training.learning_rate"]}, "parameters must name values of the config"),
        ({"parameters": {1: {"choices": [1]}}}, "parameters must name values of the config"),
        ({"experiment": "errors"}, "no experiment 'errors'"),
    ],
)
def test_a_mistake_in_a_search_is_one_line_before_any_trial(tmp_path, capsys, changes, message):
    path = write(tmp_path / "wrong.yaml", **changes)
    assert search.main([str(path), "--folder", str(tmp_path / "studies")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "studies").exists()


def test_a_storage_that_does_not_answer_is_one_line_without_its_password(tmp_path, capsys):
    storage = "sqlite:////nowhere/at/all/study.db"
    assert search.main([str(FAST), "--folder", str(tmp_path), "--storage", storage]) == 2
    assert "cannot use the storage sqlite:////nowhere" in capsys.readouterr().err
    assert search.main([str(FAST), "--folder", str(tmp_path), "--storage", "nosuch://user:pAssw0rd@host/db"]) == 2
    error = capsys.readouterr().err
    assert "cannot use the storage nosuch://***@host/db" in error
    assert "pAssw0rd" not in error


def test_another_search_does_not_join_a_study(tmp_path):
    found = Search.read(FAST)
    search.Study(found, tmp_path / "fast", None, 0, 1)
    with pytest.raises(UserError, match="the study fast was begun with"):
        search.Study(found, tmp_path / "fast", None, 1, 1)
    assert found.direction == "minimize"
    with pytest.raises(UserError, match="the study fast was begun with"):
        search.Study(replace(found, direction="maximize"), tmp_path / "fast", None, 0, 1)
    other = {**found.parameters, "training.learning_rate": {"low": 0.5, "high": 0.6}}
    with pytest.raises(UserError, match="the study fast was begun with"):
        search.Study(replace(found, parameters=other), tmp_path / "fast", None, 0, 1)


def test_a_trial_that_fails_by_itself_is_pruned_and_one_that_dies_is_retried(tmp_path, monkeypatch):
    study = search.Study(Search.read(FAST), tmp_path / "fast", None, 0, 1)
    started = []

    def train(script: str):
        def begin(job, setting):
            started.append(job)
            return subprocess.Popen(["sh", "-c", script])

        return begin

    monkeypatch.setattr(search, "train", train("exit 1"))
    study.run(1)
    monkeypatch.setattr(search, "train", train("kill -9 $$"))
    study.run(2)
    assert [trial.state.name for trial in study.study.trials] == ["PRUNED", "PRUNED"]
    assert len(started) == 1 + 1 + search.MOST_RETRIES
    assert study.study.trials[0].user_attrs["error"] == "it left no log"


def test_a_mistake_ends_the_search_instead_of_using_it_up(tmp_path, monkeypatch):
    study = search.Study(Search.read(FAST), tmp_path / "fast", None, 0, 1)

    def mistaken(job, setting):
        jobs.log_of(job, setting).parent.mkdir(parents=True)
        jobs.log_of(job, setting).write_text("error: MNIST cannot be downloaded\n")
        return subprocess.Popen(["sh", "-c", "exit 2"])

    monkeypatch.setattr(search, "train", mistaken)
    with pytest.raises(UserError, match="the first trial ends with: error: MNIST cannot be downloaded"):
        study.run(3)
    assert [trial.state.name for trial in study.study.trials] == ["FAIL"]


def test_an_interrupted_trial_goes_back_into_the_queue(tmp_path, monkeypatch):
    study = search.Study(Search.read(FAST), tmp_path / "fast", None, 0, 1)

    def interrupted(process):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "finish", interrupted)
    monkeypatch.setattr(search, "train", lambda *_: None)
    for _ in range(search.MOST_RETRIES + 2):  # however often
        with pytest.raises(KeyboardInterrupt):
            study.run(1)
    trials = study.study.trials
    assert [trial.state.name for trial in trials] == ["FAIL"] * (search.MOST_RETRIES + 2) + ["WAITING"]
    assert len({str(trial.params) for trial in trials}) == 1
    study.retry(study.study, trials[-2])  # and then it dies
    assert study.study.trials[-1].state.name == "WAITING"
    assert {study.retry.retried_trial_number(trial) for trial in study.study.trials[1:]} == {0}


def test_a_file_or_a_folder_that_cannot_be_used_is_one_line(tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes("größe".encode("latin-1"))
    assert search.main([str(tmp_path / "latin.yaml")]) == 2
    assert search.main([str(FAST), "--folder", str(tmp_path / "latin.yaml")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "cannot read the search" in first
    assert "choose another --folder" in second
