"""One run that a table asks for: what its run folders say about it, and the process that trains it.

It reads nothing but run folders: a Slurm worker decides with it whether to start or to resume.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from experiments import PROJECT
from experiments.errors import UserError
from experiments.files import read_mapping
from experiments.observers.run_folder import CHECKPOINT
from scripts.locks import lock
from scripts.records import differing_keys

HEARTBEAT_SECONDS = 45  # Sacred rewrites run.json every 10 s while a run lives
END_OF_LOG = 4096  # bytes, more than a progress bar's line
COMMENT = "reproduce.py at commit "


class Taken(UserError):
    """Another command is training the run."""


@dataclass
class Job:
    """One missing run: what to do about it, with which folder, and the seconds it should take."""

    experiment: str
    config_name: str
    seed: int
    config: dict = field(default_factory=dict, repr=False)  # every value that it should have
    updates: list[str] = field(default_factory=list, repr=False)  # key=value that its named config does not have
    action: str = "start"  # start, resume, collect, or wait while it runs elsewhere
    folder: Path | None = None
    estimate: float = 0.0
    deaths: int = 0
    waiting_since: float = 0.0

    @property
    def row(self) -> str:
        return f"{self.experiment}/{self.config_name}"

    @property
    def key(self) -> tuple[str, str, int]:
        return self.experiment, self.config_name, self.seed

    def __str__(self) -> str:
        return f"{self.experiment} {self.config_name} seed {self.seed}"


@dataclass(frozen=True)
class Setting:
    """What all runs of one plan share."""

    runs_dir: Path
    threads: int
    code: str
    """see `state_of_code`"""


def program(name: str) -> Path:
    """The file that runs the experiment."""
    return PROJECT / "experiments" / f"{name}.py"


def relative(path: Path) -> Path:
    """`path` as seen from the project where it lies below it, for messages and for what runs store."""
    path = path.absolute()
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def look_up(job: Job, setting: Setting) -> None:
    """Sets the job's action and folder from the run folders of the same experiment, config and seed.

    Collect what finished with this code; else wait for what is running; else resume the latest checkpoint of what
    reproduce.py started with this code and was interrupted, killed or failed for want of disk or memory; else start.
    (What failed by itself, as with a loss that is not a number, has left failed.pt.) The comment that `command` gives
    its runs tells with which code they began; the record of any other run tells its commit, which is all where nothing
    was changed.
    """
    job.action, job.folder = "start", None
    interrupted = []
    for folder in sorted(setting.runs_dir.joinpath(job.experiment).glob("*/")):
        config, run = (read_mapping(folder / name) for name in ("config.json", "run.json"))
        if config.get("seed") != job.seed or differing_keys(config, job.config):
            continue
        status = run.get("status")
        ours = run.get("meta", {}).get("comment") == COMMENT + setting.code
        record = read_mapping(folder / "record.json")
        same_code = ours or (record.get("git_commit") == setting.code and not record.get("git_dirty"))
        if status == "COMPLETED" and record and same_code:
            job.action, job.folder = "collect", folder
            return
        if status == "RUNNING" and time.time() - (folder / "run.json").stat().st_mtime < HEARTBEAT_SECONDS:
            job.action, job.folder = "wait", folder
        unfinished = status in ("RUNNING", "INTERRUPTED") or (
            status == "FAILED" and not (folder / "failed.pt").exists()
        )
        if unfinished and ours and (folder / CHECKPOINT).exists():
            interrupted.append(folder)
    if job.action == "start" and interrupted:
        job.action = "resume"
        job.folder = max(interrupted, key=lambda folder: (folder / CHECKPOINT).stat().st_mtime)


def settle(job: Job, setting: Setting) -> None:
    """`look_up`, once the heartbeat of a run that lives (or has just died) has fallen silent."""
    look_up(job, setting)
    while job.action == "wait":
        time.sleep(1)
        look_up(job, setting)


def command(job: Job, setting: Setting) -> list[str]:
    fresh = [job.config_name, f"seed={job.seed}", *job.updates]
    settings = [f"resume={str(relative(job.folder))!r}"] if job.action == "resume" else fresh
    settings += [f"tracking.runs_dir={str(relative(setting.runs_dir))!r}", f"compute.threads={setting.threads}"]
    return [
        sys.executable,
        str(program(job.experiment)),
        "with",
        *settings,
        f"--comment={COMMENT}{setting.code}",
    ]


def log_of(job: Job, setting: Setting) -> Path:
    """What the run writes to standard error."""
    return setting.runs_dir / "logs" / f"{'-'.join(map(str, job.key))}.log"


def train(job: Job, setting: Setting, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts the run, in a session of its own and deaf to SIGUSR2, so that signals reach it once: through its parent.

    (Ctrl-C goes to a whole session, and Slurm warns of the time limit by SIGUSR2 to every process of a job.)

    Raises:
        Taken: another command is training it: its log is locked for as long as the run lives, which inherits the lock.
        UserError: the log cannot be written.
    """
    path = log_of(job, setting)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another --runs-dir") from error
    with log:
        if not lock(log.fileno()):
            raise Taken(f"another command is training {job} (log: {relative(path)})")
        log.truncate(0)
        return subprocess.Popen(
            command(job, setting),
            cwd=PROJECT,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        )


def died(exit_status: int) -> bool:
    """Whether a training was killed or interrupted, rather than ended by itself."""
    return exit_status < 0 or exit_status in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def last_line(log: Path) -> str:
    """The last line of a log, progress bars split at their carriage returns."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - END_OF_LOG, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return "it left no log"
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "it said nothing")


def bar_seconds_left(log: Path) -> float:
    """What the progress bar at the end of a log says is left; 0 where it has none or does not know."""
    left = re.search(r"<(?:(\d+):)?(\d+):(\d+)", last_line(log))
    hours, minutes, seconds = (int(part or 0) for part in left.groups()) if left else (0, 0, 0)
    return 3600 * hours + 60 * minutes + seconds
