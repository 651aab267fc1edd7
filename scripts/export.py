"""Exports a trained model: safetensors, its configuration, a model card, and programs from samples to units.

    python scripts/export.py runs/dpsom/7                     to exported/dpsom-7
    python scripts/export.py runs/dpsom/7 --to somewhere

The folder holds `model.safetensors`, `config.json`, `README.md` (the model card), and the programs of `torch.export`
that `PROGRAMS` lists, as far as the model has their methods. They take any number of samples, and series of any number
of hours, and run without this repository. `load_exported(folder)` gives the model back.

An experiment takes part by a line in `EXPERIMENTS` and a function `build(config, samples)`, which makes its model.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import PROJECT
from experiments.datasets.samples import Samples, read_samples
from experiments.engine import checkpoint
from experiments.errors import UserError, one_line, reported
from experiments.observers.redaction import for_record
from experiments.observers.run_folder import CHECKPOINT
from experiments.record import FILE_NAME as RECORD
from experiments.record import short_curve
from scripts.exporting.model_card import card
from scripts.exporting.programs import EXPERIMENTS, PROGRAMS, export_program
from scripts.records import finished_record, read_json

import safetensors
from safetensors.torch import load_model, save_model
from torch import nn

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def build_model(experiment: str, config: Mapping[str, Any], samples: Samples) -> nn.Module:
    """The untrained model of an experiment's configuration, made by the experiment's own `build`.

    Raises:
        UserError: models of this experiment cannot be exported.
    """
    if experiment not in EXPERIMENTS:
        raise UserError(f"runs of {experiment} have no model to take up: only those of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"experiments.{experiment}").build(config, samples)


def load_exported(folder: str | Path) -> nn.Module:
    """The trained model in an exported folder, on the CPU and in evaluation mode.

    Raises:
        UserError: the folder holds no exported model, or not that of this version.
    """
    folder = Path(folder)
    if not os.path.isfile(folder / CONFIG):
        raise UserError(f"{folder} is no exported model: give the path of a folder that scripts/export.py has written")
    content = read_json(folder / CONFIG)
    try:
        model = build_model(content["experiment"], content["config"], Samples.of(content["samples"]))
        load_model(model, folder / WEIGHTS)
    except (OSError, RuntimeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        reason = one_line(error)
        raise UserError(f"the model in {folder} cannot be loaded ({reason}): export the run again") from error
    return model.eval()


def trained(run: Path) -> tuple[nn.Module, dict[str, Any], Samples]:
    """The model of the finished run in the folder `run`, the run's record, and what the model knows of its data.

    Raises:
        UserError: the run is not finished, or it has no trained model that fits.
    """
    record = finished_record(run)
    samples, config = read_samples(run), read_json(run / "config.json")
    model = build_model(record["experiment"], config, samples)
    path = run / CHECKPOINT
    if not path.exists():
        raise UserError(f"{run} has no {path.name}, so its trained model is lost: run it again")
    state = checkpoint.load(path, checkpoint.fingerprint(config))
    if short_curve(state["progress"]["history"]) != record["curve"]:
        raise UserError(f"{path} is not of the end of the run that {RECORD} tells of: restore it or run again")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        commit = record["git_commit"] or "the run's"
        raise UserError(f"{path} does not fit today's model: export it with the code of commit {commit}") from error
    return model.eval(), record, samples


def export(run: Path, folder: Path) -> None:
    """Exports the finished run `run` to `folder`, which must not exist; nothing half-written is left behind.

    Raises:
        UserError: see `trained`; the folder exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: delete it or choose another with --to")
    model, record, samples = trained(run)
    experiment = record["experiment"]
    inputs = EXPERIMENTS[experiment](samples.shape)
    content = {"experiment": experiment, "config": for_record(record["config"]), "samples": asdict(samples)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as partial:
            partial = Path(partial, "model")
            partial.mkdir()
            save_model(model, str(partial / WEIGHTS))
            (partial / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
            shutil.copymode(partial / CONFIG, partial / WEIGHTS)  # safetensors makes it private
            for method, name in PROGRAMS.items():
                if hasattr(model, method):
                    export_program(model, method, inputs, partial / name)
            (partial / CARD).write_text(card(model, record, samples, inputs, folder.name))
            partial.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error}): choose another with --to") from error


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export the trained model of a finished run.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/dpsom/7")
    parser.add_argument("--to", type=Path, help="new folder (default: exported/<experiment>-<id>)")
    options = parser.parse_args(arguments)
    run = options.run.absolute()
    folder = options.to or PROJECT / "exported" / f"{run.parent.name}-{run.name}"
    export(options.run, folder)
    print(f"exported: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
