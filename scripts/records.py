"""Records of finished runs.

A record is one small JSON file, `results/runs/<experiment>/<config_name>/<seed>.json`, written by
`scripts/reproduce.py` for an unmodified named config that ran to its end. Only COMPLETED records reach a table.
"""

import json
import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from experiments.errors import UserError
from experiments.files import read_mapping, write_atomically

from sacred.utils import iterate_flattened

FORMAT = 1
PRIVATE = re.compile(r"^(/|[A-Za-z]:\\|file:)|://[^/\s]*@|mongodb(\+srv)?://(?!\*+$)")


@dataclass(frozen=True)
class Record:
    """One finished run; `seconds` by phase, `metrics` as `<split>/<metric>`, without those that are undefined."""

    experiment: str
    config_name: str
    seed: int
    config: dict = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    curve: list[dict] = field(repr=False)
    seconds: dict[str, float] = field(repr=False)
    git_commit: str | None
    git_dirty: bool
    versions: dict[str, str] = field(repr=False)
    hardware: dict = field(repr=False)
    data_checksum: str

    @property
    def key(self) -> str:
        return f"{self.experiment}/{self.config_name}"

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def read_json(path: Path):
    """The content of a JSON file; UserError when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{path} cannot be read as JSON ({reason}): restore it from git or delete it and run again"
        ) from error


def write_result(path: Path, content: bytes) -> None:
    """Write a file in one step, and the folders it needs; UserError when that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}): make room or choose another place") from error


def check_record(record: object, path: Path) -> dict:
    """Returns `record` when it has the format's keys and types; UserError otherwise. `path` is named in the message."""
    if not isinstance(record, dict):
        raise UserError(f"{path} is not a run record: expected a JSON object")
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path} has record format {record.get('format')!r}, this version reads {FORMAT}: update or run again"
        )
    if missing := [key for key in ("status", *Record.__annotations__) if key not in record]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: it was not written by this project's experiments, delete it"
        )
    if type(record["seed"]) is not int or record["seed"] < 0:
        raise UserError(f"{path} has seed {record['seed']!r}: expected a whole number from 0")
    for key in ("config", "metrics", "seconds", "versions", "hardware"):
        if not isinstance(record[key], dict):
            raise UserError(f"{path}: {key} must be a JSON object, it is {type(record[key]).__name__}")
    for key in ("metrics", "seconds"):
        for name, value in record[key].items():
            undefined = value is None and key == "metrics"
            if not undefined and (type(value) not in (int, float) or not math.isfinite(value)):
                raise UserError(f"{path}: {key} {name} is {value!r}, not a finite number")
    if private := find_private(record):
        raise UserError(
            f"{path} holds an absolute path, a host or a credential at {private}: run again with relative paths"
        )
    return record


def finished_record(run: Path) -> dict:
    """The record in the folder of a finished run.

    Raises:
        UserError: the run is not COMPLETED, or has no record.
    """
    if not (run / "run.json").is_file():
        raise UserError(f"{run} is no run folder: give one such as runs/dpsom/7")
    path = run / "record.json"
    for status in (read_mapping(run / "run.json").get("status"), read_mapping(path).get("status", "COMPLETED")):
        if status != "COMPLETED":
            raise UserError(
                f"{run} is not a finished run but {status}: only COMPLETED ones have their record and model"
            )
    return check_record(read_json(path), path)


def find_private(value: object, where: str = "") -> str | None:
    """Dotted place of the first string that is an absolute path or names a user or a database's host, or None."""
    if isinstance(value, dict):
        return next(
            (found for key, item in value.items() if (found := find_private(item, f"{where}.{key}".lstrip(".")))), None
        )
    if isinstance(value, list):
        return next(
            (found for index, item in enumerate(value) if (found := find_private(item, f"{where}[{index}]"))), None
        )
    if isinstance(value, str) and PRIVATE.search(value):
        return where
    return None


def record_path(runs: Path, experiment: str, config_name: str, seed: int) -> Path:
    return runs / experiment / config_name / f"{seed}.json"


def load_records(runs: Path) -> list[Record]:
    """All COMPLETED records below `runs`, ordered by experiment, config and seed.

    Raises UserError for an unknown format, missing keys, a path that does not say what the file holds, and two records
    of one row that stem from different data or from configs with different values (a key that only one of them has
    stems from another version of the code).
    """
    records = []
    for path in sorted(runs.rglob("*.json")):
        content = check_record(read_json(path), path)
        if content["status"] != "COMPLETED":
            continue
        if not all(isinstance(content[key], str) for key in ("experiment", "config_name")):
            raise UserError(f"{path} was not recorded here: delete it and use reproduce.py --collect on its run folder")
        expected = record_path(runs, content["experiment"], content["config_name"], content["seed"])
        if path != expected:
            raise UserError(f"{path} holds the run that belongs to {expected}: move or delete it")
        records.append(as_record(content))
    records.sort(key=lambda record: (record.experiment, record.config_name, record.seed))
    for first, second in pairwise(records):
        check_same_row(first, second, runs)
    return records


def as_record(content: dict) -> Record:
    """What `check_record` has let pass, without the metrics that are undefined."""
    kept = {key: content[key] for key in Record.__annotations__}
    return Record(**kept | {"metrics": {name: value for name, value in kept["metrics"].items() if value is not None}})


def check_same_row(first: Record, second: Record, runs: Path) -> None:
    if (first.experiment, first.config_name) != (second.experiment, second.config_name):
        return
    places = " and ".join(str(record_path(runs, r.experiment, r.config_name, r.seed)) for r in (first, second))
    if first.data_checksum != second.data_checksum:
        raise UserError(f"{places} disagree: they were run on different data; delete and repeat one of them")
    if different := conflicting_keys(first.config, second.config):
        raise UserError(f"{places} disagree in {', '.join(different)}: delete and repeat the older one")


def comparable(config: dict) -> dict:
    """The config without what may differ between runs of one named config: seed, tracking, threads and resume."""
    kept = {key: value for key, value in config.items() if key not in ("seed", "tracking", "resume")}
    if isinstance(kept.get("compute"), dict):
        kept["compute"] = {key: value for key, value in kept["compute"].items() if key != "threads"}
    return kept


def flatten(config: dict) -> dict[str, object]:
    """{"model": {"alpha": 10}} -> {"model.alpha": 10}."""
    return dict(iterate_flattened(config))


def conflicting_keys(first: dict, second: dict) -> list[str]:
    """As `differing_keys`, of the keys that both have."""
    one, two = flatten(comparable(first)), flatten(comparable(second))
    return [key for key in one if key in two and one[key] != two[key]]


def differing_keys(first: dict, second: dict) -> list[str]:
    """Dotted keys in which two configs differ (seed, tracking, threads and resume aside), in order."""
    one, two = flatten(comparable(first)), flatten(comparable(second))
    absent = object()
    return [key for key in sorted(one | two) if one.get(key, absent) != two.get(key, absent)]
