"""The small JSON file that every finished run leaves: all that a table needs to know about it."""

import hashlib
import json
import math
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments import PROJECT
from experiments.datasets.samples import Samples
from experiments.files import read_mapping, shown, write_atomically
from experiments.ingredients.compute import hardware, versions
from experiments.ingredients.tracking import Tracker
from experiments.ingredients.training import Progress
from experiments.observers.redaction import for_record

import torch
from sacred.run import Run

FILE_NAME = "record.json"
FORMAT = 1
CODE = ("configs", "experiments", "models", "requirements.txt", ":(glob)*.py")  # all that training executes, for git


@dataclass(frozen=True)
class Provenance:
    """The code a run started with: later commits must not be credited with its results."""

    git_commit: str | None
    git_dirty: bool

    @classmethod
    def now(cls, *besides: str) -> "Provenance":
        """The commit that last changed the code, and whether the code has changed since; None and True outside a clone.

        Results, scripts and tests are none of it: they are committed while runs are missing. A Python file at the top
        is, as it would be imported in place of a package of its name.

        Args:
            besides: what else is code, as git pathspecs; `scripts` for what a script measures itself.
        """
        code = (*CODE, *besides)
        commit = _git("log", "-1", "--format=%H", "--", *code) or None
        changes = _git("status", "--porcelain", "--", *code)
        return cls(commit, commit is None or bool(changes))

    @classmethod
    def of(cls, run: Run) -> "Provenance":
        """That of a run which starts now, kept in its `info`; one that resumes other code's work counts as dirty."""
        present = cls.now()
        folder = run.info.get("resumed_from")
        if (earlier := _kept_in(folder) if folder else {}) and earlier != asdict(present):
            present = replace(present, git_dirty=True)
        run.info |= asdict(present)
        return present


def state_of_code(present: Provenance) -> str:
    """The commit of the present code, with a hash of its uncommitted changes if any; empty outside a clone."""
    if present.git_commit is None or not present.git_dirty:
        return present.git_commit or ""
    changes = hashlib.sha256((_git("diff", "HEAD", "--binary", "--", *CODE) or "").encode())
    for name in (_git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE) or "").split("\0")[:-1]:
        changes.update(f"{name}\0".encode() + Path(PROJECT, name).read_bytes())
    return f"{present.git_commit} with changes {changes.hexdigest()[:12]}"


def finish(
    tracker: Tracker,
    experiment: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    progress: Progress,
    provenance: Provenance,
    device: torch.device,
    samples: Samples,
) -> dict[str, float | None]:
    """What every run does last: keep its record and show its result, which is returned.

    `record.json` and `data.json` in the run folder name no host, no credential, no absolute path.
    """
    result = json_numbers(metrics)
    tracker.hparams(config, metrics)
    samples.write(tracker.folder)
    record = {
        "format": FORMAT,
        "experiment": experiment,
        "config_name": None,
        "seed": config["seed"],
        "status": "COMPLETED",
        "config": for_record(config),
        "metrics": result,
        "curve": short_curve(progress.history),
        "seconds": {name: round(seconds, 1) for name, seconds in progress.seconds.items()},
        **asdict(provenance),
        "versions": versions(),
        "hardware": hardware(device),
        "data_checksum": samples.checksum,
    }
    write_atomically(tracker.folder / FILE_NAME, (json.dumps(record, indent=1) + "\n").encode())
    print(by_split({name: f"{value:.4g}" for name, value in metrics.items()}))
    print(f"run folder: {shown(tracker.folder)}")
    return result


def rows_by_split(metrics: Mapping[str, str]) -> list[list[str]]:
    """What is said of the metrics `<split>/<metric>`: the splits, then each metric's name and its cell for each."""
    splits = list(dict.fromkeys(name.partition("/")[0] for name in metrics))
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics))
    return [["", *splits]] + [[name, *(metrics.get(f"{split}/{name}", "") for split in splits)] for name in names]


def by_split(metrics: Mapping[str, str]) -> str:
    """`rows_by_split` as lines to read."""
    rows = rows_by_split(metrics)
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{name:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        for name, *cells in rows
    )


def json_numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN, so a number that is undefined (a topographic error of one unit) becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def short_curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluated epochs, rounded to five digits."""
    rows = [row for row in history if any("/" in key for key in row)]
    return [{key: _rounded(value) for key, value in row.items()} for row in rows]


def _rounded(value: Any) -> Any:
    """A number to five digits, null where it is undefined."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _kept_in(folder: str) -> dict[str, Any]:
    """The provenance that a run kept in its folder; empty where it was killed before Sacred first wrote `info`."""
    info = read_mapping(Path(folder, "info.json"))
    return {key: info[key] for key in Provenance.__annotations__ if key in info}


def _git(*arguments: str) -> str | None:
    """Output of a git command in the project's folder; None where it is no clone or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
