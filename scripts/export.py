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
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from experiments import PROJECT
from experiments.datasets.samples import Samples, read_samples
from experiments.engine import checkpoint
from experiments.errors import UserError, one_line, reported
from experiments.observers.redaction import for_record
from experiments.observers.run_folder import CHECKPOINT
from experiments.record import FILE_NAME as RECORD
from experiments.record import rows_by_split, short_curve
from scripts.records import finished_record, read_json

import safetensors
import torch
import yaml
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.export import Dim

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


class Inputs(NamedTuple):
    """What the programs of an experiment take."""

    example: tuple[Tensor, ...]
    dynamic: tuple[dict[int, Dim], ...]
    """dimensions of any size"""
    code: str
    """an example as the model card writes it"""
    sizes: str
    """what the card says of them"""


def pictures(shape: tuple[int, ...]) -> Inputs:
    """Samples `[B, *shape]`."""
    return Inputs(
        example=(torch.zeros(2, *shape),),
        dynamic=({0: Dim("batch", min=1)},),
        code=f"torch.rand({shown((16, *shape))})",
        sizes="Any number of samples will do.",
    )


def series(shape: tuple[int, ...]) -> Inputs:
    """Series `[B, T, C]`, and how many hours of each count, `[B]`, integers of 64 bits."""
    batch, hours = Dim("batch", min=1), Dim("hours", min=1)
    return Inputs(
        example=(torch.zeros(2, *shape), torch.tensor([1, shape[0]])),
        dynamic=({0: batch, 1: hours}, {0: batch}),
        code=f"torch.rand({shown((16, *shape))}), torch.full((16,), {shape[0]})",
        sizes="Any number of series will do, and any number of hours; shorter ones are padded at their ends.",
    )


def shown(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


EXPERIMENTS: dict[str, Callable[[tuple[int, ...]], Inputs]] = {
    "dpsom": pictures,
    "somvae": pictures,
    "stays_baselines": series,
    "tdpsom": series,
    "topography": pictures,
    "tpae": pictures,
}
"""Experiments whose models can be exported, and what these take."""

PROGRAMS = {"winners": "units.pt2", "logits": "logits.pt2"}
"""Methods of models that become programs, and their files."""


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


class Program(nn.Module):
    """One method of a model as a module of its own."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *inputs: Tensor) -> Tensor:
        return getattr(self.model, self.method)(*inputs)


def export_program(model: nn.Module, method: str, inputs: Inputs, path: Path) -> None:
    """Saves one method of a model as a program of its own."""
    program = torch.export.export(
        Program(model, method).eval(), inputs.example, dynamic_shapes={"inputs": inputs.dynamic}
    )
    torch.export.save(program, path)


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


# ----------------------------------------------------------------------------------------------------------- model card

MODEL_CARD = """---
library_name: pytorch
tags: [self-organising-map, {experiment}]
---

# {name}

{description}

{source}

{parameters:,} parameters in float32; a sample has the shape [{shape}].{map}

## Use

Paths below are seen from the folder that holds `{folder}`. With the repository that made it:

```python
import torch
from scripts.export import load_exported

model = load_exported("{folder}")
```

{methods}

With PyTorch alone:

```python
import torch
{programs}
```

{sizes}

## Data

{data}

## Metrics

{metrics}

They are of one run, seed {seed}, by code at commit {commit}, computed in {precision} with {versions}.

## Settings

```yaml
{settings}
```

## Limits

{limits}
"""
SCALED = {
    "per_image_max": "They are float32 in [0, 1]: of each sample, every value is divided by the largest one.",
    "unit": "They are float32 in [0, 1]: every value is divided by the largest possible one (255 in files).",
}
"""What the card says of the values of pictures, by `data.scaling`."""
METHODS = ("winners", "logits", "forecast_hours")
"""Methods of models that the card explains."""

LIMITS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        lambda config: True,
        "It knows the data above alone; samples must be prepared as in training (`data` in Settings). NaN is no error: "
        "such a sample gets some unit.",
    ),
    (lambda config: True, "One run says nothing of the spread over seeds."),
    (
        lambda config: config["data"]["limit"],
        "It was trained and evaluated on a part of the data set, the first samples of each split (`data.limit`).",
    ),
    (
        lambda config: config["evaluation"]["whole_batches"],
        "The samples behind the last whole batch of a split were not evaluated.",
    ),
    (
        lambda config: config["model"].get("assignment") == "sample",
        "The metrics are of units assigned from one random sample of each posterior; here its mean assigns them.",
    ),
    (
        lambda config: config["compute"]["precision"] != "fp32",
        "The metrics were computed in less than float32; here, some samples may get another unit.",
    ),
    (lambda config: config.get("loss", {}).get("eta") == 0, "The forecaster is untrained (`loss.eta: 0`)."),
    (
        lambda config: config["data"]["name"] in ("physionet2012", "eicu", "stays_table"),
        "It is for research, not for decisions about patients.",
    ),
    (
        lambda config: config["data"]["name"] == "eicu",
        "eICU is given under a data use agreement: see what it says of models before you pass this one on.",
    ),
]
"""What a card warns of: when, and in which words."""


def card(model: nn.Module, record: dict[str, Any], samples: Samples, inputs: Inputs, folder: str) -> str:
    """The model card: what it is, how to use it, on which data it was trained, how good it is, and what it is not."""
    config, has_map = record["config"], hasattr(model, "winners")
    name = f"{type(model).__name__} on {config['data']['name']}"
    height, width = config["model"]["map_size"]
    programs = {method: file for method, file in PROGRAMS.items() if hasattr(model, method)}
    return MODEL_CARD.format(
        experiment=record["experiment"],
        name=name,
        description=" ".join(paragraphs(type(model))[0].split()),
        source=source_of(record["experiment"]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        shape=shown(samples.shape),
        map=f" The map has {height} x {width} units; unit = row * {width} + column." if has_map else "",
        folder=folder,
        sizes=f"{inputs.sizes} {SCALED.get(config['data'].get('scaling'), '')}".rstrip(),
        methods="\n".join(method_line(model, method) for method in METHODS if hasattr(model, method)),
        programs="\n".join(
            f'\nprogram = torch.export.load("{folder}/{file}").module()  # {method}\n'
            f"{Path(file).stem} = program({inputs.code})"
            for method, file in programs.items()
        ),
        data=data_lines(config["data"]["name"], samples),
        metrics=metrics_table(record["metrics"]),
        seed=record["seed"],
        commit=(record["git_commit"] or "unknown") + (" with uncommitted changes" if record["git_dirty"] else ""),
        precision=config["compute"]["precision"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        settings=yaml.safe_dump(
            {name: value for name, value in config.items() if name not in ("tracking", "resume")},
            default_flow_style=None,
            width=110,
        ).strip(),
        limits="\n".join(f"- {sentence}" for applies, sentence in LIMITS if applies(config)),
    )


def paragraphs(documented: object) -> list[str]:
    return (inspect.getdoc(documented) or "").split("\n\n")


def source_of(experiment: str) -> str:
    """Where the method comes from, as the experiment says."""
    found = paragraphs(importlib.import_module(f"experiments.{experiment}"))
    return next((text for text in found if text.startswith("Source")), f"Experiment: {experiment}")


def method_line(model: nn.Module, method: str) -> str:
    function = getattr(model, method)
    arguments = ", ".join(inspect.signature(function).parameters)
    return f"- `model.{method}({arguments})`: {' '.join(inspect.getdoc(function).split())}"


def data_lines(name: str, samples: Samples) -> str:
    lines = [
        f"{name}, checksum `{samples.checksum}`",
        ", ".join(f"{count:,} {split}" for split, count in samples.splits.items()) + " samples",
    ]
    if samples.classes:
        lines.append(f"Classes, in the order of their numbers: {', '.join(samples.classes)}")
    if samples.channels:
        lines.append(f"Channels, in this order: {', '.join(channel.label for channel in samples.channels)}")
        lines.append(
            "Values are (value - mean) / scale with `samples.channels` of config.json; gaps are filled as in training"
        )
    return "\n".join(f"- {line}" for line in lines)


def metrics_table(metrics: dict[str, float]) -> str:
    """A row for each metric, a column for each split."""
    (_, *splits), *rows = rows_by_split(
        {name: "" if value is None else f"{value:.4g}" for name, value in metrics.items()}
    )
    head = ["metric", *(split.replace("_", " ") for split in splits)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *sorted(rows)])


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
