"""Where the runs of a plan are trained: what reproduce.py asks of an executor, and processes on this machine.

An executor has a `setting` (what its runs share), `slots` (runs that it takes), `at_a_time` (so many of them are
trained at once) and `running` (runs that it has started and not yet given back). `adopt` takes over what a former
reproduce.py has left running, `start` begins runs and returns those that another command is training, `ended` gives
back those that have ended, `seconds_left` and `status` say how long it still takes and, in a few words, what it is
doing, and `stop` is called on Ctrl-C and returns what became of the runs. `slurm.py` beside it is the other one.
"""

import signal
import subprocess
import time
from dataclasses import dataclass

from scripts.scheduling.jobs import Job, Setting, Taken, bar_seconds_left, died, log_of, train


@dataclass(frozen=True)
class Ended:
    """A run that is no longer running: its exit status, or None when it died without one (`reason` says how)."""

    job: Job
    exit_status: int | None
    reason: str = ""
    on_purpose: bool = False  # cancelled by somebody: not to be tried again


class Local:
    """Processes on this machine; where there are GPUs, each run sees one of them."""

    def __init__(self, setting: Setting, slots: int, gpus: list[str]):
        self.setting, self.slots, self.at_a_time, self.gpus = setting, slots, slots, gpus
        self.running: list[Job] = []
        self.processes: dict[tuple, tuple[subprocess.Popen, int, float]] = {}  # with its slot and when it began

    def adopt(self, plan: list[Job]) -> None:
        """Processes die with the machine or run under another reproduce.py: there is nothing to take over."""

    def start(self, jobs: list[Job]) -> list[Job]:
        elsewhere = []
        for job in jobs:
            taken = {slot for _, slot, _ in self.processes.values()}
            slot = next(slot for slot in range(self.slots) if slot not in taken)
            one = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
            try:
                self.processes[job.key] = train(job, self.setting, one), slot, time.time()
            except Taken:
                elsewhere.append(job)
            else:
                self.running.append(job)
        return elsewhere

    def ended(self) -> list[Ended]:
        over = []
        for job in list(self.running):
            status = self.processes[job.key][0].poll()
            if status is not None:
                self.running.remove(job)
                del self.processes[job.key]
                number = -status if status < 0 else status - 128
                over.append(Ended(job, None, f"killed by signal {number}") if died(status) else Ended(job, status))
        return over

    def seconds_left(self, pending: list[Job]) -> float:
        """By the estimates, but of a running one at least what its own progress bar says."""
        now = time.time()
        left = sum(job.estimate for job in pending)
        for job in self.running:
            by_estimate = job.estimate - (now - self.processes[job.key][2])
            left += max(by_estimate, bar_seconds_left(log_of(job, self.setting)))
        return left / self.slots

    def status(self) -> str:
        return "running " + ", ".join(f"{job.config_name} {job.seed}" for job in self.running)

    def stop(self) -> str:
        """Interrupts the runs as Ctrl-C would, waits until they have saved their state; a second Ctrl-C kills them."""
        processes = [process for process, _, _ in self.processes.values()]
        for process in processes:
            process.send_signal(signal.SIGINT)
        try:
            for process in processes:
                process.wait()
        except KeyboardInterrupt:
            for process in processes:
                process.kill()
                process.wait()
            return "the runs were killed and will resume from their last checkpoints"
        return "the runs have saved their state" if processes else "nothing was running"
