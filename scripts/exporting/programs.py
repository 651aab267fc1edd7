"""The programs of `torch.export` that an exported folder holds, and what those of each experiment take."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim


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
