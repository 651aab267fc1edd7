"""Exports a trained model: safetensors, its configuration, a model card, and a program from samples to units.

    python scripts/export.py runs/dpsom/7                     to exported/dpsom-7
    python scripts/export.py runs/dpsom/7 --to somewhere

The folder holds `model.safetensors`, `config.json`, `README.md` (the model card) and `units.pt2`, a program of
`torch.export` that maps samples `[B, ...]`, any B, to the index of each one's unit, `[B]`; it runs without this
repository. `load_exported(folder)` gives the model back.

An experiment takes part when its `build` takes groups of its configuration and facts about the data (`input_shape`,
`channels`, `classes`) by their names; its model has a program when it has a method `winners`.
"""

import argparse
import importlib
import inspect
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.ingredients import checkpoint
from experiments.ingredients.observers import for_record
from experiments.ingredients.record import FILE_NAME as RECORD
from experiments.ingredients.trained_map import ARRAYS
from scripts.records import check_record, read_json

import numpy as np
import safetensors
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, CONFIG, CARD, PROGRAM = "model.safetensors", "config.json", "README.md", "units.pt2"


def build_model(experiment: str, config: dict[str, Any], facts: dict[str, Any]) -> nn.Module:
    """The untrained model of an experiment's configuration, made by the experiment's own `build`.

    Raises:
        UserError: there is no such experiment, or its `build` asks for something else.
    """
    try:
        build = importlib.import_module(f"experiments.{experiment}").build
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{experiment} has no model to export: only experiments with a function `build` do") from error
    known = config | facts
    names = inspect.signature(build).parameters
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"the model of {experiment} asks for {unknown[0]}, and export knows only {', '.join(known)}")
    return build(**{name: known[name] for name in names})


def load_exported(folder: str | Path) -> nn.Module:
    """The trained model in an exported folder, on the CPU and in evaluation mode.

    Raises:
        UserError: the folder holds no exported model, or not that of this version.
    """
    folder = Path(folder)
    content = read_json(folder / CONFIG)
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in content["facts"].items()}
    model = build_model(content["experiment"], content["config"], facts)
    try:
        load_model(model, folder / WEIGHTS)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / WEIGHTS} cannot be loaded ({reason}): export the run again") from error
    return model.eval()


class Units(nn.Module):
    """The way from samples to units as a module of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Index `[B]` of the unit of each of the inputs `[B, ...]`."""
        return self.model.winners(inputs)


def export_units(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Saves the program from samples `[B, *input_shape]` to units `[B]`."""
    example = torch.zeros(2, *input_shape)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Units(model).eval(), (example,), dynamic_shapes={"inputs": {0: batch}})
    torch.export.save(program, path)


def trained(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The model of the finished run in `folder`, the run's record, and the facts its model was built with.

    Raises:
        UserError: the run is not finished, or it has no trained model.
    """
    record = check_record(read_json(folder / RECORD), folder / RECORD)
    if read_json(folder / "run.json").get("status") != "COMPLETED":
        raise UserError(f"{folder} is not a finished run: only COMPLETED runs are exported")
    config = read_json(folder / "config.json")
    path = folder / checkpoint.FILE_NAME
    if not path.exists():
        raise UserError(f"{folder} has no {checkpoint.FILE_NAME}: runs of {record['experiment']} leave no weights")
    state = checkpoint.load(path, checkpoint.fingerprint(config))
    facts = {name: state[name] for name in ("input_shape",) if name in state}
    if (folder / ARRAYS).exists():
        with np.load(folder / ARRAYS) as arrays:
            facts = {"input_shape": arrays["decoded"].shape[1:], "classes": len(arrays["classes"])} | facts
    if "input_shape" not in facts:
        raise UserError(f"{folder} does not say which shape its samples had: run it again with this version")
    facts["input_shape"] = tuple(facts["input_shape"])
    facts["channels"] = facts["input_shape"][-1]
    model = build_model(record["experiment"], config, facts)
    model.load_state_dict(state["model"])
    return model.eval(), record, facts


def export(run: Path, folder: Path) -> None:
    """Exports the finished run `run` to `folder`, which must not exist; nothing half-written is left behind."""
    if folder.exists():
        raise UserError(f"{folder} exists: delete it or choose another with --to")
    model, record, facts = trained(run)
    content = {"experiment": record["experiment"], "config": for_record(record["config"]), "facts": facts}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as partial:
        partial = Path(partial, "model")
        partial.mkdir()
        save_model(model, str(partial / WEIGHTS))
        (partial / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
        if hasattr(model, "winners"):
            export_units(model, facts["input_shape"], partial / PROGRAM)
        (partial / CARD).write_text(card(model, record, facts, folder))
        shutil.move(partial, folder)


# ----------------------------------------------------------------------------------------------------------- model card

MODEL_CARD = """---
library_name: pytorch
tags: [self-organising-map, {experiment}]
---

# {name}

{description}

{parameters:,} parameters in float32; a sample has the shape [{shape}].

| metric | validation | test |
|---|---|---|
{metrics}

- Data: {data}, checksum `{checksum}`; every setting: [config.json](config.json)
- Seed {seed}, code at commit {commit}
- {versions}
- The metrics were computed in {precision}

With the repository that made it:

```python
from scripts.export import load_exported

model = load_exported("{folder}")
```
"""
PROGRAM_CARD = """
Without it, from samples scaled as in training to the index of each one's unit:

```python
import torch

program = torch.export.load("{folder}/units.pt2").module()
units = program(torch.rand(16, {shape}))
```
"""


def card(model: nn.Module, record: dict[str, Any], facts: dict[str, Any], folder: Path) -> str:
    """The model card: what it is, how good it is, what it was trained on, by which code, and how to load it."""
    config, name = record["config"], f"{type(model).__name__} on {record['config']['data']['name']}"
    names = sorted({key.partition("/")[2] for key in record["metrics"]})
    text = MODEL_CARD + (PROGRAM_CARD if hasattr(model, "winners") else "")
    return text.format(
        experiment=record["experiment"],
        name=name,
        description=(inspect.getdoc(inspect.getmodule(type(model))) or name).splitlines()[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        shape=", ".join(map(str, facts["input_shape"])),
        metrics="\n".join(
            f"| {name} | {number(record, 'validation', name)} | {number(record, 'test', name)} |" for name in names
        ),
        data=config["data"]["name"],
        checksum=record["data_checksum"],
        seed=record["seed"],
        commit=(record["git_commit"] or "unknown") + (" with uncommitted changes" if record["git_dirty"] else ""),
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        precision=config["compute"]["precision"],
        folder=folder.name,
    )


def number(record: dict[str, Any], split: str, name: str) -> str:
    value = record["metrics"].get(f"{split}/{name}")
    return "" if value is None else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export the trained model of a finished run.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/dpsom/7")
    parser.add_argument("--to", type=Path, help="new folder (default: exported/<experiment>-<id>)")
    options = parser.parse_args(arguments)
    try:
        run = options.run
        if not run.is_dir():
            raise UserError(f"there is no run folder {run}")
        folder = options.to or ROOT / "exported" / f"{run.absolute().parent.name}-{run.absolute().name}"
        export(run, folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"exported: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
