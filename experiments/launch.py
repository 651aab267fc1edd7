"""The command line of every experiment: Sacred's own, with one-line errors, clean interruption and `resume=`.

Exit status: 0 completed, 1 an unexpected exception, 2 an error that the user can mend, 130 Ctrl-C, 143 SIGTERM.
"""

import os
import pdb
import re
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from experiments.configuration import closest, config_folder, config_path, default_config, read_settings
from experiments.errors import UserError, check_copy
from experiments.files import read_mapping, shown
from experiments.observers.redaction import redact
from experiments.observers.run_folder import CHECKPOINT, check_observers

from docopt import DocoptExit, docopt
from sacred import Experiment
from sacred.arg_parser import get_config_updates
from sacred.observers import FileStorageObserver
from sacred.utils import (
    SacredError,
    format_sacred_error,
    iterate_flattened,
    print_filtered_stacktrace,
    recursive_update,
)

OBSERVERS = ("--file_storage", "--gcs", "--mongo_db", "--s3", "--sql", "--tiny_db")  # Sacred's, which redact nothing
OPTIONS = {  # what Sacred takes on trust, in words and as a pattern
    "--beat-interval": ("a number of seconds", r"(?=.*[1-9])\d*\.?\d+"),
    "--capture": ("no, sys or fd", "no|sys|fd"),
    "--id": ("letters, digits, - and _", r"[\w-]+"),
    "--loglevel": ("0 to 50, DEBUG, INFO, WARNING, ERROR or CRITICAL", r"\d+|DEBUG|INFO|WARNING|ERROR|CRITICAL"),
    "--priority": ("a number", r"-?\d+\.?\d*"),
}
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)  # PyTorch's words
NO_COMPILER = re.compile(r"No working C\+\+ compiler|Failed to find C compiler")  # also PyTorch's, and Triton's


def launch(experiment: Experiment, argv: Sequence[str] | None = None, in_processes: bool = False) -> NoReturn:
    """Run the command line `argv` (default: `sys.argv`) and exit; under torchrun only if it trains `in_processes`.

    Ctrl-C and SIGTERM raise KeyboardInterrupt in the experiment, once: Sacred marks the run INTERRUPTED, and whatever
    arrives while that is being saved is ignored. A UserError within a run leaves it FAILED; before one, no trace.
    """
    program, *arguments = sys.argv if argv is None else argv
    signals = _interrupt_on_signals()
    first_process = int(os.environ.get("RANK", 0)) == 0
    options: dict[str, Any] = {}
    try:
        check_copy(program)
        options = _parse(experiment, program, arguments)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not in_processes:
            raise UserError(f"{experiment.path} trains in one process: start it with python instead of torchrun")
        with nullcontext() if first_process else _unseen(options):
            _run(experiment, options)
        status = 0
    except UserError as error:
        if options.get("--debug"):
            traceback.print_exc()
        _print_line(f"error: {error}")
        status = 2
    except KeyboardInterrupt:
        if first_process:  # the folders of the others are thrown away
            _print_line(f"interrupted; {_how_to_resume(experiment, program)}")
        status = 128 + (signals[0] if signals else signal.SIGINT)
    except Exception as error:
        _report(error, experiment, options)
        status = 1
    sys.exit(status)


def resumed_config(experiment_name: str, folder: str, updates: dict[str, Any]) -> dict[str, Any]:
    """The configuration that continues the run in `folder`: its own, with `updates`; `tracking` starts afresh.

    A finished run is only evaluated again.

    Raises:
        UserError: `folder` is no run of this experiment with a checkpoint, or `updates` would change it.
    """
    for key, _ in iterate_flattened(updates):
        if key not in ("resume", "compute.threads") and not key.startswith("tracking."):
            raise UserError(
                f"{key} cannot change in a resumed run, which takes its configuration from {folder}: "
                "only tracking.* and compute.threads can"
            )
    for name in ("config.json", CHECKPOINT):
        if not os.path.isfile(Path(folder, name)):
            raise UserError(f"cannot resume {folder}: there is no {name} in it; give the folder of a run")
    run = read_mapping(Path(folder, "run.json"))
    if (name := run.get("experiment", {}).get("name", experiment_name)) != experiment_name:
        raise UserError(f"cannot resume {folder}: it is a run of {name}, not of {experiment_name}")
    config = read_mapping(Path(folder, "config.json"))
    if not config:
        raise UserError(f"cannot resume {folder}: its config.json is unreadable")
    config.pop("tracking", None)
    return recursive_update(config, {**updates, "resume": folder})


def _interrupt_on_signals() -> list[int]:
    received: list[int] = []

    def interrupt(number, frame):
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    return received


def _parse(experiment: Experiment, program: str, arguments: list[str]) -> dict[str, Any]:
    """Sacred's options, with its help printed where asked for and the command checked."""
    try:
        options = dict(docopt(experiment.get_usage(program)[2], arguments, default_help=False))
    except DocoptExit as error:
        raise UserError(
            f"cannot understand these arguments: write python {program} [COMMAND] [with NAME KEY=VALUE ...] [OPTIONS]; "
            "--help explains them"
        ) from error
    command, commands = options["COMMAND"], dict(experiment.gather_commands())
    if command and command not in commands:
        if "=" in command or command in dict(experiment.gather_named_configs()):
            raise UserError(f"{command} is no command but a setting: write 'with {command}'")
        raise UserError(f"unknown command {command!r}: {closest(command, commands)}")
    for name in OBSERVERS:
        if options.get(name):
            raise UserError(
                f"{name} is not supported: tracking.runs_dir and tracking.mongo_url say where runs are kept"
            )
    if options["--enforce_clean"]:
        raise UserError("--enforce_clean is not supported: each record says whether the code had uncommitted changes")
    if options["--name"]:
        raise UserError("--name is not supported, a run has the name of its experiment: describe it with --comment")
    for name, (words, pattern) in OPTIONS.items():
        if (value := options[name]) is not None and not re.fullmatch(pattern, value):
            raise UserError(f"{name} is {value!r}: it must be {words}")
    if options["help"] or options["--help"]:
        experiment.run_commandline([program, *arguments])
    return options


def _run(experiment: Experiment, options: dict[str, Any]) -> None:
    try:
        updates, named_configs = get_config_updates(options["UPDATE"])
    except TypeError as error:  # model=3 model.alpha=1
        raise UserError("a setting after 'with' has both a value and members: keep one of them") from error
    if options["COMMAND"] not in (None, experiment.default_command):
        updates = redact(updates)  # Sacred's own commands print or save them
    for name in named_configs:
        _check_named_config(name, experiment)
    info = {}
    if (folder := updates.get("resume")) is not None:
        if named_configs:
            raise UserError(f"resume takes the whole configuration from the run's folder: leave out {named_configs[0]}")
        folder = shown(str(folder))
        updates = resumed_config(experiment.path, folder, updates)
        info = {"resumed_from": folder}
    # The strict check of the configuration replaces Sacred's warnings about added and changed entries.
    try:
        run = experiment.run(
            options["COMMAND"], updates, named_configs, info=info, options={**options, "--force": True}
        )
    except (MemoryError, RuntimeError) as error:
        if NO_COMPILER.search(str(error)):
            raise UserError("compute.compile=True finds no C++ compiler: install g++ or leave it at False") from error
        if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
            raise
        raise UserError(f"not enough memory ({error}): lower training.batch_size or the size of the model") from error
    check_observers(run)


@contextmanager
def _unseen(options: dict[str, Any]) -> Iterator[None]:
    """Let a process beside the first one of torchrun's run without a trace: its folder is thrown away."""
    os.environ.pop("SACRED_MONGO_URL", None)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        options["--loglevel"] = "ERROR"
        options["UPDATE"] += [
            f"tracking.runs_dir={folder}",
            "tracking.mongo_url=None",
            "tracking.tensorboard=False",
            "tracking.figures=False",
        ]
        yield


def _check_named_config(name: str, experiment: Experiment) -> None:
    """Raise UserError unless `name` is a named config or a readable file of settings."""
    named_configs = dict(experiment.gather_named_configs())
    if os.path.isfile(name):
        read_settings(name)
    elif "/" in name or name.endswith((".yaml", ".json")):
        raise UserError(f"there is no file {name}: give the path of a file of settings, or the name of a config")
    elif name not in named_configs:
        if os.path.isfile(broken := config_path(experiment.path, name)):
            read_settings(shown(broken))
        hint = closest(name, named_configs) if named_configs else f"none in {shown(config_folder(experiment.path))}"
        raise UserError(
            f"unknown named config {name!r}: {hint} (a setting is written KEY=VALUE, without spaces or in quotes: "
            "model.map_size='[5, 6]')"
        )


def _how_to_resume(experiment: Experiment, program: str) -> str:
    run = experiment.current_run
    folders = [observer.dir for observer in run.observers if isinstance(observer, FileStorageObserver)] if run else []
    # A resumed run that has saved nothing yet is repeated from where it started.
    folders.append(run.config.get("resume") if run else None)
    for folder in filter(None, folders):
        if os.path.isfile(Path(folder, CHECKPOINT)):
            settings = [f"resume={shown(folder)}"]
            given, default = (config.get("tracking", {}) for config in (run.config, default_config(experiment)))
            if given.get("runs_dir") != default.get("runs_dir"):
                settings.append(f"tracking.runs_dir={given['runs_dir']}")
            return f"resume with: python {program} with {shlex.join(settings)}"
    return "there is no checkpoint yet: start again with the same command"


def _report(error: Exception, experiment: Experiment, options: dict[str, Any]) -> None:
    """Print an unexpected exception as Sacred's own command line does."""
    if options.get("--debug"):
        traceback.print_exc()
    elif options.get("--pdb"):
        traceback.print_exc()
        pdb.post_mortem()
    elif isinstance(error, SacredError):
        print(format_sacred_error(error, experiment.get_usage()[0]), file=sys.stderr)
    else:
        print_filtered_stacktrace()


def _print_line(message: str) -> None:
    print(redact(" ".join(message.splitlines())), file=sys.stderr)
