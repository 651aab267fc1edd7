"""Trains the runs that the tables still lack and records them.

    python scripts/reproduce.py --dry-run                          what is missing and about how long it takes
    python scripts/reproduce.py --tables dpsom_parity --rows mnist --seeds 3
    python scripts/reproduce.py --collect runs/dpsom/7             record a finished run that was made by hand

The same command continues after an interruption: what is recorded is skipped, a run that was finished but not recorded
is recorded, and one that this script started at the same commit resumes from its checkpoint. Only an unmodified named
config (seed, tracking and threads aside) becomes a record; `results/runs/<experiment>/<config_name>/<seed>.json` is
written when the run is COMPLETED and never before.

Exit status: 0 nothing is missing any more, 1 a run failed or is still missing, 2 a mistake in what was asked for,
130 interrupted.
"""

import argparse
import functools
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.trained_map import ARRAYS, SPRITE
from scripts.records import (
    Record,
    check_record,
    differing_keys,
    load_records,
    read_json,
    record_path,
    write_result,
)
from scripts.rendering import Runs
from scripts.tables import ROOT, TABLES, out_of_date, render_all

from sacred import Experiment
from sacred.initialize import create_run
from tqdm import tqdm

HEARTBEAT_SECONDS = 45  # Sacred rewrites run.json every 10 s while a run lives
LAST_ORDER = 9
SELECTED_SEED = 0  # of each row: its trained map is kept beside its record
GIGABYTES_A_JOB = 4
COMMENT = "reproduce.py at commit "


@dataclass
class Job:
    """One missing run: what to do about it, with which folder, and the seconds it should take."""

    runs: Runs
    seed: int
    action: str = "start"  # start, resume, collect, or wait while it runs elsewhere
    folder: Path | None = None
    estimate: float = 0.0
    began: float = 0.0
    waiting_since: float = 0.0
    log: Path | None = None
    process: subprocess.Popen | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.runs.experiment} {self.runs.config_name} seed {self.seed}"


# -------------------------------------------------------------------------------------------------------- named configs


def load_experiment(name: str) -> Experiment:
    """The Sacred experiment `ex` of experiments/<name>.py."""
    try:
        return importlib.import_module(f"experiments.{name}").ex
    except ModuleNotFoundError as error:
        if error.name != f"experiments.{name}":
            raise
        raise UserError(f"there is no experiment {name!r}: expected experiments/{name}.py") from error


def program(name: str) -> Path:
    """The file that runs the experiment."""
    return ROOT / "experiments" / f"{name}.py"


def relative(path: Path) -> Path:
    """`path` as seen from the project where it lies below it, for messages and for what runs store."""
    path = path.absolute()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def resolve_config(experiment: Experiment, config_name: str, seed: int = 0) -> dict:
    """Every value of a named config, as a run of it would store them; no run is started and no observer attached."""
    if config_name not in dict(experiment.gather_named_configs()):
        path = f"configs/{experiment.path}/{config_name}.yaml"
        raise UserError(f"{experiment.path} has no named config {config_name!r}: add {path}")
    run = create_run(experiment, "print_config", {"seed": seed}, (config_name,), force=True, log_level="ERROR")
    return json.loads(json.dumps(run.config))


@functools.cache
def named_config(experiment: str, config_name: str) -> dict:
    return resolve_config(load_experiment(experiment), config_name)


# ----------------------------------------------------------------------------------------------------------------- plan


def wanted(tables: list[str], rows: list[str], seeds: int | None) -> list[Job]:
    """Every run the tables ask for, most informative first: by order, then seed, then place in the tables."""
    every = list(dict.fromkeys(runs for name in tables for runs in TABLES[name].runs()))
    if unknown := sorted(set(rows) - {runs.config_name for runs in every}):
        names = ", ".join(dict.fromkeys(runs.config_name for runs in every))
        raise UserError(f"no row {', '.join(unknown)} in {', '.join(tables)}: there are {names}")
    jobs = []
    for place, runs in enumerate(every):
        if rows and runs.config_name not in rows:
            continue
        for seed in range(runs.stages[-1][0] if seeds is None else seeds):
            order = next((order for until, order in runs.stages if seed < until), LAST_ORDER)
            jobs.append(((order, seed, place), Job(runs, seed)))
    return [job for _, job in sorted(jobs, key=lambda pair: pair[0])]


def missing(jobs: list[Job], records: list[Record]) -> list[Job]:
    done = {(record.experiment, record.config_name, record.seed) for record in records}
    return [job for job in jobs if (job.runs.experiment, job.runs.config_name, job.seed) not in done]


def estimate(job: Job, records: list[Record], on_gpu: bool) -> float:
    """Seconds: the mean of this config's recorded runs on the same kind of device, else what the table states."""
    seconds = [
        record.total_seconds
        for record in records
        if (record.experiment, record.config_name) == (job.runs.experiment, job.runs.config_name)
        and bool(record.hardware.get("gpu")) == on_gpu
    ]
    return sum(seconds) / len(seconds) if seconds else job.runs.minutes * 60


def look_up(job: Job, runs_dir: Path, commit: str) -> None:
    """Sets the job's action and folder from the run folders of the same experiment, config and seed.

    Collect what finished at this commit; else wait for what is running; else resume the latest checkpoint of what this
    script started at this commit and was interrupted or killed; else start. The comment that `command` gives its runs
    tells at which commit they began.
    """
    job.action, job.folder = "start", None
    expected = named_config(job.runs.experiment, job.runs.config_name)
    interrupted = []
    for folder in sorted(runs_dir.joinpath(job.runs.experiment).glob("*/")):
        config, run = (read_or_none(folder / name) for name in ("config.json", "run.json"))
        if not config or not run or config.get("seed") != job.seed or differing_keys(config, expected):
            continue
        status = run.get("status")
        ours = run.get("meta", {}).get("comment") == COMMENT + commit
        record = read_or_none(folder / "record.json")
        if status == "COMPLETED" and record and (ours or record.get("git_commit") == commit):
            job.action, job.folder = "collect", folder
            return
        if status == "RUNNING" and time.time() - (folder / "run.json").stat().st_mtime < HEARTBEAT_SECONDS:
            job.action, job.folder = "wait", folder
        if status in ("RUNNING", "INTERRUPTED") and ours and (folder / "checkpoint.pt").exists():
            interrupted.append(folder)
    if job.action == "start" and interrupted:
        job.action = "resume"
        job.folder = max(interrupted, key=lambda folder: (folder / "checkpoint.pt").stat().st_mtime)


def read_or_none(path: Path) -> dict | None:
    """A JSON object, or None where a killed run left none."""
    try:
        content = read_json(path)
    except UserError:
        return None
    return content if isinstance(content, dict) else None


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def has_gpu() -> bool:
    import torch  # here, because it takes seconds that an unneeded plan should not cost

    return torch.cuda.is_available()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """As many runs at a time as leave each four cores and GIGABYTES_A_JOB of memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(cores() // 4, int(memory // GIGABYTES_A_JOB)))


def duration(seconds: float) -> str:
    """3 h 20 min, 12 min or 40 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def show_plan(plan: list[Job], jobs: int, threads: int) -> None:
    words = {"start": "", "resume": "resumes {}", "collect": "finished in {}", "wait": "is running in {}"}
    width = max(len(str(job)) for job in plan)
    for job in plan:
        note = words[job.action].format(job.folder and relative(job.folder))
        print(f"  {job!s:{width}}  about {duration(job.estimate):>10}  {note}".rstrip())
    total = sum(job.estimate for job in plan if job.action != "collect") / jobs
    count = f"{len(plan)} {'run is' if len(plan) == 1 else 'runs are'} missing"
    print(f"{count}: about {duration(total)} with {jobs} at a time, {threads} threads each")


# -------------------------------------------------------------------------------------------------------------- records


def collect(folder: Path, config_name: str, results_runs: Path) -> Path:
    """Records the finished run in `folder` as one of the named config; returns the record's path.

    The row's selected run, seed 0, also leaves its trained map in `results/maps/<experiment>/<config_name>/`.

    Raises UserError when the run is not COMPLETED, its config is not exactly the named one, or another record of the
    same run exists.
    """
    status = (read_or_none(folder / "run.json") or {}).get("status")
    if status != "COMPLETED":
        raise UserError(f"{folder} is not a finished run (status {status}): only COMPLETED runs are recorded")
    record = check_record(read_json(folder / "record.json"), folder / "record.json")
    if record["status"] != "COMPLETED":
        raise UserError(f"{folder / 'record.json'} has status {record['status']}: only COMPLETED runs are recorded")
    expected = named_config(record["experiment"], config_name)
    if keys := differing_keys(record["config"], expected):
        different = ", ".join(keys)
        raise UserError(
            f"{folder} is not an unmodified {config_name}, it differs in {different}: give it its own config"
        )
    record["config_name"] = config_name
    path = record_path(results_runs, record["experiment"], config_name, record["seed"])
    if path.exists() and read_json(path) != record:
        raise UserError(f"{path} already records another run than {folder}: delete it first to replace it")
    write_result(path, (json.dumps(record, indent=1) + "\n").encode())
    maps = results_runs.parent / "maps" / record["experiment"] / config_name
    for name in (ARRAYS, SPRITE):
        if record["seed"] == SELECTED_SEED and (folder / name).exists():
            write_result(maps / name, (folder / name).read_bytes())
    return path


def config_name_of(folder: Path) -> str:
    """The named config that the run in `folder` used, those of the tables first."""
    record = check_record(read_json(folder / "record.json"), folder / "record.json")
    experiment = record["experiment"]
    in_tables = [
        runs.config_name for table in TABLES.values() for runs in table.runs() if runs.experiment == experiment
    ]
    known = dict(load_experiment(experiment).gather_named_configs())
    for name in dict.fromkeys([*(name for name in in_tables if name in known), *known]):
        if not differing_keys(record["config"], named_config(experiment, name)):
            return name
    raise UserError(f"{folder} is a run of no named config: give it its own in configs/{experiment}/")


# ------------------------------------------------------------------------------------------------------------ execution


def command(job: Job, runs_dir: Path, threads: int, commit: str) -> list[str]:
    fresh = [job.runs.config_name, f"seed={job.seed}"]
    settings = [f"resume={relative(job.folder)}"] if job.action == "resume" else fresh
    settings += [f"tracking.runs_dir={relative(runs_dir)}", f"compute.threads={threads}"]
    return [sys.executable, str(program(job.runs.experiment)), "with", *settings, f"--comment={COMMENT}{commit}"]


def start(job: Job, runs_dir: Path, threads: int, commit: str) -> None:
    """Starts the run in a session of its own, so that Ctrl-C reaches it once: through `stop`."""
    logs = runs_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    job.log = logs / f"{job.runs.experiment}-{job.runs.config_name}-{job.seed}.log"
    job.began = time.time()
    with job.log.open("wb") as log:
        job.process = subprocess.Popen(
            command(job, runs_dir, threads, commit),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def stop(running: list[Job]) -> None:
    """Interrupts the runs as Ctrl-C would, waits until they have saved their state; a second Ctrl-C kills them."""
    for job in running:
        job.process.send_signal(signal.SIGINT)
    try:
        for job in running:
            job.process.wait()
    except KeyboardInterrupt:
        for job in running:
            job.process.kill()
            job.process.wait()


def last_line(log: Path) -> str:
    """The last line a run wrote to standard error, progress bars split at their carriage returns."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace"))]
    return next((line for line in reversed(lines) if line), "it said nothing")


def execute(plan: list[Job], runs_dir: Path, results_runs: Path, jobs: int, threads: int, commit: str) -> list[str]:
    """Works the plan off, at most `jobs` runs at a time; returns a line for each run that is still missing."""
    pending, running, troubles = deque(plan), [], []
    bar = tqdm(total=len(plan), bar_format="{n_fmt}/{total_fmt} runs |{bar:24}| {elapsed} elapsed{postfix}", leave=True)
    shown = 0.0

    def trouble(job: Job, reason: str) -> None:
        troubles.append(f"{job}: {reason}")
        bar.write(f"missing: {troubles[-1]}", file=sys.stderr)
        bar.update()

    def record(job: Job) -> None:
        try:
            path = collect(job.folder, job.runs.config_name, results_runs)
        except UserError as error:
            trouble(job, str(error))
        else:
            bar.write(f"recorded: {job} -> {relative(path)}")
            bar.update()

    def begin(job: Job) -> None:
        look_up(job, runs_dir, commit)
        if job.action == "collect":
            record(job)
        elif job.action == "wait":
            job.waiting_since = job.waiting_since or time.time()
            if time.time() - job.waiting_since > HEARTBEAT_SECONDS + 15:
                trouble(job, f"it is running in {relative(job.folder)}; repeat this command when it has ended")
            else:
                pending.append(job)
        else:
            start(job, runs_dir, threads, commit)
            running.append(job)

    def finish(job: Job) -> None:
        running.remove(job)
        if job.process.returncode:
            trouble(
                job,
                f"failed with exit status {job.process.returncode}: {last_line(job.log)} (log: {relative(job.log)})",
            )
            return
        look_up(job, runs_dir, commit)
        if job.action == "collect":
            record(job)
        else:
            trouble(job, f"it ended without a record for commit {commit[:8] or 'unknown'} in {relative(runs_dir)}")

    try:
        while pending or running:
            for _ in range(len(pending)):
                if len(running) < jobs:
                    begin(pending.popleft())
            for job in [job for job in running if job.process.poll() is not None]:
                finish(job)
            if time.time() - shown > (1 if sys.stderr.isatty() else 60):
                shown = time.time()
                left = sum(job.estimate for job in pending)
                left += sum(max(0.0, job.estimate - (shown - job.began)) for job in running)
                names = ", ".join(f"{job.runs.config_name} {job.seed}" for job in running)
                bar.set_postfix_str(f"about {duration(left / jobs)} left; running {names}")
            time.sleep(2 if any(job.waiting_since for job in pending) else 0.2)
    except KeyboardInterrupt:
        stop(running)
        raise
    finally:
        bar.close()
    return troubles


# --------------------------------------------------------------------------------------------------------- command line


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the runs that the tables still lack and record them.")
    add = parser.add_argument
    add("--tables", nargs="+", default=[], metavar="TABLE", help="only these tables (default: all)")
    add("--rows", nargs="+", default=[], metavar="CONFIG", help="only these named configs")
    add("--seeds", type=int, metavar="N", help="seeds 0 to N-1 of each row (default: what the table asks for)")
    add("--jobs", type=int, metavar="N", help="runs at a time (default: one for every four cores)")
    add("--runs-dir", type=Path, default=ROOT / "runs", help="folder of the run folders (default: runs)")
    add("--results", type=Path, default=ROOT / "results", help="folder of records and tables (default: results)")
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--collect", type=Path, metavar="FOLDER", help="record the finished run in this run folder and stop")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.tables if name not in TABLES]:
        raise UserError(f"no table {', '.join(unknown)}: there are {', '.join(TABLES)}")
    for name in ("seeds", "jobs"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: at least 1 is needed")
    return options


def reproduce(options: argparse.Namespace) -> int:
    results_runs = options.results / "runs"
    if options.collect:
        name = options.rows[0] if options.rows else config_name_of(options.collect)
        print(f"recorded: {collect(options.collect, name, results_runs)}")
        return 0
    records = load_records(results_runs)
    plan = missing(wanted(options.tables or list(TABLES), options.rows, options.seeds), records)
    if not plan:
        print("nothing is missing")
        return 0
    commit = git("rev-parse", "HEAD")
    on_gpu = has_gpu()
    for job in plan:
        job.estimate = estimate(job, records, on_gpu)
        look_up(job, options.runs_dir, commit)
    jobs = min(options.jobs or default_jobs(), len(plan))
    threads = max(1, cores() // jobs)
    show_plan(plan, jobs, threads)
    if git("status", "--porcelain", "--", ".", ":!results"):
        print("note: the code has uncommitted changes; the tables will mark these runs")
    if options.dry_run:
        return 0
    troubles = execute(plan, options.runs_dir, results_runs, jobs, threads, commit)
    files = render_all(options.results, ROOT / "README.md" if options.results == ROOT / "results" else None)
    for path in out_of_date(files):
        write_result(path, files[path].encode())
    print(
        f"{len(plan) - len(troubles)} recorded, {len(troubles)} missing; tables: {relative(options.results / 'tables')}"
    )
    return 1 if troubles else 0


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments

    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        return reproduce(parse(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(["python", "scripts/reproduce.py", *arguments])
        print(f"interrupted; the runs have saved their state, continue with: {again}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
