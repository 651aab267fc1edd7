"""The model card: what a model is, how to use it, its data, how good it is, and what it is not."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.datasets.samples import Samples
from experiments.record import rows_by_split
from scripts.exporting.programs import PROGRAMS, Inputs, shown

import yaml
from torch import nn

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
