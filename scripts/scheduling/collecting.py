"""Finished runs of unmodified named configs become records, each in the row of its like."""

import json
from pathlib import Path

from experiments.drawing.trained_map import ARRAYS
from experiments.drawing.trajectories import TRAJECTORIES
from experiments.errors import UserError
from scripts.contents import TABLES
from scripts.records import (
    Record,
    as_record,
    check_record,
    check_same_row,
    conflicting_keys,
    differing_keys,
    finished_record,
    read_json,
    record_path,
    write_result,
)
from scripts.scheduling.jobs import Job
from scripts.scheduling.plan import load_experiment, named_config

SELECTED_SEED = 0  # of each row: its trained map is kept beside its record


def collect(folder: Path, config_name: str, results_runs: Path) -> Path:
    """Records the finished run in `folder` as one of the named config; returns the record's path.

    The row's selected run, seed 0, also leaves its trained map in `results/maps/<experiment>/<config_name>/`.

    Raises UserError when the run is not COMPLETED, its config is not exactly the named one, another record of the same
    run exists, or the row's other records are of other data.
    """
    record = finished_record(folder)
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
    for other in set(path.parent.glob("*.json")) - {path}:
        check_same_row(as_record(check_record(read_json(other), other)), as_record(record), results_runs)
    maps = results_runs.parent / "maps" / record["experiment"] / config_name
    for name in (ARRAYS, TRAJECTORIES):
        if record["seed"] == SELECTED_SEED and (folder / name).exists():
            write_result(maps / name, (folder / name).read_bytes())
    write_result(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def check_rows(plan: list[Job], records: list[Record]) -> None:
    """Raises UserError where a planned run would stand in a row whose records have other values than its config."""
    rows = {job.key[:2]: job for job in plan}
    for record in records:
        job = rows.get((record.experiment, record.config_name))
        if job and (different := conflicting_keys(record.config, job.config)):
            raise UserError(
                f"the records of {job.row} have another {', '.join(different)} than its config today: delete "
                "them, or give the new values a config of their own"
            )


def config_name_of(folder: Path, row: str | None) -> str:
    """The named config of the run in `folder`: what `row` says, as `mnist` or `dpsom/mnist`, or the one it fits.

    Where it fits several, those of the tables go first.
    """
    record = finished_record(folder)
    experiment = record["experiment"]
    if row:
        of, _, name = row.rpartition("/")
        if of not in ("", experiment):
            raise UserError(f"{folder} is a run of {experiment}, not of {of}")
        return name
    in_tables = [
        runs.config_name for table in TABLES.values() for runs in table.runs() if runs.experiment == experiment
    ]
    known = dict(load_experiment(experiment).gather_named_configs())
    for name in dict.fromkeys([*(name for name in in_tables if name in known), *known]):
        if not differing_keys(record["config"], named_config(experiment, name)):
            return name
    raise UserError(f"{folder} is a run of no named config: give it its own in configs/{experiment}/")
