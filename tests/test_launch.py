"""The command line of an experiment: exit status, what it prints, and what it leaves on disk."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments import PROJECT, configuration, registration
from experiments.configuration import at_least, check_config, default_config, one_of, optional, positive, text
from experiments.datasets.physionet2012 import load_physionet2012
from experiments.datasets.readers import read_image_folder
from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError
from experiments.launch import launch, resumed_config
from experiments.observers.run_folder import RunFolderObserver, check_writable

import pytest
from sacred import SETTINGS, Experiment, Ingredient
from sacred.observers import FileStorageObserver

RULES = {
    "resume": optional(text),
    "behaviour": one_of("finish", "user_error", "bug", "stop", "stop_after_checkpoint"),
    "compute.threads": optional(at_least(1)),
    "tracking.mongo_url": optional(text),
    "training.learning_rate": positive,
    "training.clip": optional(positive),
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """An empty folder, with Sacred's capturing out of pytest's way and signal handlers put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SETTINGS, "CAPTURE_MODE", "no")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def make_experiment(name="dummy"):
    tracking = Ingredient("tracking", save_git_info=False)
    tracking.add_config(runs_dir="runs", mongo_url=None)
    compute = Ingredient("compute", save_git_info=False)
    compute.add_config(threads=None)
    experiment = Experiment(name, ingredients=[compute, tracking], save_git_info=False)
    experiment.add_config(
        seed=0,
        resume=None,
        behaviour="finish",
        model={"alpha": 10.0, "map_size": [8, 8]},
        training={"learning_rate": 0.001, "clip": 1.0},
    )
    experiment.add_named_config("fast", {"model": {"map_size": [2, 2]}})

    @experiment.config_hook
    def check(config, command_name, logger):
        check_config(config, default_config(experiment), RULES)
        experiment.observers[:] = [FileStorageObserver(Path(config["tracking"]["runs_dir"], name))]

    @experiment.main
    def main(behaviour, _run):
        """Do as the configuration says."""
        if behaviour == "user_error":
            raise UserError("the loss is not a number\nin epoch 3")
        if behaviour == "bug":
            raise RuntimeError("a bug")
        if behaviour == "stop_after_checkpoint":
            Path(_run.observers[0].dir, "checkpoint.pt").touch()
        if behaviour.startswith("stop"):
            signal.raise_signal(signal.SIGTERM)

    return experiment


@pytest.fixture
def run(capsys):
    """Launch with arguments as a shell would split them; returns exit status, stdout and stderr."""

    def run_command_line(arguments, experiment=None):
        with pytest.raises(SystemExit) as stop:
            launch(experiment or make_experiment(), ["experiments/dummy.py", *shlex.split(arguments)])
        return stop.value.code or 0, *capsys.readouterr()

    return run_command_line


def saved(folder, name="run.json"):
    return json.loads(Path(folder, name).read_text())


def make_run_folder(folder="runs/dummy/9", experiment="dummy", **changes):
    """A run folder as Sacred leaves it, with a checkpoint."""
    config = {
        "seed": 5,
        "resume": None,
        "behaviour": "finish",
        "model": {"alpha": 3, "map_size": [4, 5]},
        "training": {"learning_rate": 0.5, "clip": None},
        "compute": {"threads": 2},
        "tracking": {"runs_dir": "old_runs", "mongo_url": "mongodb://REDACTED@host"},
        **changes,
    }
    Path(folder).mkdir(parents=True)
    Path(folder, "config.json").write_text(json.dumps(config))
    Path(folder, "run.json").write_text(json.dumps({"status": "INTERRUPTED", "experiment": {"name": experiment}}))
    Path(folder, "checkpoint.pt").touch()
    return config


def test_a_named_config_that_cannot_be_read_disturbs_no_other(run, tmp_path, monkeypatch):
    monkeypatch.setattr(configuration, "PROJECT", tmp_path)
    files = {"good": "seed: 7", "broken": "model: [", "dotted": "model.alpha: 3", "empty": ""}
    (tmp_path / "configs" / "dummy").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "configs" / "dummy" / f"{name}.yaml").write_text(content)

    def experiment():
        made = make_experiment()
        registration.add_named_configs(made)
        return made

    assert run("with good", experiment())[0] == 0
    assert saved("runs/dummy/1", "config.json")["seed"] == 7
    for name, reason in (("broken", "cannot read"), ("dotted", "has the key 'model.alpha'"), ("empty", "no mapping")):
        status, _, errors = run(f"with {name}", experiment())
        assert (status, errors.count("\n")) == (2, 1)
        assert f"configs/dummy/{name}.yaml" in errors
        assert reason in errors


def test_a_program_of_another_copy_is_refused(tmp_path, capsys):
    other = tmp_path / "copy" / "experiments"
    other.mkdir(parents=True)
    (other / "errors.py").touch()
    with pytest.raises(SystemExit) as stop:
        launch(make_experiment(), [str(other / "dummy.py"), "with", "fast"])
    assert stop.value.code == 2
    assert f"set PYTHONPATH={other.parent}" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_script_of_another_copy_is_refused(tmp_path):
    for folder in ("experiments", "scripts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "experiments" / "errors.py").touch()
    script = tmp_path / "scripts" / "tables.py"
    script.write_bytes((PROJECT / "scripts" / "tables.py").read_bytes())
    done = subprocess.run(
        [sys.executable, script, "--results", tmp_path / "results"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {script} would run the code of another copy of the project, {PROJECT}, which is the one that is "
        f"installed: use the Python of its own .venv, or set PYTHONPATH={tmp_path}\n"
    )
    assert not (tmp_path / "results").exists()


def test_a_completed_run(run, caplog):
    status, _, errors = run("with fast seed=3 model.alpha=2 training.clip=None")
    assert (status, errors) == (0, "")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert saved("runs/dummy/1")["status"] == "COMPLETED"
    config = saved("runs/dummy/1", "config.json")
    assert (config["seed"], config["model"]) == (3, {"alpha": 2, "map_size": [2, 2]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("with model.aplha=1", "unknown configuration key 'model.aplha': the closest valid one is model.alpha "),
        ("with tracking.mongo=x", "unknown configuration key 'tracking.mongo': .* tracking.mongo_url "),
        ("print_config with sede=1", "unknown configuration key 'sede': the closest valid one is seed "),
        ("with =3", "unknown configuration key '': "),
        ("with 'a$b=3'", "unknown configuration key 'a\\$b': "),
        ("with seed=x", "seed is 'x': it must be an integer$"),
        (
            "with model.map_size=8",
            r"model.map_size is 8: it must be a list of 2 .*, each an integer, such as \[8, 8\]$",
        ),
        ("with training.learning_rate=-1", "training.learning_rate is -1: it must be a number, greater than 0$"),
        ("with compute.threads=0", "compute.threads is 0: it must be an integer, at least 1, or None$"),
        ("with model=3", "model is a group of settings .* model.alpha, model.map_size$"),
        ("with tracking=3", "tracking is a group of settings .* tracking.mongo_url, tracking.runs_dir$"),
        ("with model=3 model.alpha=1", "a setting after 'with' has both a value and members"),
        ("with fsat", "unknown named config 'fsat': did you mean fast\\?"),
        ("with mnist", "unknown named config 'mnist': there are fast "),
        ("with tracking.mnist", "unknown named config 'tracking.mnist': there are fast "),
        ("with nosuch.ingredient", "unknown named config 'nosuch.ingredient': there are fast "),
        ("with seed = 3", r"unknown named config 'seed': .*KEY=VALUE, without spaces or in quotes"),
        ("with missing.yaml", "there is no file missing.yaml: "),
        ("with settings/mine", "there is no file settings/mine: "),
        ("with model.map_size=[5, 6]", r"unknown named config '6]': .*in quotes: model.map_size='\[5, 6\]'\)$"),
        ("with broken.yaml", "cannot read the settings in the file broken.yaml: "),
        ("with list.yaml", "cannot read the settings in the file list.yaml: it holds no mapping"),
        ("with settings.txt", "cannot read the settings in the file settings.txt: .*extension"),
        ("with wrong.yaml", "unknown configuration key 'model.aplha': "),
        ("with dotted.yaml", r"the file dotted.yaml has the key 'model.alpha': write names, and members below"),
        ("with number.yaml", "the file number.yaml has the key 1: write names"),
        ("with resumed.json", "the file resumed.json sets resume: remove it there and give resume=FOLDER alone"),
        ("trian", "unknown command 'trian': there are main, print_config, "),
        ("print_cnfig", r"unknown command 'print_cnfig': did you mean print_config\?$"),
        ("help trian", "unknown command 'trian': "),
        ("seed=3", "seed=3 is no command but a setting: write 'with seed=3'$"),
        ("fast", "fast is no command but a setting: write 'with fast'$"),
        ("fast seed=3", r"cannot understand these arguments: write python experiments/dummy.py \[COMMAND\] \[with "),
        ("with", "unknown command 'with': "),
        ("--nosuch", "cannot understand these arguments: "),
        ("-F elsewhere", "--file_storage is not supported: tracking.runs_dir and tracking.mongo_url say where"),
        ("-m db", "--mongo_db is not supported: "),
        ("--sql=postgresql://user:secret@host/db", "--sql is not supported: (?!.*secret)"),
        ("--name=trial", "--name is not supported, .*: describe it with --comment"),
        ("--beat-interval=abc", "--beat-interval is 'abc': it must be a number of seconds"),
        ("--beat-interval=0.0", "--beat-interval is '0.0': it must be a number of seconds"),
        ("--capture=foo", "--capture is 'foo': it must be no, sys or fd"),
        ("--id=../../elsewhere", "--id is '../../elsewhere': it must be letters, digits"),
        ("--priority=high", "--priority is 'high': it must be a number"),
        ("--enforce_clean", "--enforce_clean is not supported: each record says"),
        ("--loglevel=FOO", "--loglevel is 'FOO': it must be 0 to 50, DEBUG"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(arguments, message, run, tmp_path):
    Path("broken.yaml").write_text("model: {alpha: 1")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("settings.txt").write_text("seed: 3\n")
    Path("wrong.yaml").write_text("model: {aplha: 1}\n")
    Path("dotted.yaml").write_text("model.alpha: 1\n")
    Path("number.yaml").write_text("model: {1: 3}\n")
    Path("resumed.json").write_text('{"resume": "runs/dummy/1"}')
    before = set(tmp_path.iterdir())
    status, output, errors = run(arguments)
    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    assert re.match(message, errors.strip().removeprefix("error: "))
    assert set(tmp_path.iterdir()) == before


def test_settings_may_come_from_a_file(run):
    Path("settings.yaml").write_text("model: {alpha: 4.0}\n")
    assert run("with settings.yaml")[0] == 0
    assert saved("runs/dummy/1", "config.json")["model"] == {"alpha": 4.0, "map_size": [8, 8]}


def test_user_error_within_a_run_is_one_line_and_the_run_failed(run):
    assert run("with behaviour=user_error") == (2, "", "error: the loss is not a number in epoch 3\n")
    assert saved("runs/dummy/1")["status"] == "FAILED"


@pytest.mark.parametrize("arguments", ["with behaviour=user_error --debug", "with seed=x -d"])
def test_debug_shows_the_traceback_of_a_user_error(arguments, run):
    status, _, errors = run(arguments)
    assert status == 2
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("option", "header"),
    [("", "Traceback (most recent calls WITHOUT Sacred internals):"), ("-d", "Traceback (most recent call last):")],
)
def test_a_bug_shows_a_traceback(option, header, run):
    status, _, errors = run(f"with behaviour=bug {option}")
    assert status == 1
    assert errors.startswith(header)
    assert "RuntimeError: a bug" in errors
    assert saved("runs/dummy/1")["status"] == "FAILED"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("--help", "Configuration assignments of the form foo.bar=17"),
        ("help", "Configuration assignments of the form foo.bar=17"),
        ("help main", "Do as the configuration says."),
        ("print_named_configs", "fast"),
        ("print_config with fast seed=42", "42"),
    ],
)
def test_sacreds_own_commands_work_and_are_not_recorded(arguments, shown, run):
    status, output, errors = run(arguments)
    assert (status, errors) == (0, "")
    assert shown in output
    assert not Path("runs").exists()


def test_credentials_are_neither_printed_nor_saved(run):
    _, _, errors = run("with seed=mongodb://user:secret@host/db")
    assert errors == "error: seed is 'mongodb://***@host/db': it must be an integer\n"
    url = "tracking.mongo_url=mongodb://user:secret@host/db"
    status, output, errors = run(f"print_config with {url}")
    assert status == 0
    assert "mongodb://***@host/db" in output
    assert "secret" not in output + errors
    assert run(f"save_config with {url}")[0] == 0
    assert saved(".", "config.json")["tracking"]["mongo_url"] == "mongodb://***@host/db"


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"])
def test_too_little_memory_is_one_line(words, run):
    experiment = make_experiment()

    @experiment.pre_run_hook
    def allocate():
        raise RuntimeError(f"{words}\nand more")

    status, _, errors = run("", experiment)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"error: not enough memory ({words} and more): lower training.batch_size")


@pytest.mark.parametrize("words", ["No working C++ compiler found in None", "Failed to find C compiler. Please"])
def test_a_missing_compiler_is_one_line(words, run):
    experiment = make_experiment()

    @experiment.pre_run_hook
    def compile_it():
        raise RuntimeError(words)

    status, _, errors = run("", experiment)
    assert status == 2
    assert errors == "error: compute.compile=True finds no C++ compiler: install g++ or leave it at False\n"


def test_only_the_first_process_says_how_to_go_on(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("experiments.launch._unseen", contextlib.nullcontext)
    status, _, errors = run("with behaviour=stop_after_checkpoint")
    assert (status, errors) == (143, "")


def test_sacreds_options_are_taken(run):
    status, _, errors = run("--id=trial-7 --beat-interval=2.5 --loglevel=40 --capture=no --comment=mine")
    assert (status, errors) == (0, "")
    assert saved("runs/dummy/trial-7")["meta"]["comment"] == "mine"


def test_a_run_folder_that_is_not_whole_is_an_error(run):
    """The observer of experiments.ingredients.tracking remembers what it could not write."""
    experiment = make_experiment()

    @experiment.post_run_hook
    def lose_a_file(_run):
        observer = RunFolderObserver(Path("runs/dummy"))
        observer.dir, observer.error = "runs/dummy/1", OSError(28, "No space left on device")
        _run.observers.append(observer)
        observer.run_entry = {}

    status, _, errors = run("", experiment)
    assert (status, errors.count("\n")) == (2, 1)
    assert "No space left on device" in errors


def test_resume_takes_the_configuration_from_the_run_folder(run, tmp_path):
    old = make_run_folder()
    assert run(f"with resume={tmp_path}/runs/dummy/9/ compute.threads=1 tracking.runs_dir=new_runs")[0] == 0
    expected = {
        **old,
        "resume": "runs/dummy/9",
        "compute": {"threads": 1},
        "tracking": {"runs_dir": "new_runs", "mongo_url": None},
    }
    assert saved("new_runs/dummy/1", "config.json") == expected
    assert saved("new_runs/dummy/1", "info.json") == {"resumed_from": "runs/dummy/9"}


def test_resume_of_a_killed_run_whose_record_is_cut_off(run):
    make_run_folder("runs/dummy/1")
    Path("runs/dummy/1/run.json").write_text('{"status": "RUNN')
    assert run("with resume=runs/dummy/1")[0] == 0
    assert saved("runs/dummy/2", "config.json")["seed"] == 5


def test_resume_none_is_an_ordinary_run(run):
    assert run("with resume=None seed=4")[0] == 0
    assert saved("runs/dummy/1", "config.json")["seed"] == 4
    assert not Path("runs/dummy/1/info.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("seed=1", "seed cannot change in a resumed run, .* only tracking.* and compute.threads can$"),
        ("compute.device=cpu", "compute.device cannot change in a resumed run"),
        ("fast", "resume takes the whole configuration from the run's folder: leave out fast$"),
        ("compute.threads=0", "compute.threads is 0: it must be"),
        ("resume=elsewhere", "cannot resume elsewhere: there is no config.json in it"),
        ("resume=", r"cannot resume \.: there is no config.json in it"),
        ("resume=3", "cannot resume 3: there is no checkpoint.pt in it"),
        ("resume=other", "cannot resume other: it is a run of tdpsom, not of dummy$"),
        ("resume=outdated", "unknown configuration key 'gone': "),
        ("resume=damaged", "cannot resume damaged: its config.json is unreadable$"),
    ],
)
def test_resume_mistakes(arguments, message, run):
    make_run_folder()
    make_run_folder("3")
    Path("3/checkpoint.pt").unlink()
    make_run_folder("other", experiment="tdpsom")
    make_run_folder("outdated", gone=1)
    make_run_folder("damaged")
    Path("damaged/config.json").write_text("{")
    status, output, errors = run(f"with resume=runs/dummy/9 {arguments}")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert re.match(message, errors.strip().removeprefix("error: "))
    assert [path.name for path in Path("runs/dummy").iterdir()] == ["9"]


def test_interrupted_before_the_first_checkpoint(run):
    status, _, errors = run("with behaviour=stop")
    assert status == 143
    assert errors == "interrupted; there is no checkpoint yet: start again with the same command\n"
    assert saved("runs/dummy/1")["status"] == "INTERRUPTED"


def test_interrupted_after_a_checkpoint(run):
    status, _, errors = run("with behaviour=stop_after_checkpoint 'tracking.runs_dir=my runs'")
    assert status == 143
    advice = "interrupted; resume with: python experiments/dummy.py with "
    assert errors == advice + "'resume=my runs/dummy/1' 'tracking.runs_dir=my runs'\n"


def test_a_resumed_run_that_saved_nothing_is_resumed_from_where_it_started(run):
    make_run_folder(behaviour="stop")
    status, _, errors = run("with resume=runs/dummy/9")
    assert status == 143
    assert errors.endswith("with resume=runs/dummy/9\n")


SCRIPT = """
import sys
import time
from pathlib import Path

from sacred import SETTINGS, Experiment
from sacred.observers import FileStorageObserver

from experiments.configuration import check_config, default_config, optional, text
from experiments.errors import UserError
from experiments.launch import launch

SETTINGS.CAPTURE_MODE = "sys"
experiment = Experiment("dummy")
experiment.add_config(seed=0, resume=None, seconds=60.0)
experiment.observers.append(FileStorageObserver("runs/dummy"))

@experiment.config_hook
def check(config, command_name, logger):
    check_config(config, default_config(experiment), {"resume": optional(text)})

@experiment.main
def main(seconds, resume, _run):
    if seconds < 0:
        raise UserError("time runs forward")
    if resume:
        return Path(resume, "checkpoint.pt").read_text()
    checkpoint = Path(_run.observers[0].dir, "checkpoint.pt")
    try:
        Path("ready").touch()
        time.sleep(seconds)
    except KeyboardInterrupt:
        Path("saving").touch()
        while not Path("signalled_again").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        checkpoint.write_text("whole")
        raise

if __name__ == "__main__":
    launch(experiment)
"""


@pytest.fixture
def start(tmp_path):
    """Start `python dummy.py <arguments>` as a process of its own."""
    Path("dummy.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore:pkg_resources is deprecated:UserWarning"}
    processes = []

    def start_process(*command):
        command = [sys.executable, *(command or ["dummy.py"])]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path, process, seconds=30):
    end = time.monotonic() + seconds
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_process_with_a_configuration_error(start):
    process = start("dummy.py", "with", "sed=1")
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert errors == "error: unknown configuration key 'sed': the closest valid one is seed (print_config shows all)\n"
    assert not Path("runs").exists()


def test_process_that_fails_within_a_run(start):
    process = start("dummy.py", "with", "seconds=-1")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.splitlines()[-1] == "error: time runs forward"
    assert "Traceback" not in errors
    assert saved("runs/dummy/1")["status"] == "FAILED"


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_process_is_interrupted_saves_and_resumes(number, exit_status, start):
    process = start()
    wait_for("ready", process)
    process.send_signal(number)
    wait_for("saving", process)
    for impatient in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(impatient)
    Path("signalled_again").touch()
    _, errors = process.communicate(timeout=30)

    assert process.returncode == exit_status
    assert "Traceback" not in errors
    assert saved("runs/dummy/1")["status"] == "INTERRUPTED"
    advice = "interrupted; resume with: python "
    assert errors.splitlines()[-1] == advice + "dummy.py with resume=runs/dummy/1"

    resumed = start(*shlex.split(errors.splitlines()[-1].removeprefix(advice)))
    resumed.communicate(timeout=30)
    assert resumed.returncode == 0
    assert saved("runs/dummy/2")["status"] == "COMPLETED"
    assert saved("runs/dummy/2")["result"] == "whole"
    assert saved("runs/dummy/2", "info.json") == {"resumed_from": "runs/dummy/1"}


@pytest.mark.parametrize(
    "use", [check_writable, load_physionet2012, read_image_folder, lambda folder: resumed_config("dummy", folder, {})]
)
def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path, use):
    """In a process of its own, which gives up the rights of root where it has them."""
    closed = tmp_path / "closed"
    (closed / "folder").mkdir(parents=True)
    import_torchvision_datasets()  # which the child may not be allowed to read
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            else:
                closed.chmod(0)
            use(closed / "folder")
        except UserError:
            os._exit(0)
        finally:
            os._exit(1)
    closed.chmod(0o700)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
