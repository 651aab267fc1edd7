"""A plan worked off: runs begun, retried and recorded, with one progress bar over all of them."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import UserError
from scripts.scheduling import jobs as run_folders
from scripts.scheduling.collecting import collect
from scripts.scheduling.executors import Ended, Local
from scripts.scheduling.jobs import Job, last_line, log_of, look_up, relative
from scripts.scheduling.plan import duration
from scripts.scheduling.slurm import Slurm

from tqdm import tqdm


class Execution:
    """Works a plan off with an executor; `troubles` has a line for each run that is still missing at the end."""

    def __init__(self, plan: list[Job], executor: Local | Slurm, results_runs: Path, retries: int):
        self.plan, self.executor, self.setting = plan, executor, executor.setting
        self.results_runs, self.retries = results_runs, retries
        self.troubles: list[str] = []
        self.pending: deque[Job] = deque()

    def run(self) -> list[str]:
        """Returns the troubles."""
        self.executor.adopt(self.plan)
        adopted = {job.key for job in self.executor.running}
        if adopted:
            print(f"{len(adopted)} of them under way since an earlier call", flush=True)
        self.pending.extend(job for job in self.plan if job.key not in adopted)
        with self.progress_bar() as self.bar:
            while self.pending or self.executor.running:
                self.begin()
                for ended in self.executor.ended():
                    self.finish(ended)
                self.show()
                time.sleep(2 if any(job.waiting_since for job in self.pending) else 0.2)
        return self.troubles

    def begin(self) -> None:
        """Starts as many runs as there are free slots; records what has been finished elsewhere."""
        ready = []
        for _ in range(len(self.pending)):
            if len(self.executor.running) + len(ready) >= self.executor.slots:
                break
            job = self.pending.popleft()
            look_up(job, self.setting)
            if job.action == "collect":
                self.record(job)
            elif job.action == "wait":
                self.wait(job)
            else:
                ready.append(job)
        if ready:
            for job in self.executor.start(ready):
                self.wait(job)

    def wait(self, job: Job) -> None:
        job.waiting_since = job.waiting_since or time.time()
        if time.time() - job.waiting_since > run_folders.HEARTBEAT_SECONDS + 15:
            place = f" in {relative(job.folder)}" if job.folder else ""
            self.trouble(job, f"it is running{place}; repeat this command when it has ended")
        else:
            self.pending.append(job)

    def finish(self, ended: Ended) -> None:
        job = ended.job
        job.waiting_since = 0.0
        look_up(job, self.setting)
        if job.action == "collect":
            self.record(job)
        elif ended.exit_status is None and not ended.on_purpose and job.deaths < self.retries:
            job.deaths += 1
            self.bar.write(f"died, retry {job.deaths} of {self.retries}: {job}: {ended.reason}", file=sys.stderr)
            self.pending.append(job)
        elif ended.exit_status is None:
            self.trouble(job, f"it died ({ended.reason})" + (f" after {job.deaths} retries" if job.deaths else ""))
        elif ended.exit_status:
            log = log_of(job, self.setting)
            self.trouble(job, f"failed with exit status {ended.exit_status}: {last_line(log)} (log: {relative(log)})")
        else:
            commit = self.setting.code[:8] or "unknown"
            self.trouble(job, f"it ended without a record for commit {commit} in {relative(self.setting.runs_dir)}")

    def record(self, job: Job) -> None:
        try:
            path = collect(job.folder, job.config_name, self.results_runs)
        except UserError as error:
            self.trouble(job, str(error))
        else:
            self.bar.write(f"recorded: {job} -> {relative(path)}")
            self.bar.update()

    def trouble(self, job: Job, reason: str) -> None:
        self.troubles.append(f"{job}: {reason}")
        self.bar.write(f"missing: {self.troubles[-1]}", file=sys.stderr)
        self.bar.update()

    @contextmanager
    def progress_bar(self) -> Iterator[tqdm]:
        self.shown = 0.0
        form = "{n_fmt}/{total_fmt} runs |{bar:24}| {elapsed} elapsed{postfix}"
        with tqdm(total=len(self.plan), bar_format=form, leave=True) as bar:
            yield bar

    def show(self) -> None:
        if time.time() - self.shown > (1 if sys.stderr.isatty() else 60):
            self.shown = time.time()
            left = self.executor.seconds_left(list(self.pending))
            about = "" if left is None else f"about {duration(left)} left; "
            self.bar.set_postfix_str(about + self.executor.status())
