"""Runs an experiment's command line within the test's process."""

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.launch import launch

import pytest
from sacred import Experiment


def strict_json(text: str) -> Any:
    """What a JSON text says; NaN and infinity, which Python would take, are errors."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass
class Finished:
    """A run that has ended."""

    status: int
    output: str
    errors: str
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return strict_json((self.folder / "record.json").read_text())

    @property
    def metrics(self) -> dict[str, float | None]:
        return self.record["metrics"]


def run(experiment: Experiment, runs_dir: Path, arguments: str, device="cpu", tensorboard=False) -> Finished:
    """`python experiments/NAME.py with ARGUMENTS`; a resumed run, which is the second, keeps its device."""
    settings = [f"compute.threads=1 tracking.runs_dir={runs_dir} tracking.tensorboard={tensorboard}"]
    resumed = arguments.startswith("resume=")
    if not resumed:
        settings.append(f"compute.device={device}")
    command = [f"experiments/{experiment.path}.py", "with", *shlex.split(" ".join([arguments, *settings]))]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as stop:
        launch(experiment, command)
    folder = runs_dir / experiment.path / ("2" if resumed else "1")
    return Finished(stop.value.code or 0, output.getvalue(), errors.getvalue(), folder)
