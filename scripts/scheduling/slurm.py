"""The runs of a plan as jobs of a Slurm cluster, submitted through submitit.

A run folder says everything about a run, so nothing depends on Slurm's accounting: the states of jobs are read from
`squeue`, exit statuses from small files that the workers leave beside submitit's.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.configuration import closest
from experiments.errors import UserError
from scripts.records import write_result
from scripts.scheduling.executors import Ended
from scripts.scheduling.jobs import Job, Setting, died, last_line, log_of, settle, train

import submitit
from submitit.core.utils import FailedJobError
from tqdm import tqdm

TIMEOUTS = 50  # how often submitit may requeue one job at its time limit
POLL_SECONDS = 5
LAG_SECONDS = 10  # after which a job that has left without an exit status counts as dead: shared folders lag behind
PATIENCE_SECONDS = 600  # with a controller that does not answer
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED",
    "TIMEOUT",
}  # fmt: skip


class SlurmSilent(Exception):
    """A command of Slurm failed, mostly because the controller does not answer."""


def ask(*arguments: str) -> list[str]:
    """Lines that a command of Slurm prints; SlurmSilent when it fails."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise SlurmSilent(f"{arguments[0]} took longer than two minutes") from error
    if done.returncode:
        raise SlurmSilent(" ".join(done.stderr.split()) or f"{arguments[0]} failed")
    return done.stdout.splitlines()


def minutes(limit: str) -> float:
    """Slurm's [days-]hours:minutes:seconds or minutes:seconds; `infinite` and the like are infinite."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in [days or "0", *parts]):
        return float("inf")
    hours, minute, seconds = ([0] * 3 + [int(part) for part in parts])[-3:]
    return int(days or 0) * 1440 + hours * 60 + minute + seconds / 60


def check_slurm(partition: str | None, limit_minutes: int) -> None:
    """UserError unless a Slurm answers that has the partitions, separated by commas, and one of them allows the limit.

    None stands for its default partition.
    """
    if missing := [name for name in ("sbatch", "srun", "squeue", "sinfo", "scontrol") if not shutil.which(name)]:
        raise UserError(
            f"there is no Slurm here ({missing[0]} is not on the PATH): "
            "run this where sbatch works, or use --executor local"
        )
    partition = partition or os.environ.get("SBATCH_PARTITION")
    try:
        lines = ask("sinfo", "--noheader", "--format=%P|%l")
    except SlurmSilent as error:
        raise UserError(f"Slurm does not answer ({error}): try again later, or use --executor local") from error
    limits = {}
    for line in lines:
        name, _, limit = line.partition("|")
        limits[name.rstrip("*")] = minutes(limit)
        if name.endswith("*"):
            partition = partition or name.rstrip("*")
    if partition is None:
        raise UserError(f"this Slurm has no default partition: choose one with --partition ({', '.join(limits)})")
    for name in partition.split(","):
        if name not in limits:
            raise UserError(f"Slurm has no partition {name!r}: {closest(name, limits)}")
    if limit_minutes > (most := max(limits[name] for name in partition.split(","))):
        raise UserError(
            f"--time-limit {limit_minutes}: partition {partition} allows {most:.0f} minutes; "
            "a run that needs longer is requeued and resumes"
        )


@dataclass
class Worker:
    """What a Slurm job does for one run; submitit pickles it.

    It looks the run up when it starts, so that whoever starts it again - submitit at the time limit, Slurm after a
    node has failed - resumes the latest checkpoint, or finds that nothing is left to do.
    """

    job: Job
    setting: Setting
    exit_file: Path
    process: subprocess.Popen | None = field(default=None, repr=False)

    def __call__(self) -> None:
        settle(self.job, self.setting)
        status = 0
        if self.job.action != "collect":
            self.process = train(self.job, self.setting)
            while (status := self.process.poll()) is None:
                time.sleep(0.2)
        if not died(status):
            write_result(self.exit_file, str(status).encode())
        if status:
            words = last_line(log_of(self.job, self.setting))
            raise RuntimeError(f"the training ended with exit status {status}: {words}")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit when Slurm warns of the time limit: lets the run save its state, and is then requeued."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            with suppress(ChildProcessError):  # not `wait`: the signal may have come in the middle of `poll`
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(replace(self, process=None))


@dataclass(frozen=True)
class Task:
    """One element of a job array: the array's name, which is also its folder's, and the run's place in it."""

    array: str
    index: int


class Slurm:
    """Job arrays, submitted through submitit; `<runs_dir>/slurm/<name of the array>/` holds what belongs to each.

    A repeated reproduce.py recognises its arrays in the queue by their names, so no run is ever submitted twice.
    """

    slots = sys.maxsize  # all runs of a plan are submitted at once; Slurm starts `at_a_time` of them

    def __init__(
        self, setting: Setting, at_a_time: int, partition: str | None, limit_minutes: int, gpus: int, gigabytes: int
    ):
        check_slurm(partition, limit_minutes)
        self.setting, self.at_a_time = setting, at_a_time
        self.folder = setting.runs_dir.absolute() / "slurm"
        self.parameters = {
            "time": limit_minutes,
            "signal_delay_s": min(90, limit_minutes * 15),  # seconds before the limit in which a run saves its state
            "array_parallelism": at_a_time,
            "cpus_per_task": setting.threads,
            "mem": f"{gigabytes}GB",
            "additional_parameters": {"requeue": True},
        }
        if partition:
            self.parameters["partition"] = partition
        if gpus:
            self.parameters["gpus_per_node"] = gpus
        self.running: list[Job] = []
        self.tasks: dict[tuple, Task] = {}
        self.states: dict[Task, str] = {}
        self.reasons: dict[Task, str] = {}  # why a task is pending
        self.left: dict[Task, float] = {}  # when a task was first seen to be over
        self.polled = 0.0
        self.silent_since: float | None = None

    def adopt(self, plan: list[Job]) -> None:
        """Takes over the runs of the plan that are in Slurm's queue."""
        self.poll_until_answered()
        jobs = {job.key: job for job in plan}
        for task, state in self.states.items():
            array = self.folder / task.array / "runs.json"
            if state in OVER or not array.exists():
                continue
            content = json.loads(array.read_text())
            key = tuple(content["runs"][task.index])
            if content.get("code") == self.setting.code and key in jobs:
                self.running.append(jobs[key])
                self.tasks[key] = task

    def start(self, jobs: list[Job]) -> list[Job]:
        """Submits the jobs as one array; their workers look whether another command is training them.

        Raises:
            UserError: Slurm refuses them, or has not answered for ten minutes.
        """
        array = f"reproduce-{uuid.uuid4().hex[:8]}"
        folder = self.folder / array
        content = {"code": self.setting.code, "runs": [job.key for job in jobs]}
        write_result(folder / "runs.json", json.dumps(content).encode())
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(job_name=array, **self.parameters)
        self.poll_until_answered()
        try:
            with executor.batch():
                for index, job in enumerate(jobs):
                    executor.submit(Worker(job, self.setting, folder / f"{index}.exit"))
        except FailedJobError as error:
            raise UserError(f"Slurm refuses the jobs: {last_message(error)}") from error
        for index, job in enumerate(jobs):
            self.running.append(job)
            self.tasks[job.key] = Task(array, index)
            self.states[Task(array, index)] = "PENDING"
        self.polled = time.time()
        return []

    def poll_until_answered(self) -> None:
        self.poll()
        while self.silent_since:
            time.sleep(POLL_SECONDS)
            self.poll()

    def poll(self) -> None:
        """Asks for the states of all our tasks; keeps the old ones while Slurm does not answer.

        Raises:
            UserError: it has not answered for ten minutes.
        """
        self.polled = time.time()
        try:
            user = str(os.getuid())
            lines = ask("squeue", "--noheader", "--array", "--states=all", f"--user={user}", "--format=%K|%T|%r|%j")
        except SlurmSilent as error:
            if not self.silent_since:
                tqdm.write(f"Slurm does not answer ({error}); its jobs go on, asking again", file=sys.stderr)
            self.silent_since = self.silent_since or time.time()
            if time.time() - self.silent_since > PATIENCE_SECONDS:
                raise UserError(
                    f"Slurm has not answered for ten minutes ({error}): repeat this command later"
                ) from error
            return
        self.silent_since = None
        found = {}
        for line in lines:
            index, state, reason, array = line.split("|", 3)
            task = Task(array, int(index) if index.isdigit() else 0)
            if found.get(task) in (None, *OVER):  # a requeued task is listed once more
                found[task], self.reasons[task] = state, reason
        self.states = {task: "GONE" for task in self.tasks.values()} | found

    def ended(self) -> list[Ended]:
        if time.time() - self.polled > POLL_SECONDS:
            self.poll()
        over = []
        for job in list(self.running):
            task = self.tasks[job.key]
            exit_file = self.folder / task.array / f"{task.index}.exit"
            state = self.states[task]
            if exit_file.exists():
                over.append(Ended(job, int(exit_file.read_text())))
            elif state in OVER and not self.silent_since:
                if time.time() - self.left.setdefault(task, time.time()) < LAG_SECONDS:
                    continue
                over.append(Ended(job, None, f"Slurm says {state}: {self.last_words(job, task)}", state == "CANCELLED"))
            else:
                self.left.pop(task, None)
                continue
            self.running.remove(job)
            del self.tasks[job.key]
        return over

    def last_words(self, job: Job, task: Task) -> str:
        log = log_of(job, self.setting)
        logs = worker_logs(self.folder / task.array, task.index)
        return last_line(log if log.exists() or not logs else logs[-1])

    def seconds_left(self, pending: list[Job]) -> float | None:
        """Nobody knows how long a queue is."""
        return None

    def status(self) -> str:
        if self.silent_since:
            return "waiting for Slurm to answer"
        states = [self.described(task) for task in self.tasks.values()]
        return "Slurm: " + ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))

    def described(self, task: Task) -> str:
        state = self.states[task].lower()
        return f"{state} ({self.reasons[task]})" if state == "pending" and task in self.reasons else state

    def stop(self) -> str:
        """Leaves the jobs to Slurm: whoever is logged out loses nothing."""
        if not self.tasks:
            return "nothing is running"
        names = ",".join(sorted({task.array for task in self.tasks.values()}))
        return f"the jobs go on in Slurm (to end them: scancel --name={names})"


def worker_logs(folder: Path, index: int) -> list[Path]:
    """What submitit's workers wrote: `<job>_<index>_<process>_log.err`, or `<job>_<process>_log.err` of one job."""
    named = re.compile(rf"\d+_({index}_)?\d+_log\.err")
    return sorted(log for log in folder.glob("*_log.err") if named.fullmatch(log.name))


def last_message(error: Exception) -> str:
    """What sbatch said last, of the long message that submitit makes of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch:")]
    return (said or lines or ["no reason given"])[-1]
