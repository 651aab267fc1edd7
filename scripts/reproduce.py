"""Trains the runs that the tables still lack and records them.

    python scripts/reproduce.py --dry-run                          what is missing and about how long it takes
    python scripts/reproduce.py --tables dpsom_parity --rows mnist --seeds 3
    python scripts/reproduce.py --executor slurm --partition gpu --gpus 1 --time-limit 120
    python scripts/reproduce.py --collect runs/dpsom/7             record a finished run that was made by hand

The same command continues after an interruption: what is recorded is skipped, a run that was finished but not recorded
is recorded, and one that this script started with the same code resumes from its checkpoint. Only an unmodified named
config (seed, tracking and threads aside) becomes a record; `results/runs/<experiment>/<config_name>/<seed>.json` is
written when the run is COMPLETED and never before, by this process alone.

A run that dies (killed, out of memory, a lost node) is resumed up to `--retries` times; one that ends with an error of
its own would only fail again and is reported. On Slurm a run that reaches the time limit saves its state, is requeued
and resumes; jobs go on when this script is stopped, and the same command finds them again. Options of sbatch that are
not here come from its own variables, such as SBATCH_ACCOUNT or SBATCH_QOS.

Exit status: 0 nothing is missing any more, 1 a run failed or is still missing, 2 a mistake in what was asked for,
130 interrupted.
"""

import argparse
import shlex
import signal
import sys
from itertools import chain
from pathlib import Path

from experiments import PROJECT
from experiments.engine import bfloat16
from experiments.errors import UserError, reported
from experiments.record import Provenance, state_of_code
from scripts.contents import TABLES
from scripts.records import write_result
from scripts.rendering.results import Results
from scripts.scheduling.collecting import check_rows, collect, config_name_of
from scripts.scheduling.execution import Execution
from scripts.scheduling.executors import Local
from scripts.scheduling.jobs import Setting, look_up, relative
from scripts.scheduling.plan import (
    GIGABYTES_A_JOB,
    cores,
    default_jobs,
    estimate,
    gpus,
    missing,
    named_config,
    recorded_seconds,
    show_plan,
    wanted,
)
from scripts.scheduling.slurm import Slurm
from scripts.tables import out_of_date, render_all

SLURM_JOBS = 256  # at a time: submitit's default
OF_SLURM = {"partition": None, "time_limit": 240, "cores": 4, "gpus": 0, "memory": GIGABYTES_A_JOB}  # minutes, GB


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the runs that the tables still lack and record them.")
    add = parser.add_argument
    add("--tables", nargs="+", default=[], metavar="TABLE", help="only these tables (default: all)")
    add("--rows", nargs="+", default=[], metavar="CONFIG", help="only these named configs, as mnist or dpsom/mnist")
    add("--seeds", type=int, metavar="N", help="seeds 0 to N-1 of each row (default: what the table asks for)")
    add(
        "--jobs", type=int, metavar="N", help="runs at a time (default: one a GPU, or for every four cores; Slurm: 256)"
    )
    add("--retries", type=int, default=2, metavar="N", help="how often a run that died is resumed (default: 2)")
    add("--runs-dir", type=Path, default=PROJECT / "runs", help="folder of the run folders (default: runs)")
    add(
        "--results",
        type=Path,
        default=PROJECT / "results",
        help="folder of records and tables (default: results)",
    )
    add("--dry-run", action="store_true", help="print the plan and stop")
    add(
        "--collect",
        type=Path,
        metavar="FOLDER",
        help="record the finished run in this run folder, of the config in --rows or the one it fits, and stop",
    )
    add("--executor", choices=("local", "slurm"), default="local", help="processes here (default), or jobs of Slurm")
    slurm = parser.add_argument_group("with --executor slurm")
    add = slurm.add_argument
    add("--partition", metavar="NAME", help="of Slurm (default: Slurm's own)")
    add(
        "--time-limit",
        type=int,
        metavar="MINUTES",
        help=f"of one job; then it resumes (default: {OF_SLURM['time_limit']})",
    )
    for name, metavar in (("cores", "N"), ("gpus", "N"), ("memory", "GB")):
        add(f"--{name}", type=int, metavar=metavar, help=f"of each job (default: {OF_SLURM[name]})")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.tables if name not in TABLES]:
        raise UserError(f"no table {', '.join(unknown)}: there are {', '.join(TABLES)}")
    if options.collect and len(options.rows) > 1:
        raise UserError("--collect records one run: give one config in --rows")
    if options.collect and options.dry_run:
        raise UserError("--collect records a run, --dry-run does nothing: give one of them")
    smallest = {"seeds": 1, "jobs": 1, "retries": 0, "time_limit": 1, "cores": 1, "gpus": 0, "memory": 1}
    for name, least in smallest.items():
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least {least} is needed")
    for name, value in OF_SLURM.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
        elif options.executor == "local":
            raise UserError(f"--{name.replace('_', '-')} is of Slurm's jobs: add --executor slurm or leave it out")
    return options


def make_executor(options: argparse.Namespace, runs: int, code: str) -> Local | Slurm:
    """The executor that the options ask for."""
    runs_dir = options.runs_dir.absolute()
    if options.executor == "slurm":
        at_a_time = min(options.jobs or SLURM_JOBS, runs)
        setting = Setting(runs_dir, options.cores, code)
        limits = (options.partition, options.time_limit, options.gpus, options.memory)
        return Slurm(setting, at_a_time, *limits)
    devices = gpus()
    at_a_time = min(options.jobs or len(devices) or default_jobs(), runs)
    setting = Setting(runs_dir, max(1, cores() // at_a_time), code)
    return Local(setting, at_a_time, devices)


def reproduce(options: argparse.Namespace) -> int:
    results_runs = options.results / "runs"
    if options.collect:
        name = config_name_of(options.collect, options.rows[0] if options.rows else None)
        print(f"recorded: {collect(options.collect, name, results_runs)}")
        return 0
    records = list(chain.from_iterable(Results(options.results).records.values()))
    plan = missing(wanted(options.tables or list(TABLES), options.rows, options.seeds), records)
    if not plan:
        print("nothing is missing")
        return 0
    code = Provenance.now()
    executor = make_executor(options, len(plan), state_of_code(code))
    on_gpu = options.gpus > 0 if options.executor == "slurm" else bool(gpus())
    for job in plan:
        job.config = named_config(job.experiment, job.config_name)
        job.estimate = estimate(job, records, on_gpu)
        look_up(job, executor.setting)
    check_rows(plan, records)
    show_plan(plan, executor.at_a_time, executor.setting.threads)
    if code.git_dirty:
        print(
            "note: the code has uncommitted changes, so the tables will mark these runs until their records below "
            "results/runs are deleted and they are run again: commit first"
        )
    if on_gpu and (unknown := sum(not recorded_seconds(job, records, on_gpu) for job in plan)):
        print(f"note: {unknown} of them have no run on a GPU yet: they are estimated for two CPU cores, far too long")
    in_bf16 = sum(job.config["compute"]["precision"] == "bf16" for job in plan)
    if in_bf16 and not on_gpu and options.executor == "local" and not bfloat16.processor_has_it():
        print(f"note: {bfloat16.NOTE} ({in_bf16} of these runs)")
    if options.dry_run:
        return 0
    try:
        troubles = Execution(plan, executor, results_runs, options.retries).run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(executor.stop()) from None
    except Exception:
        executor.stop()
        raise
    files = render_all(options.results)
    for path in out_of_date(files):
        write_result(path, files[path].encode())
    print(
        f"{len(plan) - len(troubles)} recorded, {len(troubles)} missing; tables: {relative(options.results / 'tables')}"
    )
    return 1 if troubles else 0


@reported
def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return reproduce(parse(arguments))
    except KeyboardInterrupt as interruption:
        again = shlex.join(["python", "scripts/reproduce.py", *arguments])
        print(f"interrupted; {interruption or 'nothing was running'}; continue with: {again}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
