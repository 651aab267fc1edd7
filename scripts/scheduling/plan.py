"""The plan of reproduce.py: which runs the tables lack, in which order, and how long they should take."""

import functools
import importlib
import json
import os

from experiments.configuration import closest, config_folder, config_path, read_settings
from experiments.errors import UserError
from scripts.contents import TABLES
from scripts.records import Record
from scripts.scheduling.jobs import Job, relative

import torch
from sacred import Experiment
from sacred.initialize import create_run

LAST_ORDER = 9
GIGABYTES_A_JOB = 4


# -------------------------------------------------------------------------------------------------------- named configs


def load_experiment(name: str) -> Experiment:
    """The Sacred experiment `ex` of experiments/<name>.py."""
    try:
        return importlib.import_module(f"experiments.{name}").ex
    except (ModuleNotFoundError, AttributeError) as error:
        if error.name not in (f"experiments.{name}", "ex"):
            raise
        raise UserError(f"there is no experiment {name!r}: expected experiments/{name}.py") from error


def resolve_config(experiment: Experiment, config_name: str, seed: int = 0, updates: dict | None = None) -> dict:
    """Every value of a named config, as a run of it would store them; no run is started and no observer attached.

    `updates` are nested values that differ from it.
    """
    if config_name not in dict(experiment.gather_named_configs()):
        if os.path.isfile(path := config_path(experiment.path, config_name)):
            read_settings(path)
        place = relative(config_folder(experiment.path))
        raise UserError(f"{experiment.path} has no named config {config_name!r}: put its YAML into {place}")
    run = create_run(
        experiment, "print_config", {"seed": seed} | (updates or {}), (config_name,), force=True, log_level="ERROR"
    )
    return json.loads(json.dumps(run.config))


@functools.cache
def named_config(experiment: str, config_name: str) -> dict:
    return resolve_config(load_experiment(experiment), config_name)


# ----------------------------------------------------------------------------------------------------------------- runs


def wanted(tables: list[str], rows: list[str], seeds: int | None) -> list[Job]:
    """Every run the tables ask for, most informative first: by order, then seed, then place in the tables.

    rows: configs, as `mnist` or `dpsom/mnist`; none are all whose data everybody can have.
    """
    every = list(dict.fromkeys(runs for name in tables for runs in TABLES[name].runs()))
    if unknown := sorted(set(rows) - {name for runs in every for name in (runs.config_name, runs.key)}):
        hint = closest(unknown[0], {runs.key if "/" in unknown[0] else runs.config_name for runs in every})
        raise UserError(f"no row {unknown[0]} in {', '.join(tables)}: {hint} (scripts/summarise.py needs no row)")
    jobs = []
    for place, runs in enumerate(every):
        asked_for = runs.stages[-1][0]
        named = not {runs.config_name, runs.key}.isdisjoint(rows)
        if named and not asked_for and seeds is None:
            raise UserError(f"{runs.key} is trained only when its seeds are asked for: add --seeds 1")
        if not named and (rows or not asked_for):
            continue
        for seed in range(asked_for if seeds is None else seeds):
            order = next((order for until, order in runs.stages if seed < until), LAST_ORDER)
            jobs.append(
                ((order, seed, place), Job(runs.experiment, runs.config_name, seed, estimate=60 * runs.minutes))
            )
    return [job for _, job in sorted(jobs, key=lambda pair: pair[0])]


def missing(jobs: list[Job], records: list[Record]) -> list[Job]:
    done = {(record.experiment, record.config_name, record.seed) for record in records}
    return [job for job in jobs if job.key not in done]


def recorded_seconds(job: Job, records: list[Record], on_gpu: bool) -> list[float]:
    """Of this config's runs on the same kind of device."""
    return [
        record.total_seconds
        for record in records
        if record.key == job.row and bool(record.hardware.get("gpu")) == on_gpu
    ]


def estimate(job: Job, records: list[Record], on_gpu: bool) -> float:
    """Seconds: the mean of the recorded ones, else what the table states, which is of two CPU cores."""
    seconds = recorded_seconds(job, records, on_gpu)
    return sum(seconds) / len(seconds) if seconds else job.estimate


# ---------------------------------------------------------------------------------------------------------- the machine


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process sees."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return named[:count] or [str(number) for number in range(count)]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """As many runs at a time as leave each four cores and GIGABYTES_A_JOB of memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(cores() // 4, int(memory // GIGABYTES_A_JOB)))


# -------------------------------------------------------------------------------------------------------------- to read


def duration(seconds: float) -> str:
    """3 h 20 min, 12 min or 40 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def show_plan(plan: list[Job], slots: int, threads: int) -> None:
    words = {"start": "", "resume": "resumes {}", "collect": "finished in {}", "wait": "is running in {}"}
    width = max(len(str(job)) for job in plan)
    for job in plan:
        note = words[job.action].format(job.folder and relative(job.folder))
        print(f"  {job!s:{width}}  about {duration(job.estimate):>10}  {note}".rstrip())
    total = sum(job.estimate for job in plan if job.action != "collect") / slots
    count = f"{len(plan)} {'run is' if len(plan) == 1 else 'runs are'} missing"
    print(f"{count}: about {duration(total)} with {slots} at a time, {threads} thread{'s' * (threads > 1)} each")
